"""Tools of servers that were never seen before, until they are offered: many servers' at once.

Putting a catalog in force takes as long as all of it is. If each of many servers had that done for
its own tools alone, the first sight of all of them would take the square of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

SHARE = 4
"""Tools wait no longer once they are this part of all: whoever waits doubles what is offered in a
few steps, and all steps together cost as much as a few of the last."""

PACE_S = 1.0
"""How long they wait at most, as long as there are servers in line that answer quickly."""

REST = 9
"""The same as a multiple of what it took to offer something last."""


class Gathering:
    """How much waits to be offered, and for whom."""

    def __init__(self) -> None:
        self._line: set[str] = set()
        self._waiting = 0
        self._rest_s = PACE_S
        self._any, self._alone = asyncio.Event(), asyncio.Event()
        self._alone.set()

    def line(self, servers: Iterable[str]) -> None:
        """These are asked now, one after the other."""
        self._line |= set(servers)
        if self._line:
            self._alone.clear()

    def leaves(self, server: str) -> None:
        """Nobody waits for this one any more: it was heard, it failed, or it takes too long."""
        self._line.discard(server)
        if not self._line:
            self._alone.set()

    def add(self, tools: int, offered: int) -> bool:
        """So many more wait beside so many that are offered; whether that is enough of them."""
        if not tools:
            return False
        self._waiting += tools
        if self._waiting * SHARE >= offered:
            return True
        self._any.set()
        return False

    @contextmanager
    def offering(self) -> Iterator[None]:
        """Whatever waits is offered in this block."""
        self._waiting = 0
        self._any.clear()
        began = time.monotonic()
        try:
            yield
        finally:
            self._rest_s = max(PACE_S, REST * (time.monotonic() - began))

    async def due(self) -> None:
        """Until something has waited for long enough, or for nobody."""
        await self._any.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rest_s):
                await self._alone.wait()
