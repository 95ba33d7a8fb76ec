"""Runs under way, as operators watch them: what is written, as it comes, where that may be seen.

Nothing is kept here: a reader is given what the runner holds of a run's output, which is bounded by
the run's limits. Where policy redacts output, or the run holds a credential in a file, nothing is
seen before it has been searched at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from remit.errors import Code, Conflict
from remit.model import Frame, Lease
from remit.ports import Runner

READERS = 32
"""Most readers of all runs at once."""

SILENCE_S = 10.0
"""How long a reader hears nothing before it is told that there is nothing."""

REDACTED = "policy redacts the output of this run; what it may show is kept when it has ended"
HELD_BACK = (
    "policy looks at the result of this run first; what it may show is kept when it has ended"
)
HOLDS_CREDENTIAL = (
    "this run holds a credential in a file; its output is searched for it when it has ended"
)


@dataclass(slots=True)
class _Watched:
    lease: Lease
    hidden: str | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """The runs of one gateway that are under way."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._runs: dict[str, _Watched] = {}
        self._readers = 0
        self._closed = False

    def expect(self, lease: Lease) -> None:
        """A run has a grant; who follows it waits until it is let go, or over."""
        self._runs[lease.id] = _Watched(lease)

    def began(self, lease: Lease, hidden: str | None) -> None:
        """A run is let go; `hidden` says why its output is not shown as it comes, if it is not."""
        watched = self._runs.setdefault(lease.id, _Watched(lease))
        watched.hidden = hidden
        watched.begun.set()

    def ended(self, run_id: str) -> None:
        """The outcome of a run is known, or will not be."""
        watched = self._runs.pop(run_id, None)
        if watched is not None:
            watched.over.set()
            watched.begun.set()

    def close(self) -> None:
        """Let all readers go."""
        self._closed = True
        for watched in self._runs.values():
            watched.over.set()
            watched.begun.set()

    def follow(self, run_id: str, start: int) -> AsyncIterator[Frame | str | None]:
        """The frames of a run from number `start` on, as they come; None after each silence.

        A text instead of frames says why they are not shown. Ends when the outcome of the run is
        known; at once for a run that is not under way.

        Raises:
            Conflict: there are too many readers.
        """
        if self._readers >= READERS:
            raise Conflict(Code.RATE_LIMITED, "too many readers of runs", hint="try again later")
        return self._follow(run_id, start)

    async def _follow(self, run_id: str, start: int) -> AsyncIterator[Frame | str | None]:
        watched = self._runs.get(run_id)
        if watched is None or self._closed:
            return
        self._readers += 1
        try:
            while not await _within(watched.begun.wait()):
                yield None
            if watched.hidden is not None:
                yield watched.hidden
            elif not watched.over.is_set():
                async for frame in self._frames(watched, start):
                    yield frame
            while not await _within(watched.over.wait()):
                yield None
        finally:
            self._readers -= 1

    async def _frames(self, watched: _Watched, start: int) -> AsyncIterator[Frame | None]:
        stream = self._runner.stream(watched.lease)
        coming: asyncio.Future[Frame] | None = None
        over = asyncio.ensure_future(watched.over.wait())
        try:
            while not self._closed:
                coming = coming or asyncio.ensure_future(_next(stream))
                waits: list[asyncio.Future[Any]] = [coming, over]
                await asyncio.wait(waits, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    frame = coming.result()
                    coming = None
                    if frame.seq >= start:
                        yield frame
                elif over.done():
                    return
                else:
                    yield None
        except Exception:  # noqa: BLE001 - the end of the stream, or of the runner: the run goes on
            return
        finally:
            over.cancel()
            if coming is not None:
                coming.cancel()
                with suppress(Exception, asyncio.CancelledError):
                    await coming


async def _next(stream: AsyncIterator[Frame]) -> Frame:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        raise EOFError from None  # a future cannot hold a StopAsyncIteration


async def _within(waiting: Awaitable[object]) -> bool:
    """Whether it came before a silence was over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await waiting
            return True
    return False
