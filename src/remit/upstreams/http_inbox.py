"""The reading half of a byte stream that is made of HTTP answers."""

from __future__ import annotations

import asyncio
from typing import Any

from remit.errors import UpstreamFault
from remit.upstreams.http_answer import parsed
from remit.upstreams.http_connection import Sent
from remit.upstreams.limits import Limits

_WAITING = 64


class Inbox:
    """Messages that came, as lines, in their order; and how it ended.

    `fault` is why it ended. `calls` are the requests under way: whether bytes of each went out.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._came: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._over = asyncio.Event()
        self.calls: dict[int, Sent] = {}
        self.fault: UpstreamFault | None = None

    async def read(self) -> bytes:
        """The next message, as a line.

        Raises:
            UpstreamFault: there are no more.
        """
        while self._came.empty():
            if self.fault is not None:
                raise self.fault
            waiting = asyncio.ensure_future(self._came.get())
            over = asyncio.ensure_future(self._over.wait())
            try:
                await asyncio.wait({waiting, over}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    return waiting.result()
            finally:
                waiting.cancel()
                over.cancel()
        return self._came.get_nowait()

    async def take(self, message: bytes) -> Any:
        """Pass a message on, and give what it says.

        Raises:
            UpstreamFault: it is not strict JSON.
        """
        limits = self._limits
        value = parsed(message, depth=limits.depth, most=limits.line_bytes, values=limits.values)
        # Between the tokens of strict JSON a line's end is a space; inside of them there is none.
        await self._came.put(message.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
        return value

    def end(self, fault: UpstreamFault) -> None:
        """Nothing more comes; the first reason stays."""
        if self.fault is None:
            self.fault = fault
            self._over.set()

    @property
    def sent(self) -> bool:
        """Whether bytes of any request under way went out."""
        return any(sent.value for sent in self.calls.values())
