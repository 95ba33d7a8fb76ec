"""Requests as bytes, and whatever comes back for them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

BOUND_S = 60
"""How long any one answer may take before it counts as none; far above what a busy machine needs."""


@dataclass
class Asked:
    """One request: whose, and the bytes of it.

    `wanted`: the id that must be answered exactly once; None where that is open. `endless`: its
    answer is a stream that is left after its first bytes. `leaves`: the connection is closed
    when this many of its bytes are sent. `strange`: its head may be refused while its body is still sent,
    and the answer be lost with the connection.
    """

    caller: str
    head: list[tuple[str, str]]
    body: bytes
    method: str = "POST"
    path: str = "/mcp"
    wanted: Any = None
    endless: bool = False
    leaves: int | None = None
    chunked: bool = False
    strange: bool = False

    def wire(self) -> bytes:
        """As it goes over the connection."""
        head = [*self.head, ("Connection", "close")]
        body = self.body
        if self.chunked:
            head.append(("Transfer-Encoding", "chunked"))
            pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
        elif body or self.method == "POST":
            head.append(("Content-Length", str(len(body))))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in head), "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + body


@dataclass
class Answered:
    """What came back."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    messages: list[Any] = field(default_factory=list)


async def ask(port: int, asked: Asked) -> Answered | None:
    """Send it and read what comes; None where the connection was left, or closed on us."""
    wire = asked.wire()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        with suppress(ConnectionError):
            writer.write(wire if asked.leaves is None else wire[: asked.leaves])
            await writer.drain()
        if asked.leaves is not None:
            return None
        with suppress(ConnectionError):
            async with asyncio.timeout(BOUND_S):
                received = await _received(reader, endless=asked.endless)
                return _read(received, endless=asked.endless) if received else None
        return None
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _received(reader: asyncio.StreamReader, *, endless: bool) -> bytes:
    received = b""
    while piece := await reader.read(2**16):
        received += piece
        if endless and b"\r\n\r\n" in received:
            break
    return received


def _read(received: bytes, *, endless: bool) -> Answered:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): text.strip() for name, _, text in (x.partition(":") for x in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    found = Answered(int(first.split()[1]), headers, received)
    if endless:
        return found
    if headers.get("content-type", "").startswith("text/event-stream"):
        events = [line[6:] for line in body.splitlines() if line.startswith(b"data: ")]
        found.messages = [json.loads(each) for each in events if each]
    elif headers.get("content-type", "").startswith("application/json") and body:
        found.messages = [json.loads(body)]
    return found


def _joined(body: bytes) -> bytes:
    made = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        made, body = made + body[:length], body[length + 2 :]
    return made
