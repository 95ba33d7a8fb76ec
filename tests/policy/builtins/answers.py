"""What each engine answers to many expressions: a value, nothing, or an error."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remit.errors import PolicyFault
from remit.policy.process import run_once, try_frame
from tests.plugins.machine import opa_binary

HEAD = "package probe\nimport rego.v1\nimport future.keywords.not\n"
NAMES = HEAD.count("\n") + 1
ERROR = "an error"
UNDEFINED = "no value"
BATCH = 100


def module(expressions: Sequence[str], numbers: Sequence[int]) -> str:
    return HEAD + "".join(f"p_{number} := {expressions[number]}\n" for number in numbers)


def embedded(expressions: Sequence[str], question: Any) -> list[Any]:
    """The embedded engine's answers; a crash counts as an error, as it is a denial."""
    answers: dict[int, Any] = {}
    todo = [
        list(range(first, min(first + BATCH, len(expressions))))
        for first in range(0, len(expressions), BATCH)
    ]
    while todo:
        numbers = todo.pop()
        queries = [f"data.probe.p_{number}" for number in numbers]
        frame = try_frame({"p.rego": module(expressions, numbers)}, {}, queries, question)
        try:
            told = json.loads(run_once(frame, timeout_s=30))
        except PolicyFault:
            if len(numbers) == 1:
                answers[numbers[0]] = ERROR
            else:
                half = len(numbers) // 2
                todo += [numbers[:half], numbers[half:]]
            continue
        for number, (kind, text) in zip(numbers, told, strict=True):
            answers[number] = {"F": ERROR, "U": UNDEFINED}.get(kind) or json.loads(text)
    return [answers[number] for number in range(len(expressions))]


def authority(expressions: Sequence[str], question: Any, folder: Path) -> list[Any]:
    """The answers of a real OPA server with strict builtin errors."""
    with _server(folder / "opa.sock") as ask:
        alive, refused = list(range(len(expressions))), set[int]()
        while True:
            status, told = ask("PUT", "/v1/policies/p.rego", module(expressions, alive))
            if status == 200:
                break
            rows = {
                each["location"]["row"] - NAMES for each in told["errors"] if "location" in each
            }
            refused |= {alive[row] for row in rows}
            alive = [number for place, number in enumerate(alive) if place not in rows]
        answers: list[Any] = []
        body = json.dumps({"input": question})
        for number in range(len(expressions)):
            if number in refused:
                answers.append(ERROR)
                continue
            path = f"/v1/data/probe/p_{number}?strict-builtin-errors=true"
            status, told = ask("POST", path, body)
            answers.append(ERROR if status != 200 else told.get("result", UNDEFINED))
        return answers


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("opa")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@contextmanager
def _server(path: Path) -> Iterator[Any]:
    argv = [str(opa_binary()), "run", "--server", "--addr", f"unix://{path}"]
    argv += ["--log-level", "error", "--disable-telemetry"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connection = _Connection(path)

    def ask(method: str, where: str, body: str) -> tuple[int, Any]:
        connection.request(method, where, body=body.encode())
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    try:
        for _ in range(400):
            try:
                connection.request("GET", "/health")
                connection.getresponse().read()
                break
            except OSError:
                connection.close()
                time.sleep(0.02)
        yield ask
    finally:
        connection.close()
        process.terminate()
        process.wait(10)


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: a number is not a truth value, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
