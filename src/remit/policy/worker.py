"""The process that evaluates policy; run as a file, imports only the engine and the standard library.

    parent ── frame: length (4 bytes, big-endian), kind (1 byte), body ──▶ this process
    parent ◀── one frame for each frame, in order ────────────────────────

    L load     {"modules": {name: text}, "data": {…}}                     → R {} or F
    E evaluate rule paths (a space between), newline, input as JSON       → R results, U or F
    T try      {"modules", "data", "input", "queries": [rule path, …]}    → R [[kind, text], …] or F
    C cover    as T → R {"answers": [[kind, text, [print, …]], …], "files": [coverage, …]} or F
    A parse    {"modules": {name: text}}                                  → R syntax trees or F

    R result   JSON; of E, a NUL between   U undefined: the first rule without a value
    F fault    {"message", "place"}        P panic: as F, and the process ends

It trusts its parent and nothing else: what it evaluates may be hostile. It has no files beyond its
pipe, no right to fork, bounded memory, bounded CPU time per frame, and an environment of one
allocator setting. Whoever started it kills it when it is late; the kernel does when the parent is
gone.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import struct
import sys
from typing import Any

import regorus

MAX_FRAME = 64 * 1024 * 1024
MAX_RESULT = 1024 * 1024
LOAD_CPU_S = 30
EVALUATE_CPU_S = 3

SEPARATOR = "\0"
"""Stands between results: no JSON text holds it."""

READY_NAME = "remit_ready.rego"
READY = "package remit_ready\nimport rego.v1\nyes := true\n"

_UNDEFINED = '"<undefined>"'
_PLACE = re.compile(r"-->\s*(\S+:\d+:\d+)")
_MESSAGE = re.compile(r"^error: (.*)$", re.MULTILINE)
_QUOTED = re.compile(r"`[^`]*`")


class Worker:
    """One engine, loaded once; a new policy is a new process."""

    def __init__(self) -> None:
        self.engine: Any = None

    def answer(self, kind: bytes, body: bytes) -> tuple[bytes, bytes]:
        """The reply to one frame. A panic of the engine is not an `Exception`."""
        try:
            if kind == b"E":
                return self.evaluate(body)
            if kind == b"L":
                return self.load(body)
            if kind == b"T":
                return b"R", json.dumps(try_all(json.loads(body))).encode()
            if kind == b"C":
                return b"R", json.dumps(cover(json.loads(body))).encode()
            if kind == b"A":
                return b"R", parse(json.loads(body)["modules"]).encode()
            return fault("the frame's kind is not known")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the parent must deny
            return fault(str(error) or type(error).__name__, quote=kind != b"E")
        except BaseException as error:  # noqa: BLE001 - the engine's panics derive from this
            return b"P", fault(f"the engine panicked: {error}")[1]

    def load(self, body: bytes) -> tuple[bytes, bytes]:
        if self.engine is not None:
            return fault("a policy is loaded already")
        document = json.loads(body)
        self.engine = engine_with(document["modules"], document["data"])
        gc.collect()
        gc.freeze()
        return b"R", b"{}"

    def evaluate(self, body: bytes) -> tuple[bytes, bytes]:
        if self.engine is None:
            return fault("no policy is loaded")
        rules, _, document = body.partition(b"\n")
        # A copy for each question (it shares what was compiled): an evaluation that fails inside
        # a loop leaves the engine in the middle of it, and the next one would find nothing there.
        engine = self.engine.clone()
        engine.set_input_json(document.decode())
        results: list[str] = []
        undefined = None
        for rule in rules.decode().split(" "):
            kind, text = outcome(engine, rule)
            if kind == "F":  # whatever else there is: a rule that fails spoils the question
                return b"F", text.encode()
            if kind == "U":
                undefined = undefined or rule
            elif len(text) > MAX_RESULT:
                return fault("the answer is too large")
            results.append(text)
        if undefined is not None:
            return b"U", undefined.encode()
        return b"R", SEPARATOR.join(results).encode()


def parsed(modules: dict[str, str]) -> Any:
    """A fresh engine with these modules; raises on one that does not parse."""
    engine = regorus.Engine()
    for name, text in sorted(modules.items()):
        engine.add_policy(name, text)
    return engine


def engine_with(modules: dict[str, str], data: dict[str, Any]) -> Any:
    """A fresh engine, ready to evaluate; raises on what cannot be compiled.

    The engine compiles all modules when it evaluates for the first time, so it is given something
    of our own to evaluate: an unsafe variable must not wait for a caller's question.
    """
    engine = parsed({**modules, READY_NAME: READY})
    engine.add_data_json(json.dumps(data))
    engine.set_input_json("{}")
    engine.eval_rule_as_json("data.remit_ready.yes")
    return engine


def outcome(engine: Any, rule: str) -> tuple[str, str]:
    """The kind and text of one rule's value; a rule that does not exist is undefined too."""
    try:
        value = str(engine.eval_rule_as_json(rule))
    except Exception as error:  # noqa: BLE001 - the engine raises RuntimeError for all of its own
        if not str(error).startswith("not a valid rule path"):
            return "F", fault(str(error))[1].decode()
        return outcome_in_parts(engine, rule)
    # The engine spells undefined as this string, so a policy that answers the string itself is
    # undefined too. Neither is a decision, which is always an object.
    return ("U", "") if value == _UNDEFINED else ("R", value)


def outcome_in_parts(engine: Any, rule: str) -> tuple[str, str]:
    """As `outcome`, for a rule of which only parts are written (`visible["a"] := true`).

    To the engine each such part is a rule of its own; a query puts them together as OPA does.
    """
    try:
        found = json.loads(engine.eval_query_as_json(rule), object_pairs_hook=once)
    except Exception as error:  # noqa: BLE001 - as in `outcome`
        return "F", fault(str(error))[1].decode()
    results = found.get("result")
    if not results:
        return "U", ""
    value = json.dumps(results[0]["expressions"][0]["value"])
    return ("U", "") if value == _UNDEFINED else ("R", value)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON none of whose keys comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key of the answer comes twice")
    return found


def try_all(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Evaluate rules in a fresh engine that is thrown away: probes, and a policy's own tests."""
    engine = engine_with(document["modules"], document["data"])
    engine.set_input_json(json.dumps(document["input"]))
    return [outcome(engine.clone(), rule) for rule in document["queries"]]


def cover(document: dict[str, Any]) -> dict[str, Any]:
    """As `try_all`, with what each rule printed, and the lines that were reached by all of them."""
    engine = engine_with(document["modules"], document["data"])
    engine.set_input_json(json.dumps(document["input"]))
    engine.set_gather_prints(True)
    engine.set_enable_coverage(True)
    answers = []
    for rule in document["queries"]:
        before = engine.clone()
        kind, text = outcome(engine, rule)
        answers.append([kind, text, [str(line) for line in engine.take_prints()]])
        if kind == "F":  # what it reached is not counted: see `Worker.evaluate`
            engine = before
    report = json.loads(engine.get_coverage_report_as_json())
    files = [
        {name: each[name] for name in ("path", "covered", "not_covered")}
        for each in report["files"]
        if each["path"] != READY_NAME
    ]
    return {"answers": answers, "files": files}


def parse(modules: dict[str, str]) -> str:
    """The syntax trees of the modules, in the order of their names."""
    return str(parsed(modules).get_ast_as_json())


def fault(message: str, *, quote: bool = False) -> tuple[bytes, bytes]:
    """A fault frame: the engine's one line and place, without its backtrace.

    Between backquotes the engine puts values, which may be what a caller sent; they are kept only
    where nothing but the policy's own text can be meant.
    """
    head = message.split("Stack backtrace:", maxsplit=1)[0]
    lines = _MESSAGE.findall(head)
    line = lines[0] if lines else next(iter(head.strip().splitlines()), "")
    if not quote:
        line = _QUOTED.sub("`…`", line)
    place = _PLACE.search(head)
    body = {"message": line[:500], "place": place.group(1) if place else None}
    return b"F", json.dumps(body).encode()


def confine(memory_mb: int, parent: int) -> None:
    """Give up all that evaluating does not need, before anything from outside is read."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        die_with_parent, no_new_privileges, kill = 1, 38, 9
        libc.prctl(die_with_parent, kill, 0, 0, 0)
        libc.prctl(no_new_privileges, 1, 0, 0, 0)
        if os.getppid() != parent:  # it went before the line above could take hold
            os._exit(0)
    os.umask(0o077)
    most = memory_mb * 1024 * 1024
    for limit, value in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def allow_cpu(seconds: int) -> None:
    """Let the kernel end this process if one frame uses more CPU time than this."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def read_exactly(size: int) -> bytes | None:
    """So many bytes from the parent; None when it has gone."""
    first = os.read(0, min(size, 1 << 20))
    if len(first) == size:
        return first
    parts = bytearray(first)
    while first and len(parts) < size:
        first = os.read(0, min(size - len(parts), 1 << 20))
        parts += first
    return bytes(parts) if len(parts) == size else None


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    memory_mb, parent = (int(word) for word in sys.argv[1:3])
    confine(memory_mb, parent)
    worker = Worker()
    while True:
        head = read_exactly(5)
        if head is None:
            return
        size, kind = struct.unpack(">I1s", head)
        body = read_exactly(size) if size <= MAX_FRAME else None
        if body is None:
            return
        allow_cpu(EVALUATE_CPU_S if kind == b"E" else LOAD_CPU_S)
        reply, text = worker.answer(kind, body)
        write_all(struct.pack(">I1s", len(text), reply) + text)
        if reply == b"P":
            return


if __name__ == "__main__":
    main()
