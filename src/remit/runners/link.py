"""Keeps a spawner: starts it, greets it, starts another when it dies, and hands out its reports."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

from remit.runners.channel import Channel, Report, SpawnerGone

_HELLO_S = 10.0


class Link:
    """At most one live spawner at a time.

    `on_report` is called for every report about a lease, `on_lost` when a spawner died with all
    it held. A new one is started at the next need, and first ends what the old one left.
    """

    def __init__(
        self,
        greeting: dict[str, Any],
        on_report: Callable[[Report], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._greeting = greeting
        self._on_report = on_report
        self._on_lost = on_lost
        self._channel: Channel | None = None
        self._lock = asyncio.Lock()
        self._sweeping = asyncio.Lock()
        self._answer: asyncio.Future[dict[str, Any] | None] | None = None
        self._closing = False
        self._burying: set[asyncio.Task[None]] = set()
        self.hello: dict[str, Any] = {"mode": "none", "roots": {}, "missing": None}

    @property
    def channel(self) -> Channel | None:
        """The live spawner's channel, if there is one."""
        return None if self._channel is None or self._channel.gone else self._channel

    async def connect(self) -> Channel:
        """The live spawner's channel, starting one if needed.

        Raises:
            SpawnerGone: it ended at once or did not answer in time.
        """
        if (channel := self.channel) is not None:
            return channel
        async with self._lock:
            if (channel := self.channel) is not None:
                return channel
            if self._closing:
                raise SpawnerGone
            first = self._channel is None
            channel = Channel.open()
            channel.on_report = self._take
            channel.on_gone = functools.partial(self._lose, channel)
            self.hello = await self._ask(channel, {"op": "hello", **self._greeting})
            self._channel = channel
            if not first:
                await self.sweep(live=(), leases=(), roots=())
            return channel

    async def _ask(self, channel: Channel, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message whose answer names no lease, and wait for it; one at a time."""
        async with self._sweeping:
            self._answer = asyncio.get_running_loop().create_future()
            await channel.send(message)
            try:
                async with asyncio.timeout(_HELLO_S):
                    answer = await self._answer
            except TimeoutError:
                await channel.close()
                raise SpawnerGone from None
            finally:
                self._answer = None
        if answer is None:
            raise SpawnerGone
        return answer

    async def sweep(
        self, *, live: Sequence[str], leases: Sequence[str], roots: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Have the spawner end what has no live lease; give its evidence.

        Raises:
            SpawnerGone: it died meanwhile.
        """
        if (channel := self.channel) is None:
            raise SpawnerGone
        message = {"op": "sweep", "live": [*live], "leases": [*leases], "roots": [*roots]}
        found: list[dict[str, Any]] = (await self._ask(channel, message))["found"]
        return found

    def _take(self, report: Report) -> None:
        if report.message.get("ev") not in {"ready", "swept"}:
            self._on_report(report)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(report.message)

    def _lose(self, channel: Channel) -> None:
        if not self._closing:
            task = asyncio.get_running_loop().create_task(channel.close())
            self._burying.add(task)
            task.add_done_callback(self._burying.discard)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        self._on_lost()

    async def close(self) -> None:
        """End the spawner and everything it holds; none is started again."""
        self._closing = True
        if self._channel is not None:
            await self._channel.close()
        await asyncio.gather(*self._burying)
