"""`python -m bench.through`: a sandboxed call through the whole pipeline, and where its time goes.

    python -m bench.through [--seconds S] [--load N]

The gateway without its HTTP door: policy, plan, durable log signed by the keeper, the sandbox. Calls
are made one at a time, without and with slots made ahead, a way out, and a credential; what the runner
and the keeper take of them is timed at their ports. Beside it, bare bubblewrap of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.pool import Row, beside, row, table
from bench.spawn import bare_bubblewrap
from bench.stages import Silent
from remit.app import open_gateway
from remit.backends import Backends
from remit.config import load
from remit.gateway import Gateway
from remit.ledger.signer import FileSigner
from remit.model import Call, Caller, CallerKind
from remit.telemetry import STAGE_TIMES, configure_logs

CALLER = Caller(tenant="default", subject="bench", kind=CallerKind.AGENT, key_id="k1")
POLICY = """package remit

import rego.v1
import future.keywords.not

reasons := [{"code": "bench", "message": "a bench", "audience": "user"}]

default decision := {"schema": "remit.decision/1", "decision": "deny", "reasons": []}

decision := {
    "schema": "remit.decision/1", "decision": "allow", "reasons": reasons,
    "constraints": {"egress": input.tool.egress, "credentials": input.tool.credentials},
} if input.caller.tenant == "default"

visible := {tool.name: true | some tool in input.tools}
"""
OUT: dict[str, Any] = {"egress": [{"host": "bench.invalid", "port": 443}]}
LENT: dict[str, Any] = {**OUT, "credentials": [{"ref": "token"}]}
TOKEN = {
    "broker": "static",
    "secret": "file:token",
    "inject": [{"host": "bench.invalid", "value": "Bearer {token}"}],
}
TRUE, ECHO = ["/bin/true"], ["/bin/echo", "hello"]
PYTHON = ["/usr/bin/python3", "-I", "-S", "-c", "print('hello')"]
WARM = {"shell": 8, "python": 8, "refill_per_s": 1000}
CASES: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
    ("/bin/true", TRUE, {}),
    ("/bin/true, with a way out", TRUE, OUT),
    ("/bin/true, with a way out and a credential", TRUE, LENT),
    ("/bin/echo from a slot", ECHO, {"runner": "warm"}),
    ("python3 -I -S", PYTHON, {}),
    ("python3 -I -S from a slot", PYTHON, {"runner": "warm"}),
)
METHODS = ("provision", "start", "collect", "destroy", "lend", "take_back", "scrub")


class Timed:
    """A port whose named methods are timed, and nothing else about it changed."""

    def __init__(self, port: Any, times: dict[str, list[float]]) -> None:
        self._port = port
        self._times = times

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return partial(self._timed, name, found) if name in METHODS else found

    async def _timed(self, name: str, call: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        began = time.perf_counter()
        try:
            return await call(*given)
        finally:
            self._times.setdefault(name, []).append(time.perf_counter() - began)


def make_world(root: Path) -> None:
    """Write a configuration with the cases as tools, its policy, key and token."""
    root.chmod(0o755)
    (root / "policy").mkdir()
    (root / "policy" / "policy.rego").write_text(POLICY)
    keys = root / "data" / "keys"
    keys.mkdir(parents=True)
    FileSigner.create(keys / "log.key", "remit.bench/log")
    token = root / "token"
    token.write_text("a-token-of-the-bench")
    token.chmod(0o600)
    tools = [
        {
            "name": f"bench_{number}",
            "description": f"{name}, for measuring",
            "effect": "write",
            "input_schema": {"type": "object", "properties": {}},
            "command": {"argv": argv},
            **more,
        }
        for number, (name, argv, more) in enumerate(CASES)
    ]
    key = {"id": "k1", "subject": "bench", "kind": "agent", "sha256": "0" * 64}
    config = {
        "server": {"data_dir": "data"},
        "identity": {"keys": [key]},
        "catalog": {"tools": tools},
        "limits": {"calls_per_minute": 1_000_000},
        "runners": {"profiles": {"warm": {"warm": WARM}}, "credentials": {"token": TOKEN}},
    }
    (root / "remit.yaml").write_text(json.dumps(config))


async def one(gateway: Gateway, number: int) -> float:
    """One call; gives how long it took, in seconds."""
    call = Call(
        id=gateway.new_call_id(),
        caller=CALLER,
        tool_name=f"bench_{number}",
        arguments={},
        received_ms=round(time.time() * 1000),
    )
    began = time.perf_counter()
    reply = await gateway.call(call, Silent())
    took = time.perf_counter() - began
    if reply.decision["code"] != "ok":
        raise SystemExit(f"unexpected answer: {reply.decision} {reply.content.value()}")
    return took


@asynccontextmanager
async def opened(times: dict[str, list[float]]) -> AsyncIterator[Gateway]:
    """The gateway, with runner and keeper timed."""

    def timed(backends: Backends) -> Backends:
        runner: Any = Timed(backends.runner, times)
        keeper: Any = Timed(backends.credentials, times)
        return replace(backends, runner=runner, credentials=keeper)

    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        root = Path(folder)
        make_world(root)
        async with open_gateway(load(root / "remit.yaml"), rearrange=timed) as gateway:
            yield gateway
        shutil.rmtree(root / "data")


async def measure(seconds: float) -> tuple[list[Row], list[str]]:
    """A row for each case, and a line that says where its time went."""
    times: dict[str, list[float]] = {}
    rows, splits = [], []
    began = time.perf_counter()
    async with opened(times) as gateway:
        rows.append(row("a gateway's start, with policy, keeper, proxy and probes",
                        [time.perf_counter() - began]))  # fmt: skip
        for number, (name, *_) in enumerate(CASES):
            for _ in range(5):
                await one(gateway, number)
            times.clear()
            STAGE_TIMES.reset()
            taken: list[float] = []
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                taken.append(await one(gateway, number))
            rows.append(row(f"through the pipeline: {name}", taken))
            splits.append(split(name, len(taken), times))
    return rows, splits


def split(name: str, calls: int, times: dict[str, list[float]]) -> str:
    """Milliseconds a call by stage, and of the runner's and keeper's methods."""
    stages = [f"{stage} {1000 * took / calls:.2f}" for stage, took in STAGE_TIMES.totals().items()]
    ports = [f"{method} {1000 * sum(took) / calls:.2f}" for method, took in times.items()]
    return f"{name}\n  stages: {', '.join(stages)}\n  at ports: {', '.join(ports)}"


def floor(seconds: float) -> Row:
    """Bare bubblewrap, once before and once after, of which the quicker counts."""
    found = bare_bubblewrap(seconds)
    return Row(
        name=found.name, n=found.requests, p50=found.p50_ms, p99=found.p99_ms,
        per_second=found.per_second,
    )  # fmt: skip


def told(rows: Sequence[Row], splits: Sequence[str]) -> str:
    """The table, and what came of it as ratios to bare bubblewrap of the same run."""
    base = min(each.p50 for each in rows if each.name.startswith("bare bwrap"))
    ratios = [
        f"  {each.name.partition(': ')[2]:<46}{each.p50 / base:>6.2f}x"
        for each in rows
        if each.name.startswith("through")
    ]
    return "\n".join([table(rows), "against bare bwrap, p50:", *ratios, *splits])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per row")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside")
    chosen = parser.parse_args()
    configure_logs("json", "warning")
    with beside(chosen.load):
        before = floor(chosen.seconds / 2)
        rows, splits = uvloop.run(measure(chosen.seconds))
        rows = [before, floor(chosen.seconds / 2), *rows]
    print(f"{chosen.load} busy processes beside, load {os.getloadavg()[0]:.1f}")
    print(told(rows, splits))


if __name__ == "__main__":
    main()
