"""`python -m bench.per_call`: a server of one call, through Remit and by itself.

    python -m bench.per_call [--calls N] [-o text|json]

Real servers, as tests/upstream_servers/install.sh puts them on the machine. `bare` starts the same
command with no sandbox, agrees on a revision, lists the tools, makes the call and waits for the
end: what any client of stdio does. `Remit` is the gateway without its HTTP door: policy, plan,
durable log signed by the keeper, and a sandbox that is made for the call and destroyed after it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from tests.upstream_servers.real import MEMORY, TIME, Real, entry, outside

from bench.__main__ import machine
from bench.fronts.remit import write_world
from bench.pool import Row, row, table
from bench.stages import Silent
from remit.app import open_gateway
from remit.backends import Backends
from remit.config import load
from remit.gateway import Gateway
from remit.model import Call, Caller, CallerKind
from remit.ports import Servers
from remit.telemetry import configure_logs
from remit.upstreams.conversation import Conversation

REALS = (TIME, MEMORY)
ONCE = {TIME.name: TIME.asked[0], MEMORY.name: MEMORY.asked[1]}


class Pipes:
    """The stdin and stdout of a process, as a conversation wants them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self._stdout = process.stdin, process.stdout

    async def write(self, data: bytes, /) -> None:
        self.stdin.write(data)
        await self.stdin.drain()

    async def read(self) -> bytes:
        return await self._stdout.read(65_536)


async def bare(real: Real, files: Path) -> float:
    """One call of a process started for it; seconds until it has ended."""
    asked = ONCE[real.name]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *real.on_this_machine(files), env=outside(dict(real.env), files),
        stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
    )  # fmt: skip
    pipes = Pipes(process)
    async with await Conversation.open(pipes, capabilities={}) as conversation:
        await conversation.list_tools()
        await conversation.call(asked.tool, asked.arguments)
    pipes.stdin.close()
    await process.wait()
    return time.perf_counter() - began


async def through(
    gateway: Gateway, caller: Caller, name: str, arguments: Mapping[str, Any]
) -> float:
    """One call through the pipeline; seconds."""
    call = Call(
        id=gateway.new_call_id(),
        caller=caller,
        tool_name=name,
        arguments=dict(arguments),
        received_ms=round(time.time() * 1000),
    )
    began = time.perf_counter()
    reply = await gateway.call(call, Silent())
    took = time.perf_counter() - began
    if reply.decision["code"] != "ok":
        raise SystemExit(f"unexpected answer: {reply.decision} {reply.content.value()}")
    return took


async def measure(calls: int) -> list[Row]:
    """Two rows for each server, whose calls were made by turns."""
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        root, files = Path(folder), Path(folder) / "files"
        root.chmod(0o755)
        files.mkdir()
        files.chmod(0o777)
        steady: dict[str, Any] = {"effect": "read", "environment": {"fixed": "staging"}}
        servers = [entry(real, files, **steady) for real in REALS]
        names = {real.name: f"{real.name}_{ONCE[real.name].tool}" for real in REALS}
        (root / "gateway").mkdir()
        key = write_world(
            root / "gateway", servers, list(names.values()),
            listen="127.0.0.1:0", admin="127.0.0.1:0",
        )  # fmt: skip
        caller = Caller(
            tenant="default", subject="bench", kind=CallerKind.AGENT, key_id=key.id,
            groups=("agents",),
        )  # fmt: skip
        known: list[Servers] = []
        settings = load(root / "gateway" / "remit.yaml", environ={})
        async with open_gateway(settings, rearrange=partial(_noting, known)) as gateway:
            rows: list[Row] = []
            for real in REALS:
                await known[0].look(real.name)
                one = partial(through, gateway, caller, names[real.name], ONCE[real.name].arguments)
                rows += await _compared(real, one, files, calls)
    return rows


def _noting(known: list[Servers], backends: Backends) -> Backends:
    known.append(backends.servers)
    return backends


async def _compared(
    real: Real, one: Callable[[], Awaitable[float]], files: Path, calls: int
) -> Sequence[Row]:
    alone: list[float] = []
    ours: list[float] = []
    for turn in range(calls + 1):
        times = await bare(real, files), await one()
        if turn:  # the first pays for what is read from disk
            alone.append(times[0])
            ours.append(times[1])
    ratio = statistics.median(ours) / statistics.median(alone)
    return (
        row(f"{real.name}: bare", alone),
        row(f"{real.name}: through Remit, per_call (x{ratio:.2f})", ours),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    chosen = parser.parse_args()
    configure_logs("json", "error")
    rows = uvloop.run(measure(chosen.calls))
    if chosen.output == "json":
        print(json.dumps([asdict(each) for each in rows], indent=1))
        return
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
