"""`python -m bench`: the table of docs/benchmarks.md, measured here and now.

    python -m bench [--seconds S] [--only WORD] [-o text|json]

Every figure stands beside a floor of the same run; ratios travel between machines, times do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tests.ports import free_port

from bench.gateway import make_world
from bench.load import Figure, load, post
from bench.spawn import bare_bubblewrap, bare_subprocess

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def request(port: int, path: str, tool: str, arguments: dict[str, str], token: str) -> bytes:
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments, "_meta": META},
        }
    ).encode()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    return post(port, path, body, headers)


@contextmanager
def server(port: int, *words: str) -> Iterator[int]:
    """Run a module as a server until the block ends; give its pid once it listens."""
    with subprocess.Popen([sys.executable, "-m", *words]) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)


def measure_echo(seconds: float) -> list[Figure]:
    port = free_port()
    with server(port, "bench.echo", "--port", str(port)) as pid:
        asked = request(port, "/mcp/", "echo", {"text": "hello"}, "none")
        return [run("bare mcp echo", pid, port, asked, b"hello", c, seconds) for c in (1, 16)]


def run(
    name: str, pid: int, port: int, asked: bytes, expect: bytes, clients: int, seconds: float
) -> Figure:
    return asyncio.run(load(name, pid, port, asked, expect, clients=clients, seconds=seconds))


CASES = {
    "refused before policy": ({"environment": "staging", "text": "x" * 201}, b"invalid_arguments"),
    "denied by policy": ({"environment": "production", "text": "hello"}, b"policy_denied"),
    "allowed": ({"environment": "staging", "text": "hello"}, b'"ok"'),
}


def measure_gateway(runner: str, seconds: float, cases: list[str], label: str) -> list[Figure]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        root = Path(folder)
        token = make_world(root, port, record_all="recorded" in label)
        with server(port, "bench.gateway", str(root), runner) as pid:
            return [
                run(
                    f"{case}{label}", pid, port,
                    request(port, "/mcp", "bench_true", CASES[case][0], token),
                    CASES[case][1], clients, seconds,
                )
                for case in cases
                for clients in (1, 16)
            ]  # fmt: skip


def table(figures: list[Figure]) -> str:
    """The figures as text, each CPU also as a ratio to the echo at the same number of clients."""
    floor = {one.clients: one for one in figures if one.name == "bare mcp echo"}
    heads = f"{'':<44}{'c':>3}{'p50 ms':>9}{'p99 ms':>9}{'per s':>8}"
    lines = [heads + f"{'CPU us':>9}{'x':>6}{'all us':>9}{'x':>6}"]
    for one in figures:
        base = floor.get(one.clients)
        alone = f"{one.cpu_us / base.cpu_us:6.1f}" if base and one.cpu_us else " " * 6
        every = f"{one.cpu_all_us / base.cpu_all_us:6.1f}" if base else " " * 6
        lines.append(
            f"{one.name:<44}{one.clients:>3}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}"
            f"{one.per_second:>8.0f}{one.cpu_us:>9.0f}{alone}{one.cpu_all_us:>9.0f}{every}"
        )
    return "\n".join(lines)


def machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores, {model}, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per case")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    chosen = parser.parse_args()
    seconds = chosen.seconds
    before = machine()
    figures = measure_echo(seconds)
    figures += measure_gateway("noop", seconds, list(CASES), " (no-op executor)")
    figures += measure_gateway("noop", seconds, ["denied by policy"], " (each one recorded)")
    figures += measure_gateway("sandbox", seconds, ["allowed"], " (sandboxed /bin/true)")
    figures += [bare_bubblewrap(seconds), bare_subprocess(seconds)]
    if chosen.output == "json":
        print(json.dumps({"machine": before, "figures": [asdict(one) for one in figures]}))
        return
    print(before)
    print(table(figures))


if __name__ == "__main__":
    main()
