"""Servers that were never seen: asked a few at a time, until each has answered once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack

from remit.servers.gathering import Gathering
from remit.telemetry import logger

RETRY_S = (30.0, 60.0, 120.0, 300.0, 900.0)
"""How long until a server that was never seen is asked again; the last from then on."""

AT_A_TIME = 2
"""How many servers that were never seen are asked at once."""

PATIENCE_S = 3.0
"""How long one of them keeps the next from being asked; if it takes longer, it is asked beside them."""

log = logger()


class FirstLooks:
    """Asks servers for the first time.

    Args:
        servers: by name.
        look: asks one, and says whether it answered.
        gathering: told who is still waited for.
    """

    def __init__(
        self, servers: Iterable[str], look: Callable[[str], Awaitable[bool]], gathering: Gathering
    ) -> None:
        self._servers = list(servers)
        self._look = look
        self._gathering = gathering
        self._places = asyncio.Semaphore(AT_A_TIME)
        gathering.line(self._servers)

    def begin(self) -> list[asyncio.Task[None]]:
        """Ask all of them, each in a task of its own."""
        return [asyncio.ensure_future(self._ask(name)) for name in self._servers]

    async def _ask(self, name: str) -> None:
        """Ask one until it has answered once."""
        waits = iter(RETRY_S)
        wait_s = 0.0
        while not await self._answers(name):
            wait_s = next(waits, wait_s)
            await asyncio.sleep(wait_s)

    async def _answers(self, name: str) -> bool:
        """Whether one of several servers answers; a slow one gives its place to the next."""
        await self._places.acquire()
        place = ExitStack()
        place.callback(self._gathering.leaves, name)
        place.callback(self._places.release)
        late = asyncio.get_running_loop().call_later(PATIENCE_S, place.close)
        try:
            return await self._look(name)
        except Exception:
            log.exception("server_not_asked", server=name)
            return False
        finally:
            late.cancel()
            place.close()
