"""Questions to compare policies by: those that tests ask, and random mixtures of their parts.

Every `with input as …` of the tests is evaluated and laid over an empty `remit.input/1`. More are
made by giving one question, at a few places, what another has there; and tools of the catalog take
the place of those in tests. A seed gives the same questions each time.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.errors import PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.lint import modules_of
from remit.policy.process import run_once, try_frame
from remit.policy.schemas import shipped
from remit.policy.syntax import Module, Node
from remit.policy.why import statements

MOST_CHANGES = 3
_PLACES = (
    ("phase",), ("caller", "groups"), ("caller", "roles"), ("caller", "kind"), ("caller", "subject"),
    ("caller", "acr"), ("claims", "purpose"), ("tool", "effect"), ("tool", "risk"),
    ("tool", "environments"), ("tool",), ("arguments",), ("answers",), ("context", "environment"),
    ("context", "time"), ("context", "source_ip"), ("context", "break_glass"), ("approvals",),
    ("history",), ("usage",), ("plan",),
)  # fmt: skip


def samples(
    bundles: Sequence[PolicyBundle],
    *,
    count: int,
    seed: int,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """So many questions that these policies may be asked; the tests' own come first.

    Args:
        tools: facts of tools as they stand in `input.tool`.
    """
    chance = random.Random(seed)  # noqa: S311 - samples, not secrets
    asked = [question for bundle in bundles for question in of_tests(bundle)]
    blank = empty()
    known = _distinct([_over(blank, question) for question in asked]) or [blank]
    found = known[:count]
    while len(found) < count:
        question = copy.deepcopy(chance.choice(known))
        for place in chance.sample(_PLACES, chance.randint(1, MOST_CHANGES)):
            _put(question, place, _at(chance.choice(known), place))
        if tools and chance.random() < 0.5:
            question["tool"] = {**(question["tool"] or {}), **chance.choice(tools)}
        found.append(question)
    return found


def of_tests(bundle: PolicyBundle) -> list[dict[str, Any]]:
    """The inputs that the tests of a bundle ask about, as far as they can be evaluated alone."""
    found: list[dict[str, Any]] = []
    for module in modules_of(bundle)[0]:
        if module.is_test:
            found += _asked_in(bundle, module)
    return found


def _asked_in(bundle: PolicyBundle, module: Module) -> Iterator[dict[str, Any]]:
    queries = [
        f"remit_sample_{number} := [v |\n{given}\nv := {value}\n]"
        for number, (given, value) in enumerate(_inputs(module))
    ]
    text = module.source.decode("utf-8", "replace") + "\n" + "\n".join(queries) + "\n"
    texts = {**bundle.modules, **bundle.tests, module.name: text}
    rules = [f"data.{module.package}.remit_sample_{number}" for number in range(len(queries))]
    try:
        answers = json.loads(run_once(try_frame(texts, bundle.data, rules, {})))
    except PolicyFault:
        return
    for kind, value in answers:
        if kind == "R":
            yield from (each for each in json.loads(value) if isinstance(each, dict))


def _inputs(module: Module) -> Iterator[tuple[str, str]]:
    """The names bound before, and the value, of each `with input as …` in a test."""
    for name, rule in module.rules():
        if not name.startswith("test_"):
            continue
        for body in rule["bodies"]:
            given: list[str] = []
            query = body["query"]
            for statement, node in zip(statements(module, query), query["stmts"], strict=True):
                if statement.changes:
                    values = _input_values(module, node["with_mods"], statement.end)
                    yield from (("\n".join(given), value) for value in values)
                elif "AssignExpr" in node["literal"].get("Expr", {}).get("expr", {}):
                    given.append(statement.text)


def _input_values(module: Module, changes: Sequence[Node], end: int) -> Iterator[str]:
    """The source of what takes the place of the whole input, in `with input as …`."""
    spans = [next(iter(change["refr"].values()))["span"] for change in changes]
    starts = [span["start"] for span in spans[1:]] + [end]
    for change, span, until in zip(changes, spans, starts, strict=True):
        if change["refr"].get("Var", {}).get("value") == "input":
            text = module.source[span["end"] : until].decode("utf-8", "replace").strip("; \t\n")
            yield text.removeprefix("as").removesuffix("with").strip()


def empty() -> dict[str, Any]:
    """A `remit.input/1` in which every part that always stands is there and says nothing."""
    schema = shipped("remit.input-1")
    made: dict[str, Any] = _blank(schema, schema.get("$defs", {}))
    return made | {"phase": "call"}


def _blank(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _blank(known[schema["$ref"].rpartition("/")[2]], known)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return None if {"type": "null"} in schema[either] else _blank(schema[either][0], known)
    kind = schema.get("type", "object")
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: _blank(fields[name], known) for name in schema.get("required", ())}
    plain = {"array": [], "string": "", "integer": 0, "boolean": False}
    return copy.copy(plain.get(kind if isinstance(kind, str) else kind[0]))


def _over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: _over(below.get(key), value) for key, value in above.items()} | {
            key: value for key, value in below.items() if key not in above
        }
    return copy.deepcopy(above)


def _distinct(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    texts = {json.dumps(question, sort_keys=True): question for question in questions}
    return list(texts.values())


def _at(question: Any, place: Sequence[str]) -> Any:
    for step in place:
        if not isinstance(question, dict):
            return None
        question = question.get(step)
    return copy.deepcopy(question)


def _put(question: dict[str, Any], place: Sequence[str], value: Any) -> None:
    *path, last = place
    inside: Any = question
    for step in path:
        inside = inside.get(step)
        if not isinstance(inside, dict):
            return
    if value is not None or last in inside:
        inside[last] = value
