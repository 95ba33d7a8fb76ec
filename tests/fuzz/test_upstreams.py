"""Servers whose real answers are changed on the way: a result or one of our faults, and no more."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from remit.clock import SystemClock
from remit.errors import Code, UpstreamFault
from remit.model import Ending
from remit.testing.runner import NoopRunner
from remit.upstreams.asking import Seen
from remit.upstreams.runner import SessionSettings, UpstreamRunner
from tests.fuzz.odd import changed, damaged, encoded
from tests.upstreams.http_asked import ITEM, Asked, asking, call, hostile, spec_of
from tests.upstreams.played import (
    ECHO,
    LOOK,
    Message,
    Program,
    Server,
    call_spec,
    in_session,
    world,
)
from tests.upstreams.process_stream import open_to

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(0)]

FAULTS = {
    Code.UPSTREAM_ERROR, Code.UPSTREAM_INVALID, Code.UPSTREAM_GONE, Code.UPSTREAM_TIMEOUT,
    Code.UPSTREAM_UNAUTHORIZED, Code.OUTPUT_TOO_LARGE,
    Code.TOOL_CHANGED,
}  # fmt: skip
BOUND_S = 60
SERVERS = 300
CONTENT = [
    {"type": "text", "text": "ü", "annotations": {"audience": ["user"]}},
    {"type": "image", "data": "aGk=", "mimeType": "image/png"},
    {"type": "resource_link", "uri": "file:///a", "name": "a"},
    {"type": "resource", "resource": {"uri": "file:///a", "text": "t"}},
]


def _answer(message: Message) -> Any:
    """What an honest server answers; it speaks 2026-07-28 or 2025-11-25."""
    match message["method"]:
        case "server/discover":
            about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            result: Any = {"resultType": "complete", **about}
        case "initialize":
            info = {"name": "s", "version": "1"}
            able: dict[str, Any] = {"tools": {"listChanged": True}}
            version = message["params"]["protocolVersion"]
            result = {"protocolVersion": version, "capabilities": able, "serverInfo": info}
        case "tools/list":
            result = {"resultType": "complete", "tools": [ECHO, LOOK, ITEM], "ttlMs": 1}
        case _:
            result = {"resultType": "complete", "content": CONTENT, "structuredContent": {"a": 1}}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def _spoken(random: Random, message: Message) -> tuple[bytes, bool]:
    """The answer as lines, and whether it is still the honest one."""
    honest = _answer(message)
    if random.random() < 0.5:
        return encoded(honest) + b"\n", True
    said = honest
    if random.random() < 0.7:
        said = changed(random, honest, random.randrange(1, 4))
    data = encoded(said) + b"\n"
    if random.random() < 0.4:
        data = damaged(random, data, random.randrange(1, 4))
    if random.random() < 0.3:
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
        data = encoded(changed(random, note)) + b"\n" + data
    if random.random() < 0.2:
        data += encoded(honest) + b"\n"
    return data, False


class _Wire:
    """A server that answers what is written to it; after an answer that is not honest, it ends."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._over = False

    async def write(self, data: bytes, /) -> None:
        message = json.loads(data)
        if self._over or "id" not in message or "method" not in message:
            return
        said, honest = _spoken(self._random, message)
        while said:
            size = self._random.randrange(1, 400)
            self._said.put_nowait(said[:size])
            said = said[size:]
        if not honest:
            self._over = True
            self._said.put_nowait(b"")

    async def read(self) -> bytes:
        return await self._said.get()


async def test_a_stream_of_changed_answers_gives_a_result_or_one_of_our_faults(
    fuzz_seed: int, fuzz_count: Callable[[int], int]
) -> None:
    random = Random(fuzz_seed)
    seen: Counter[str] = Counter()
    tasks = asyncio.all_tasks()
    for _ in range(fuzz_count(SERVERS)):
        try:
            async with asyncio.timeout(BOUND_S), await open_to(_Wire(random)) as talk:
                await talk.list_tools()
                await talk.call("echo", {"a": 1})
                seen["answered"] += 1
        except UpstreamFault as fault:
            seen[fault.code] += 1
    assert seen["answered"] > 0
    assert seen.keys() - FAULTS == {"answered"}
    assert asyncio.all_tasks() == tasks


def _program(random: Random, *, modern: bool) -> Program:
    async def wild(server: Server, message: Message) -> int | None:
        said, honest = _spoken(random, message)
        await server.raw(said)
        return None if honest else random.choice((0, 0, 1, 137))

    return Program(wild, on_open=wild if random.random() < 0.3 else None, modern=modern)


def _runner(inner: NoopRunner, seen: Seen) -> UpstreamRunner:
    sessions = SessionSettings(clock=SystemClock(), gateway="gw")
    return UpstreamRunner(inner, asked=None, seen=seen, sessions=sessions)


async def test_a_run_of_a_wild_server_ends_in_one_way_and_leaves_nothing(
    fuzz_seed: int, fuzz_count: Callable[[int], int]
) -> None:
    random = Random(fuzz_seed)
    endings: Counter[Ending] = Counter()
    tasks = asyncio.all_tasks()
    for _ in range(fuzz_count(SERVERS // 3)):
        program = _program(random, modern=random.random() < 0.5)
        it = world(program, _runner)
        spec = call_spec(arguments={"a": 1})
        for each in random.choice(([spec], [in_session(spec)] * 3)):
            async with asyncio.timeout(BOUND_S):
                own = await it.begin(each)
                result = await it.runner.collect(own)
                assert (await it.runner.destroy(own)).complete
            endings[result.ending] += 1
        async with asyncio.timeout(BOUND_S):
            await it.runner.aclose()
    assert endings[Ending.ANSWERED] > 0
    assert asyncio.all_tasks() == tasks


STATUSES = (
    "200 OK", "200 OK", "200 OK", "200 OK", "202 Accepted", "204 No Content", "301 Moved", "307 T",
    "400 Bad", "401 No", "403 No", "404 No", "405 No", "406 No", "429 Slow", "500 No", "503 No",
    "101 Switching", "999 x", "200", "abc OK", "-1 x",
)  # fmt: skip
HEADERS = (
    "", "", "", "Mcp-Session-Id: a\r\n", "Mcp-Session-Id: \r\n", "Mcp-Session-Id: \x00\r\n",
    "WWW-Authenticate: Bearer resource_metadata=\"http://169.254.169.254/\"\r\n", "Retry-After: 9\r\n",
    "Location: http://169.254.169.254/\r\n", "Content-Encoding: gzip\r\n", "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n", ": x\r\n", "x\r\n",
    "X: " + "y" * 20_000 + "\r\n", "Set-Cookie: a=b\r\n", "Content-Length: 999999999999999999\r\n",
)  # fmt: skip
TYPES = (
    "application/json", "application/json", "text/event-stream", "text/event-stream",
    "application/json; charset=utf-16", "text/html", "", "text/event-stream; charset=x",
)  # fmt: skip


def _response(random: Random, message: Message) -> tuple[bytes, bool]:
    """A whole response, and whether it is an honest one."""
    if random.random() < 0.4:
        body = encoded(_answer(message))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        return f"{head}\r\n\r\n".encode() + body, True
    said, _ = _spoken(random, message)
    kind = random.choice(TYPES)
    if kind.startswith("text/event-stream"):
        field = random.choice(
            ("data: ", "data:", "data", ": ", "event: message\ndata: ", "id: 1\ndata: ")
        )
        parts = [field.encode() + line for line in said.split(b"\n")]
        said = random.choice((b"\n\n", b"\r\n\r\n", b"\r\r", b"\n")).join(parts) + b"\n\n"
    if random.random() < 0.4:
        pieces = [said[at : at + 50] for at in range(0, len(said), 50)]
        size = random.choice(("%x", "%X;a=b", "0%x", "+%x", "-%x", "%xg"))
        said = (
            b"".join((size % len(p)).encode() + b"\r\n" + p + b"\r\n" for p in pieces)
            + b"0\r\n\r\n"
        )
        length = "Transfer-Encoding: chunked\r\n"
    else:
        length = random.choice(
            ("", f"Content-Length: {len(said) + random.choice((0, 0, -1, 5))}\r\n")
        )
    head = f"HTTP/1.1 {random.choice(STATUSES)}\r\nContent-Type: {kind}\r\n"
    data = f"{head}{random.choice(HEADERS)}{length}\r\n".encode() + said
    return damaged(random, data, 1) if random.random() < 0.2 else data, False


async def test_changed_responses_over_http_give_a_result_or_one_of_our_faults(
    fuzz_seed: int, fuzz_count: Callable[[int], int]
) -> None:
    random = Random(fuzz_seed)
    seen: Counter[str] = Counter()
    tasks = asyncio.all_tasks()

    async def answer(asked: Asked) -> None:
        if not isinstance(asked.body, dict) or "id" not in asked.body or "method" not in asked.body:
            await asked.json({}, status=random.choice(("202 Accepted", "405 No", "404 No")))
            return
        data, honest = _response(random, asked.body)
        await asked.send(data)
        if not honest:
            raise ConnectionResetError  # what is left of it never comes

    async with hostile(answer) as found:
        for _ in range(fuzz_count(SERVERS // 3)):
            async with asking() as servers:
                for _ in range(3):
                    try:
                        async with asyncio.timeout(BOUND_S):
                            given = await call(servers, spec_of(found.url, ITEM, {"a": 1}))
                        assert isinstance(given, dict)
                        seen["answered"] += 1
                    except UpstreamFault as fault:
                        seen[fault.code] += 1
    assert seen["answered"] > 0
    assert seen.keys() - FAULTS == {"answered"}
    assert asyncio.all_tasks() == tasks
