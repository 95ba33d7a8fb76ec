"""Progress messages, from the path to a client that may be slow or gone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from remit.ports import Progress
from remit.telemetry import logger, mask
from remit.visible import visible

MAX_WAITING = 64
"""Most messages that wait for a slow client; the oldest give way."""

MAX_MESSAGE = 500
"""Longest progress message, in characters."""

FLUSH_S = 1.0
"""Longest time a finished call waits for its last messages to be sent."""

SendProgress = Callable[[int, str], Awaitable[None]]
"""Sends one progress notification: a number that grows, and a message."""

log = logger()


class Silence:
    """The progress of a call whose client asked for none."""

    wanted = False

    async def report(self, message: str) -> None:
        """Nothing."""


class Queued:
    """Progress that never makes the path wait: messages queue up, a task sends them in order.

    What a command wrote is masked and made visible before it is sent.
    """

    wanted = True

    def __init__(self, send: SendProgress) -> None:
        self._send = send
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._ended = False
        self._count = 0

    async def report(self, message: str) -> None:
        """Queue a message; the oldest is dropped when too many wait."""
        self._waiting.append(visible(mask(message))[:MAX_MESSAGE])
        self._wake.set()

    async def pump(self) -> None:
        """Send what is queued, until the end was announced and nothing is left."""
        while self._waiting or not self._ended:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._count += 1
            await self._send(self._count, self._waiting.popleft())

    def end(self) -> None:
        """Say that no more messages will come."""
        self._ended = True
        self._wake.set()


@asynccontextmanager
async def progress_to(send: SendProgress | None) -> AsyncIterator[Progress]:
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
