"""HTTP for the doors: what one turn of the event loop writes goes out in one send.

uvicorn writes the head of an answer and its body apart, and each write is a send at once: the client
wakes for a head that it can do nothing with, often on the core that was about to send the body.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HELD = 64 * 1024
"""Bytes that are held until the turn is over; more go out at once, so that the client's pace is felt."""


class Together:
    """A transport that holds what is written until the turn of the event loop is over.

    It has what uvicorn uses of a transport, and nothing by which bytes could pass those held.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []
        self._size = 0
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send this, after what is held, before the next turn begins."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._size += len(data)
        if self._size > MOST_HELD:
            self._send()

    def close(self) -> None:
        """Close it once all that was written is sent."""
        self._send()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol."""
        self._send()
        self._transport.set_protocol(protocol)

    def _send(self) -> None:
        held, self._held, self._size = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class DoorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over such a transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(cast("asyncio.Transport", Together(transport)))
