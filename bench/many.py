"""`python -m bench.many`: 100 MCP servers with 10,000 tools behind Remit, beside one with few.

    python -m bench.many [--seconds S] [--rounds N]

Each gateway is `remit serve` as an operator runs it: policy with a grant of each tool, its log on
disk, servers over HTTP that it saw in an earlier life, and whose definitions are in its pins. The
start is timed to the moment in which agents can connect. Then the gateways stand beside each other
and are measured in turn, round by round; of each figure the best round counts, because what else
the machine does only ever adds. All the while one server of each gateway never answers: calls to
it hang, and it is not counted among the 100.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_port

from bench.__main__ import machine, request, server
from bench.fronts.process import listening
from bench.fronts.remit import write_world
from bench.load import Figure, cpu_seconds, load
from bench.many_servers import tool_name
from bench.scale import fetch, listing

GOAL_RATIO = 1.2
GOAL_START_S = 5.0
HANGING = 4
STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """So many servers with so many tools each."""

    servers: int
    each: int

    @property
    def tools(self) -> int:
        return self.servers * self.each

    def __str__(self) -> str:
        return f"{self.servers} server{'s'[: self.servers - 1]}, {self.tools:,} tools"


FEW = Case(servers=1, each=10)
ONE_PAGE = Case(servers=1, each=60)
"""The small case for pages: the first page is as full as one of the large case."""
MANY = Case(servers=100, each=100)


@dataclass(slots=True, kw_only=True)
class World:
    """A configured gateway, and what it has been measured at."""

    case: Case
    root: Path
    port: int
    token: str
    pid: int = 0
    start_s: float = 0.0
    start_cpu_s: float = 0.0
    first_page_s: float = 0.0
    best: dict[str, Figure] = field(default_factory=dict)

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "remit", "--config", str(self.root / "remit.yaml"), "serve"]


def made(case: Case, root: Path, upstream: int) -> World:
    """Servers of a case written down, and one more that will not answer."""
    root.mkdir()
    names = [f"s{number:02d}" for number in range(case.servers)]
    servers: list[dict[str, Any]] = [
        {
            "name": name,
            "url": f"http://127.0.0.1:{upstream}/{name}/mcp",
            "effect": "read",
            "environment": {"fixed": "staging"},
        }
        for name in [*names, STUCK]
    ]
    tools = [f"{name}_{tool_name(n)}" for name in [*names, STUCK] for n in range(case.each)]
    port, admin = free_port(), free_port()
    key = write_world(root, servers, tools, listen=f"127.0.0.1:{port}", admin=f"127.0.0.1:{admin}")
    return World(case=case, root=root, port=port, token=key.token)


def seen_once(world: World) -> float:
    """A first life, in which each server is asked for its tools; how many seconds that took."""
    pins = world.root / "data" / "servers" / "pins"
    with listening(world.argv(), world.port):
        began = time.perf_counter()
        while len(list(pins.glob("*.json"))) <= world.case.servers:
            if time.perf_counter() - began > 300:
                raise RuntimeError("not every server was listed")
            time.sleep(0.1)
        return time.perf_counter() - began


@contextmanager
def started(world: World) -> Iterator[None]:
    """The gateway until the block ends, its start timed."""
    began = time.perf_counter()
    with listening(world.argv(), world.port) as pid:
        world.start_s = time.perf_counter() - began
        world.start_cpu_s = cpu_seconds(pid)[1]
        world.pid = pid
        yield


def first_page(world: World) -> None:
    """The list made the first time, and that it holds what it should."""
    began = time.perf_counter()
    page = fetch(world.port, world.token)
    world.first_page_s = time.perf_counter() - began
    count = len(page["tools"])
    while "nextCursor" in page:
        page = fetch(world.port, world.token, page["nextCursor"])
        count += len(page["tools"])
    if count < world.case.tools + world.case.each:
        raise RuntimeError(f"{count} tools are listed")


def measured(world: World, seconds: float) -> Iterator[tuple[str, Figure]]:
    """One round, while calls to the server that does not answer hang."""
    asked = request(world.port, "/mcp", f"s00_{tool_name(5)}", {"text": "hello"}, world.token)
    hang = request(world.port, "/mcp", f"{STUCK}_{tool_name(5)}", {"text": "hello"}, world.token)
    work = [("call", asked, b"hello", 1), ("call", asked, b"hello", 16)]
    if world.case != FEW:
        work.append(("page", listing(world.port, world.token), b'"tools"', 1))
    for name, one, expect, clients in work:
        fetch(world.port, world.token)

        async def run() -> Figure:
            async with hung(world.port, hang):
                return await load(
                    name, world.pid, world.port, one, expect, clients=clients, seconds=seconds  # noqa: B023
                )  # fmt: skip

        yield f"{name}/{clients}", asyncio.run(run())


@contextlib.asynccontextmanager
async def hung(port: int, asked: bytes) -> Any:
    """Calls that get no answer, until the block ends."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HANGING)]
    for _, writer in opened:
        writer.write(asked)
        await writer.drain()
    yield
    for reader, writer in opened:
        if len(reader._buffer):  # type: ignore[attr-defined]
            raise RuntimeError("the server that does not answer has answered")
        writer.close()


def stuck(upstream: int) -> None:
    asked = urllib.request.Request(f"http://127.0.0.1:{upstream}/stick/{STUCK}", data=b"{}")
    urllib.request.urlopen(asked, timeout=10).close()


def busy() -> str:
    """How busy the machine is by others: what a figure is worth."""
    return subprocess.run(["uptime"], capture_output=True, text=True, check=False).stdout.strip()


def measure(seconds: float, rounds: int) -> list[World]:
    worlds: list[World] = []
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        for number, case in enumerate((FEW, ONE_PAGE, MANY)):
            upstream = free_port()
            words = ("bench.many_servers", "--port", str(upstream), "--tools", str(case.each))
            stack.enter_context(server(upstream, *words))
            world = made(case, Path(folder) / str(number), upstream)
            print(f"{case}: seen for the first time in {seen_once(world):.1f} s", flush=True)
            stuck(upstream)
            for _ in range(rounds - 1):
                with started(world):
                    print(f"{case}: {world.start_s:.2f} s, {world.start_cpu_s:.2f} s CPU")
            stack.enter_context(started(world))
            print(f"{case}: doors open after {world.start_s:.2f} s, {world.start_cpu_s:.2f} s CPU")
            first_page(world)
            print(f"{case}: a first page after {world.first_page_s:.2f} s", flush=True)
            worlds.append(world)
        for _ in range(rounds):
            print(busy())
            for world in worlds:
                for name, figure in measured(world, seconds):
                    keep(world, name, figure)
    return worlds


def keep(world: World, name: str, figure: Figure) -> None:
    print(
        f"{world.case!s:<28}{name:<10}{figure.p50_ms:>9.2f}{figure.p99_ms:>9.2f}"
        f"{figure.cpu_us:>9.0f}{figure.cpu_all_us:>9.0f}",
        flush=True,
    )
    best = world.best.get(name)
    if best is None or figure.p50_ms < best.p50_ms:
        world.best[name] = figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per figure; below 5")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    print(machine())
    few, page, many = measure(chosen.seconds, chosen.rounds)
    for what, small in (("call/1", few), ("call/16", few), ("page/1", page)):
        one, other = small.best[what], many.best[what]
        p50, cpu = other.p50_ms / one.p50_ms, other.cpu_all_us / one.cpu_all_us
        held = "met" if max(p50, cpu) <= GOAL_RATIO else "NOT met"
        print(
            f"{what}: {one.p50_ms:.2f} -> {other.p50_ms:.2f} ms, x{p50:.2f} in time, "
            f"x{cpu:.2f} in CPU: {held}"
        )
    held = "met" if many.start_s <= GOAL_START_S else "NOT met"
    print(f"start with {many.case}: {many.start_s:.2f} s: {held}")


if __name__ == "__main__":
    main()
