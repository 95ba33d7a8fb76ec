"""`python -m bench.scale`: what a call and a list cost among 10,000 tools, beside a small catalog.

The gateway is whole (HTTP, policy in its worker, durable log, no-op executor) and serves one
catalog after the other in the same run; ratios are of the large one to the small one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import free_port

from bench.__main__ import META, machine, request, run, server
from bench.gateway import make_world
from bench.load import Figure, post

MANY = 10_000
FEW = 10
ONE_PAGE = 51
"""The fewest tools of which the first page is as full as one of the large catalog."""

CALL = {"environment": "staging", "text": "hello"}
GOAL_RATIO = 1.2
GOAL_LIST_S = 6.0


def listing(port: int, token: str, cursor: str | None = None) -> bytes:
    """The bytes of one `tools/list`."""
    return post(port, "/mcp", json.dumps(_list(cursor)).encode(), _headers(token))


def _list(cursor: str | None) -> dict[str, Any]:
    params = {"_meta": META} | ({} if cursor is None else {"cursor": cursor})
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}


def _headers(token: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }


def fetch(port: int, token: str, cursor: str | None = None) -> dict[str, Any]:
    """The result of one `tools/list`."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/mcp", json.dumps(_list(cursor)).encode(), _headers(token)
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        result: dict[str, Any] = json.load(answer)["result"]
        return result


def whole_list(port: int, token: str) -> tuple[float, float, int, str]:
    """Seconds to the first page and to the last, how many tools came, and a cursor in the middle."""
    began = time.perf_counter()
    page = fetch(port, token)
    first = time.perf_counter() - began
    cursors, count = [], len(page["tools"])
    while "nextCursor" in page:
        cursors.append(page["nextCursor"])
        page = fetch(port, token, cursors[-1])
        count += len(page["tools"])
    return first, time.perf_counter() - began, count, cursors[len(cursors) // 2]


def measure(tools: int, seconds: float) -> tuple[list[Figure], dict[str, float]]:
    """Calls and pages of one catalog, and how long its list takes the first time."""
    port = free_port()
    facts: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        token = make_world(Path(folder), port, tools=tools)
        with server(port, "bench.gateway", folder, "noop", "--tools", str(tools)) as pid:
            asked = request(port, "/mcp", "bench_true", CALL, token)
            label = f"among {tools:,} tools"
            figures = [
                run(f"a call {label}", pid, port, asked, b'"ok"', clients, seconds)
                for clients in (1, 16)
            ]
            if tools >= ONE_PAGE:
                first, whole, count, cursor = whole_list(port, token)
                facts = {"first page": first, "whole list": whole, "tools": count}
                middle = [("middle page", cursor)] if tools > ONE_PAGE else []
                for name, at in [("first page", None), *middle]:
                    page = listing(port, token, at)
                    figures.append(
                        run(f"a cached {name} {label}", pid, port, page, b'"tools"', 1, seconds)
                    )
    return figures, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per case; below 5")
    chosen = parser.parse_args()
    print(machine())
    every: dict[str, Figure] = {}
    first: dict[int, dict[str, float]] = {}
    print(f"{'':<44}{'c':>3}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}{'all us':>9}")
    for tools in (FEW, ONE_PAGE, MANY):
        figures, first[tools] = measure(tools, chosen.seconds)
        for one in figures:
            every[f"{one.name}/{one.clients}"] = one
            print(
                f"{one.name:<44}{one.clients:>3}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}"
                f"{one.cpu_us:>9.0f}{one.cpu_all_us:>9.0f}"
            )
    for what, small, beside, clients in (
        ("a call", FEW, "a call", 1),
        ("a call", FEW, "a call", 16),
        ("a cached first page", ONE_PAGE, "a cached first page", 1),
        ("a cached middle page", ONE_PAGE, "a cached first page", 1),
    ):
        few = every[f"{beside} among {small:,} tools/{clients}"]
        many = every[f"{what} among {MANY:,} tools/{clients}"]
        p50, cpu = many.p50_ms / few.p50_ms, many.cpu_all_us / few.cpu_all_us
        held = "met" if max(p50, cpu) <= GOAL_RATIO else "NOT met"
        print(f"{what}, {clients} at a time: x{p50:.2f} in time, x{cpu:.2f} in CPU: {held}")
    took = first[MANY]["first page"]
    held = "met" if took <= GOAL_LIST_S and first[MANY]["tools"] == MANY + 2 else "NOT met"
    print(f"a first list of {MANY:,} tools: {took:.2f} s until its first page, "
          f"{first[MANY]['whole list']:.2f} s whole, {first[MANY]['tools']:.0f} tools: {held}")  # fmt: skip


if __name__ == "__main__":
    main()
