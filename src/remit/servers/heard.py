"""Lists that calls have read, until they are judged; and how often a server's are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

REST = 9
"""How many times as long as judging took, lists of that server are left alone: so a server that
makes each of its lists a long and new one takes a tenth of one core at most."""

Items = Sequence[dict[str, Any]]


class Heard:
    """The last list of each server that calls have read and nobody has judged."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[Items, bool]] = {}
        self._resting: set[str] = set()
        self._any = asyncio.Event()

    def put(self, server: str, items: Items, *, whole: bool) -> None:
        """A list was read; `whole` as of `judging.judge`."""
        self._lists[server] = items, whole
        self._any.set()

    def drop(self, server: str) -> None:
        """What was read last is known already."""
        self._lists.pop(server, None)

    async def wait(self) -> None:
        """Until there may be something to judge."""
        await self._any.wait()
        self._any.clear()

    def take(self) -> tuple[str, Items, bool] | None:
        """A server whose list is to be judged now, and the list."""
        for server in self._lists:
            if server not in self._resting:
                return server, *self._lists.pop(server)
        return None

    @asynccontextmanager
    async def judging(self, server: str, pace_s: float) -> AsyncIterator[None]:
        """Give no list of it for a while after the block, by how long that took."""

        def over() -> None:
            self._resting.discard(server)
            self._any.set()

        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self._resting.add(server)
            loop.call_later(max(pace_s, REST * (loop.time() - began)), over)
