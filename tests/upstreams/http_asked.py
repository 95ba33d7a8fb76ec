"""Asking servers over HTTP in tests: calls as the runner makes them, and hostile servers."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from remit.canonical import encode
from remit.model import Frozen, Lease, Limits, RunSpec, SessionMode, UpstreamCall
from remit.upstreams.definitions import read_definition
from remit.upstreams.http_asking import PooledServers
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.limits import Limits as Bounds

LEASE = Lease(id="run", gateway="test", fence=1, deadline_ms=0)
TOKEN = b"lent-for-this-call"

QUICK = HttpLimits(probe_s=5, pause_s=0, close_s=5)
BOUNDS = Bounds(line_bytes=200_000, depth=32, open_s=20, call_s=20, list_s=20, burst=200, per_s=1)


@asynccontextmanager
async def asking(**how: Any) -> AsyncIterator[PooledServers]:
    """Servers that are asked, closed at the end."""
    servers = PooledServers(**{"limits": BOUNDS, "http_limits": QUICK, **how})
    try:
        yield servers
    finally:
        await servers.aclose()


def spec_of(
    url: str,
    item: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    session: SessionMode = SessionMode.PER_CALL,
    caller: str = "caller",
    output_bytes: int = 100_000,
    server: str = "there",
    writes: bool = False,
) -> RunSpec:
    """The run of one call of the tool that a server listed so."""
    call = UpstreamCall(
        server=server,
        tool=str(item["name"]),
        definition=read_definition(server, dict(item)).digest,
        arguments=Frozen(encode(dict(arguments))),
        caller=caller,
        url=url,
        session=session,
    )
    return RunSpec(
        argv=(),
        limits=Limits(output_bytes=output_bytes),
        profile="http",
        fence_key="sha256:call" if writes else "",
        upstream=call,
    )


async def call(
    servers: PooledServers,
    spec: RunSpec,
    *,
    token: bytes | None = None,
    within_s: float = 20,
    progress: Callable[[Any], None] = lambda _: None,
) -> dict[str, Any]:
    """The result object."""
    return await servers.call(spec, LEASE, token, within_s=within_s, progress=progress)


ITEM = {"name": "any", "inputSchema": {"type": "object"}}


@dataclass
class Asked:
    """One request as a hostile server sees it."""

    verb: str
    path: str
    headers: dict[str, str]
    body: Any
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, value: Any, status: str = "200 OK", more: str = "") -> None:
        body = value if isinstance(value, bytes) else encode(value)
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}"
        await self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def result(self, result: Any) -> None:
        await self.json({"jsonrpc": "2.0", "id": self.body["id"], "result": result})

    async def honest(self) -> None:
        """What an honest modern server with the one tool `any` answers."""
        method = self.body["method"]
        if method == "server/discover":
            about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            await self.result({"resultType": "complete", **about})
        elif method == "tools/list":
            await self.result({"resultType": "complete", "tools": [ITEM]})
        else:
            await self.result({"resultType": "complete", "content": []})


Answer = Callable[[Asked], Awaitable[None]]


@dataclass
class Hostile:
    """Where it listens, and all that it was asked."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    server: asyncio.Server | None = None

    def deaf(self) -> None:
        """Take no more connections."""
        assert self.server is not None
        self.server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def methods(self) -> list[str]:
        return [each.body["method"] for each in self.asked if each.body and "method" in each.body]


@asynccontextmanager
async def hostile(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Hostile]:
    """A server that answers each request as it is told; it ends a connection that it answers so."""
    found = Hostile()
    running: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.create_task(speak(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        found.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    asked = await _request(reader, writer)
                    found.asked.append(asked)
                    await answer(asked)
        finally:
            found.open -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found.server = server
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await _ended(running, writers)


async def _ended(running: Set[asyncio.Task[None]], writers: list[asyncio.StreamWriter]) -> None:
    """No task and no connection outlives the server: the collector would find it in another test."""
    for _ in range(3):
        await asyncio.sleep(0)  # what was let in already is made a connection
    tasks = list(running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for writer in writers:
        writer.transport.abort()  # what nobody reads any more is not waited for
        with suppress(OSError):
            await writer.wait_closed()


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    verb, path, _ = lines[0].split(" ")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    headers = {name.lower(): value for name, value in headers.items()}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(verb, path, headers, json.loads(body) if body else None, writer)
