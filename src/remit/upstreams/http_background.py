"""Work around calls that nobody waits for, such as telling a server that a session is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """Work that ends by itself, and is waited for at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it now."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def later(self, seconds: float, look: Callable[[], None]) -> None:
        """Call it later, unless all has ended before."""
        loop = asyncio.get_running_loop()

        def due() -> None:
            self._timers.discard(timer)
            look()

        timer = loop.call_later(seconds, due)
        self._timers.add(timer)

    async def end(self) -> None:
        """Wait for what was begun; what was for later never is."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
