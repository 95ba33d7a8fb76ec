"""kill -9 of a gateway around the one transaction that is intent and start of a call over HTTP.

Whatever the moment: the server is asked at most once for each grant and never without its durable
intent, and a call that may have been sent is unknown at the next start, never repeated.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from remit.model import Run, RunState
from remit.testing.tripwire import When
from tests.upstream_servers.behind import Behind

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-14", "T-15"),
]

MARK = {
    "name": "mark",
    "inputSchema": {"type": "object", "properties": {"number": {"type": "integer"}}},
}
NEVER, UNKNOWN, DONE = None, RunState.UNKNOWN, RunState.SUCCEEDED
DEATHS = [
    ("ledger", "commit_intent", When.BEFORE, 0, NEVER),
    ("ledger", "commit_intent", When.AFTER, 0, UNKNOWN),
    ("ledger", "start", When.AFTER, 0, UNKNOWN),
    ("runner", "collect", When.AFTER, 1, UNKNOWN),
    ("ledger", "settle", When.AFTER, 1, DONE),
]
"""Where it dies, how often the server was asked by then, and what its run is after the next start."""


class Far(BaseHTTPRequestHandler):
    """A server of 2026-07-28 whose one tool remembers the numbers that it was called with."""

    protocol_version = "HTTP/1.1"
    asked: list[int]

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        result: dict[str, Any] = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
        if message["method"] == "tools/list":
            result = {"tools": [MARK]}
        elif message["method"] == "tools/call":
            self.asked.append(message["params"]["arguments"]["number"])
            result = {"content": []}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def far() -> Iterator[tuple[str, list[int]]]:
    asked: list[int] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Far,), {"asked": asked}))
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mcp", asked
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


async def killed(behind: Behind, number: int, port: str, method: str, when: When) -> None:
    words = (str(behind.folder / "remit.yaml"), str(number), port, method, when.value)
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.asking_victim", *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await victim.communicate()
    assert victim.returncode == -9, said.decode()


async def test_kill_around_intent_and_start_never_asks_twice_nor_without_an_intent(
    tmp_path: Path,
) -> None:
    with far() as (url, asked):
        server = {"name": "far", "url": url, "environment": {"fixed": "staging"}}
        behind = Behind(tmp_path, [{**server, "tools": [{"name": "mark", "effect": "write"}]}])
        async with behind.open():
            await behind.offered("far")
        for number, (port, method, when, times, state) in enumerate(DEATHS):
            told = f"{method} {when.value}"
            await killed(behind, number, port, method, when)
            assert asked.count(number) == times, told
            async with behind.open() as again:
                runs = await again.gateway.ledger.runs()
                found = [run.state for run in runs if await _number(again, run) == number]
                assert found == ([] if state is NEVER else [state]), told
                await again.offered("far")
                reply = await again.call("far_mark", {"number": number})
                refused = state is UNKNOWN
                assert (reply.decision["code"] == "outcome_unknown") is refused, told
                assert asked.count(number) == times + (not refused), told
                entries = await again.gateway.ledger.entries(0, 10_000)
                events = [json.loads(each.text)["event"] for each in entries]
                assert events.count("call.intent") >= len(asked), told


async def _number(behind: Behind, run: Run) -> int:
    text = await behind.gateway.ledger.plan_text(run.plan_hash)
    number: int = json.loads(text or b"")["arguments"]["number"]
    return number
