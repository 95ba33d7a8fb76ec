"""Kept connections to one server under one authorization."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from remit.upstreams.http_connection import HttpConnection
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.http_target import Target
from remit.upstreams.http_way import Way


class Pool:
    """Gives connections, at most one request at a time each, and takes them back.

    Args:
        places: the server's bound on connections in use, shared by its pools.
    """

    def __init__(
        self, way: Way, target: Target, places: asyncio.Semaphore, limits: HttpLimits
    ) -> None:
        self._way = way
        self._target = target
        self._places = places
        self._limits = limits
        self._idle: list[HttpConnection] = []
        self._used: set[HttpConnection] = set()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def connection(
        self, places: asyncio.Semaphore | None = None
    ) -> AsyncIterator[HttpConnection]:
        """A connection for one request; it is kept if its answer was read, or ends by itself.

        Args:
            places: what bounds it instead, where it is held for as long as a session lasts.

        Raises:
            UpstreamFault: `upstream_unreachable`; nothing was sent.
        """
        async with places or self._places:
            connection = self._kept() or await self._way.connect(self._target, self._limits)
            self._used.add(connection)
            try:
                yield connection
            except BaseException:
                connection.abort()
                raise
            finally:
                self._used.discard(connection)
            self._resting(connection)

    def _resting(self, connection: HttpConnection) -> None:
        def free() -> None:
            self._used.discard(connection)
            if self._closed or connection.broken or len(self._idle) >= self._limits.idle:
                connection.abort()
            else:
                self._idle.append(connection)
                self._swept()

        self._used.add(connection)
        connection.rest(free)

    def _swept(self) -> None:
        """See that nothing lies about for longer than it is kept."""
        if self._sweep is None and self._idle:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(self._limits.idle_s, self._end_old)

    def _end_old(self) -> None:
        self._sweep = None
        oldest = asyncio.get_running_loop().time() - self._limits.idle_s
        for connection in self._idle:
            if connection.used_s <= oldest:
                connection.abort()
        self._idle = [each for each in self._idle if not each.broken]
        self._swept()

    def _kept(self) -> HttpConnection | None:
        oldest = asyncio.get_running_loop().time() - self._limits.idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.used_s >= oldest and connection.idle:
                return connection
            connection.abort()
        return None

    @property
    def unused(self) -> bool:
        """Whether no request is under way."""
        return not self._used

    def close(self) -> None:
        """Cut every connection; requests under way end with a fault."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [*self._idle, *self._used]:
            connection.abort()
        self._idle.clear()
