"""`python -m bench.upstream`: what a front adds to a call of an MCP server, and what it costs.

    python -m bench.upstream [--seconds S] [--clients N [N ...]] [--only WORD] [-o text|json]

One server (the `mcp` package's own low-level echo over HTTP), one client, the same call, in one
run: asked directly, through Remit with policy and its durable log, through FastMCP's proxy, through
ContextForge, and through the thinnest front that there can be. What is added is the difference to
the direct call at the same revision and number of clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.ports import free_port

from bench.__main__ import META, machine, server
from bench.fronts.contextforge import contextforge
from bench.fronts.process import listening
from bench.fronts.remit import remit
from bench.load import FIRST_ID, Figure, load, post

ROOT = Path(__file__).resolve().parents[1]
FRONTS = Path(__file__).parent / "fronts"
MODERN, LEGACY = "2026-07-28", "2025-11-25"
ARGUMENTS = {"text": "hello"}
EXPECTED = b"hello"
CONTEXTFORGE = "ContextForge 1.0.7.post20260921"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that the echo is asked through, and the process that it is."""

    name: str
    port: int
    path: str
    pid: int
    tool: str = "echo"
    token: str = "none"
    revisions: tuple[str, ...] = (MODERN,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A figure, and what the front adds to the direct call; milliseconds."""

    revision: str
    figure: Figure
    p50_ms: float
    p99_ms: float


def direct(upstream: int, pid: int) -> Target:
    """The server itself."""
    return Target(name="direct", port=upstream, path="/mcp/", pid=pid, revisions=(MODERN, LEGACY))


@contextlib.contextmanager
def through_remit(upstream: str, root: Path) -> Iterator[Target]:
    port = free_port()
    with remit(root, upstream, port, free_port()) as (token, pid):
        yield Target(
            name="Remit",
            port=port,
            path="/mcp",
            pid=pid,
            token=token,
            revisions=(MODERN, LEGACY),
        )


@contextlib.contextmanager
def through_script(name: str, script: str, *words: str) -> Iterator[Target]:
    port = free_port()
    python = ROOT / ".venv-bench-fastmcp/bin/python"
    argv = [str(python), str(FRONTS / script), *words, str(port)]
    with listening(argv, port) as pid:
        path = "/mcp/" if script == "aiohttp_front.py" else "/mcp"
        yield Target(name=name, port=port, path=path, pid=pid)


@contextlib.contextmanager
def through_contextforge(upstream: str, root: Path) -> Iterator[Target]:
    home = ROOT / ".venv-bench-contextforge"
    with contextforge(home, root, upstream, free_port()) as place:
        yield Target(
            name=CONTEXTFORGE,
            port=place.port,
            path=place.path,
            pid=place.pid,
            tool=place.tool,
            token=place.token,
            revisions=(LEGACY,),
        )


Front = Callable[[], contextlib.AbstractContextManager[Target]]


def fronts(upstream: str, root: Path) -> dict[str, Front]:
    """Each front by its name, to be started when its turn comes; says which are not installed."""
    found: dict[str, Front] = {"Remit": partial(through_remit, upstream, root / "remit")}
    if (ROOT / ".venv-bench-fastmcp").is_dir():
        scripts = {
            "bare front, one aiohttp hop": ("aiohttp_front.py",),
            "fastmcp 4.1.2 create_proxy, as shipped": ("fastmcp_front.py", "shipped"),
            "fastmcp 4.1.2 proxy, one shared client": ("fastmcp_front.py", "shared"),
        }
        for name, words in scripts.items():
            found[name] = partial(through_script, name, *words, upstream)
    else:
        missing("FastMCP and the bare front")
    if (ROOT / ".venv-bench-contextforge").is_dir():
        found[CONTEXTFORGE] = partial(through_contextforge, upstream, root / "contextforge")
    else:
        missing("ContextForge")
    return found


def missing(what: str) -> None:
    print(f"not installed: {what}; sh bench/fronts/install.sh", file=sys.stderr)


def headers(target: Target, revision: str, method: str) -> dict[str, str]:
    made = {
        "Authorization": f"Bearer {target.token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": revision,
    }
    if revision == MODERN:
        made |= {"Mcp-Method": method, "Mcp-Name": target.tool}
    return made


def request(target: Target, revision: str) -> bytes:
    """The bytes of the call, in a session where the revision has one."""
    params: dict[str, Any] = {"name": target.tool, "arguments": ARGUMENTS}
    sent = headers(target, revision, "tools/call")
    if revision == MODERN:
        params["_meta"] = META
    else:
        sent |= shaken(target)
    body = {"jsonrpc": "2.0", "id": FIRST_ID, "method": "tools/call", "params": params}
    return post(target.port, target.path, json.dumps(body).encode(), sent)


def shaken(target: Target) -> dict[str, str]:
    """The header of a session, after a handshake, or none if the server keeps none."""
    client = {"name": "bench", "version": "1"}
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
    asked = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    session = _told(target, asked, {})
    _told(target, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    return session


def _told(target: Target, body: dict[str, Any], session: dict[str, str]) -> dict[str, str]:
    sent = headers(target, LEGACY, "") | session
    url = f"http://127.0.0.1:{target.port}{target.path}"
    asked = urllib.request.Request(url, data=json.dumps(body).encode(), headers=sent)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        answer.read()
        found = answer.headers.get("Mcp-Session-Id")
    return {"Mcp-Session-Id": found} if found else session


def measured(
    target: Target, clients: Sequence[int], seconds: float, floor: dict[tuple[str, int], Figure]
) -> Iterator[Added]:
    """A figure for each revision and number of clients; the direct ones become the floor."""
    for revision in target.revisions:
        for count in clients:
            # Each client has a session of its own, where there are sessions.
            asked = [request(target, revision) for _ in range(count)]
            figure = asyncio.run(
                load(
                    f"{target.name} ({revision})", target.pid, target.port, asked, EXPECTED,
                    clients=count, seconds=seconds,
                )
            )  # fmt: skip
            under = floor.setdefault((revision, count), figure)
            yield Added(
                revision=revision,
                figure=figure,
                p50_ms=figure.p50_ms - under.p50_ms,
                p99_ms=figure.p99_ms - under.p99_ms,
            )


def measure(seconds: float, clients: Sequence[int], only: str) -> list[Added]:
    """The direct calls, then each front by itself, with the server left running."""
    found: list[Added] = []
    floor: dict[tuple[str, int], Figure] = {}
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="remit-bench-") as folder,
        server(port, "bench.echo", "--port", str(port)) as pid,
    ):
        root = Path(folder)
        root.chmod(0o755)
        found += measured(direct(port, pid), clients, seconds, floor)
        for name in ("remit", "contextforge"):
            (root / name).mkdir()
        for name, front in fronts(f"http://127.0.0.1:{port}/mcp/", root).items():
            if only in name:
                with front() as target:
                    found += measured(target, clients, seconds, floor)
    return found


def table(rows: Sequence[Added]) -> str:
    heads = f"{'':<52}{'c':>3}{'p50 ms':>9}{'p99 ms':>9}{'+p50':>8}{'+p99':>8}"
    lines = [heads + f"{'per s':>8}{'CPU us':>9}{'all us':>9}"]
    for row in rows:
        one = row.figure
        times = f"{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}{row.p50_ms:>8.2f}{row.p99_ms:>8.2f}"
        costs = f"{one.per_second:>8.0f}{one.cpu_us:>9.0f}{one.cpu_all_us:>9.0f}"
        lines.append(f"{one.name:<52}{one.clients:>3}{times}{costs}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--only", default="", help="a word of the fronts that are measured")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    chosen = parser.parse_args()
    rows = measure(chosen.seconds, chosen.clients, chosen.only)
    if chosen.output == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
