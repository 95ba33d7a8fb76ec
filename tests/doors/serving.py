"""A door on a free loopback port, and ways to speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.types import ASGIApp

MODERN = "2026-07-28"
LEGACY = "2025-11-25"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(
    app: ASGIApp,
    *,
    tls: tuple[Path, Path] | None = None,
    listening: socket.socket | None = None,
) -> AsyncIterator[str]:
    """Serve the application; gives its base URL. `tls` is a certificate and its key, `listening`
    where it is served, should that have to be known before."""
    listening = listening or socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="error", access_log=False, proxy_headers=False, timeout_graceful_shutdown=2
    )
    if tls is not None:
        config.ssl_certfile, config.ssl_keyfile = map(str, tls)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.01)
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


def modern_meta(**more: Any) -> dict[str, Any]:
    """The envelope that every 2026-07-28 request carries."""
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
        **more,
    }


def modern_headers(
    method: str, name: str | None = None, key: str | None = "key-ann", **more: str
) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
    }
    if name is not None:
        headers["mcp-name"] = name
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return headers | {k.replace("_", "-"): v for k, v in more.items()}


def call_body(
    name: str, arguments: Any = None, meta: dict[str, Any] | None = None, id_: Any = 7
) -> dict[str, Any]:
    params = {"name": name, "arguments": {} if arguments is None else arguments}
    params["_meta"] = modern_meta(**(meta or {}))
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def raw(url: str, lines: Sequence[str], body: bytes = b"", *, length: bool = True) -> Answer:
    """Send exactly these header lines, and read the answer to the end of the connection."""
    port = int(url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = [*lines, "Connection: close", *([f"Content-Length: {len(body)}"] if length else [])]
    writer.write("\r\n".join([*sent, "", ""]).encode("latin-1") + body)
    await writer.drain()
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *others = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in others)}
    return Answer(int(first.split()[1]), headers, rest)


def http() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=20)


@asynccontextmanager
async def client(url: str, mode: str, key: str = "key-ann", **more: Any) -> AsyncIterator[Client]:
    """The `mcp` package's own client, in one of its modes."""
    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=20) as session,
        Client(streamable_http_client(f"{url}/mcp", http_client=session), mode=mode, **more) as c,
    ):
        yield c
