"""What a server reports on a call as it goes, as the output of the run that made the call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from remit.model import Amount, Channel, Frame, Told
from remit.upstreams.messages import Progress

KEPT = 256
"""Most reports that are held for readers; one that is slower misses the oldest."""


class Reports:
    """The reports on one call, one line each. Any number may follow, whenever they come."""

    def __init__(self) -> None:
        self._kept: deque[Frame] = deque(maxlen=KEPT)
        self._count = 0
        self._ended = False
        self._more = asyncio.Event()

    def add(self, report: Progress) -> None:
        """Take one more; returns at once."""
        words = " ".join((report.message or "").split())
        told = Told(words=words, amount=Amount(progress=report.progress, total=report.total))
        data = line_of(told).encode("utf-8", "replace")
        self._kept.append(Frame(seq=self._count, channel=Channel.STDERR, data=data, told=told))
        self._count += 1
        self._wake()

    def end(self) -> None:
        """No more will come; idempotent."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def frames(self) -> AsyncIterator[Frame]:
        """Those that are kept, and all that come until the end."""
        seen = 0
        while True:
            for frame in [each for each in self._kept if each.seq >= seen]:
                yield frame
                seen = frame.seq + 1
            if seen >= self._count:
                if self._ended:
                    return
                await self._more.wait()


def line_of(told: Told) -> str:
    """The report as one line: the server's words, if it has any, and how far it says it is."""
    amount = told.amount
    far = f"{amount.progress:g}"
    if amount.total is not None:
        far += f" of {amount.total:g}"
    return f"{told.words} ({far})\n" if told.words else f"{far}\n"
