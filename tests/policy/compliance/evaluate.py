"""Evaluates compliance cases on the embedded engine, each in a process of its own; run as a file.

A case a line on standard input, an answer a line on standard output:
`{"bindings": […]}`, or `{"error": …}` for an error, a panic, a crash or more than ten seconds,
with what the case calls `outside` of the profile. A set is `{"$set": […]}`, because the suite writes it as an array whose order means nothing.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

import regorus

from remit.policy.builtins import ALLOWED
from remit.policy.syntax import dotted, module_of

SET = "$set"
SECONDS = 10
MEMORY = 2 * 1024 * 1024 * 1024


def evaluate(case: dict[str, Any]) -> dict[str, Any]:
    try:
        engine = regorus.Engine()
        for number, text in enumerate(case["modules"]):
            engine.add_policy(f"case-{number}.rego", text)
        if case["data"] is not None:
            engine.add_data_json(json.dumps(case["data"]))
        if case["input_term"] is not None:
            engine.set_input_json(_term(engine, case["input_term"]))
        elif case["has_input"]:
            engine.set_input_json(json.dumps(case["input"]))
        return {"bindings": _rows(engine, case["query"])}
    except BaseException as error:
        return {"error": str(error).split("Stack backtrace:", maxsplit=1)[0][:400] or repr(error)}


def _rows(engine: Any, query: str) -> list[Any]:
    """The bindings of each answer that holds, sets told from arrays where Python can hold them."""
    try:
        rows = engine.eval_query(query)["result"]
    except TypeError:  # a set of objects: as JSON it is an array, of which the order says nothing
        rows = _unordered(json.loads(engine.eval_query_as_json(query))["result"])
    return [
        {name: _tagged(value) for name, value in row.get("bindings", {}).items()}
        for row in rows
        if not any(item["value"] is False for item in row["expressions"])
    ]


def _term(engine: Any, text: str) -> str:
    answer = json.loads(engine.eval_query_as_json(text))
    return json.dumps(answer["result"][0]["expressions"][0]["value"])


def _unordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "bindings": _sets(row.get("bindings", {}))} for row in rows]


def _sets(value: Any) -> Any:
    match value:
        case list():
            return {SET: [_sets(item) for item in value]}
        case dict():
            return {key: _sets(item) for key, item in value.items()}
        case _:
            return value


def _tagged(value: Any) -> Any:
    match value:
        case set() | frozenset():
            return {SET: [_tagged(item) for item in value]}
        case list() | tuple():
            return [_tagged(item) for item in value]
        case dict():
            return {
                key if isinstance(key, str) else json.dumps(key): _tagged(item)
                for key, item in value.items()
            }
        case _:
            return value


def outside(texts: list[str]) -> list[str] | None:
    """What these modules call that is neither a builtin of the profile nor their own function.

    None where one does not parse: the profile refuses such a policy, so it is never loaded.
    """
    try:
        modules = [module_of("case.rego", text, _tree(text)) for text in texts]
    except RuntimeError:
        return None
    functions = {name for module in modules for name in module.functions}
    called = [(module, dotted(call["fcn"])) for module in modules for call in module.calls()]
    return sorted(
        {
            name
            for module, name in called
            if name not in ALLOWED and not module.resolve(name) & functions
        }
    )


def _tree(text: str) -> Any:
    engine = regorus.Engine()
    engine.add_policy("case.rego", text)
    return json.loads(engine.get_ast_as_json())[0]["ast"]


def apart(case: dict[str, Any]) -> dict[str, Any]:
    """The answer to one case from a child that may crash, hang or grow."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        answer = {"outside": outside(case["modules"]), **evaluate(case)}
        text = json.dumps(answer).encode()
        while text:
            text = text[os.write(writable, text) :]
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not text:
        return {"outside": [], "error": f"the process ended with {status}"}
    found: dict[str, Any] = json.loads(text)
    return found


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(apart(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
