"""Progress messages, from the path to a client that may be slow or gone."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from remit.model import Amount
from remit.telemetry import logger, mask
from remit.visible import visible

MAX_WAITING = 64
"""Most messages that wait for a slow client; the oldest give way."""

MAX_MESSAGE = 500
"""Longest progress message, in characters."""

FLUSH_S = 1.0
"""Longest time a finished call waits for its last messages to be sent."""

MOST = 2**53 - 1
"""Largest number of a report that is passed on; larger ones are not the same in every client."""

SendProgress = Callable[[float, float | None, str], Awaitable[None]]
"""Sends one progress notification: a number that grows, what it grows to, and a message."""

log = logger()


class Silence:
    """The progress of a call whose client asked for none."""

    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None:
        """Nothing."""

    def again(self) -> None:
        """Nothing."""


class Count:
    """The numbers of one call's progress: each above the one before, as MCP has it.

    A server's own are passed on as they are. What came before them, a person's approval for
    example, has been counted, and they then go on from there: one done of ten is two of eleven.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._base: float = 0

    def again(self) -> None:
        """A server begins anew, from nothing."""
        self._base = self._last or 0

    def next(self, amount: Amount | None) -> tuple[float, float | None]:
        """The numbers of the next notification. One that would not grow grows by the least."""
        last = self._last
        if amount is None or not _plain(amount.progress):
            self._last = self._base = 1 if last is None else max(last + 1, _above(last))
            return self._last, None
        told = self._base + amount.progress
        self._last = told if last is None or told > last else _above(last)
        total = amount.total
        return self._last, self._base + total if total is not None and _plain(total) else None


def _plain(number: float) -> bool:
    return abs(number) <= MOST


def _above(number: float) -> float:
    return math.nextafter(number, math.inf)


class Queued:
    """Progress that never makes the path wait: messages queue up, a task sends them in order.

    What a command wrote is masked and made visible before it is sent.
    """

    wanted = True

    def __init__(self, send: SendProgress) -> None:
        self._send = send
        self._waiting: deque[tuple[float, float | None, str]] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._ended = False
        self._count = Count()

    async def report(self, message: str, amount: Amount | None = None) -> None:
        """Queue a message; the oldest is dropped when too many wait."""
        progress, total = self._count.next(amount)
        self._waiting.append((progress, total, visible(mask(message))[:MAX_MESSAGE]))
        self._wake.set()

    def again(self) -> None:
        """What is reported from here on is of another call, whose numbers begin anew."""
        self._count.again()

    async def pump(self) -> None:
        """Send what is queued, until the end was announced and nothing is left."""
        while self._waiting or not self._ended:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._send(*self._waiting.popleft())

    def end(self) -> None:
        """Say that no more messages will come."""
        self._ended = True
        self._wake.set()


@asynccontextmanager
async def progress_to(send: SendProgress | None) -> AsyncIterator[Silence | Queued]:
    """The progress of one call; `send` is None where the client asked for none."""
    if send is None:
        yield Silence()
        return
    queue = Queued(send)
    pump = asyncio.ensure_future(queue.pump())
    try:
        yield queue
        queue.end()
        await asyncio.wait((pump,), timeout=FLUSH_S)
    finally:
        pump.cancel()
        if pump.done() and not pump.cancelled() and pump.exception() is not None:
            log.warning("progress_not_sent", error=type(pump.exception()).__name__)
