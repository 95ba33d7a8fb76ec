"""Who hears that the tools a caller sees have changed, and when nobody hears any more.

A client that asked holds a stream: `subscriptions/listen` (MCP 2026-07-28), or the GET stream of a
session of an earlier revision. Whenever the catalog, policy or a freeze changed, its caller's own
list is made again, and it is told only if that list is another one than before: what others see is
nobody's business. A stream ends when the credential it was opened with is no longer valid, or when
the gateway stops.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from remit.doors.gateway import Gateway
from remit.doors.settings import DoorSettings
from remit.errors import Code, Refused
from remit.model import Caller, Tool


class Listener:
    """One stream that waits for its caller's list to change.

    Args:
        recheck_s: how often it looks whether the credential is still valid, when nothing changes.
    """

    def __init__(
        self, gateway: Gateway, caller: Caller, source_ip: str, *, recheck_s: float
    ) -> None:
        self._gateway = gateway
        self._caller = caller
        self._source_ip = source_ip
        self._recheck_s = recheck_s
        self._awake = asyncio.Event()
        self._seen = b""
        self._over = False

    async def look(self) -> bool:
        """Make the list again; whether it is another than the one before."""
        tools = await self._gateway.visible(self._caller, source_ip=self._source_ip)
        before, self._seen = self._seen, fingerprint(tools)
        return before != self._seen

    async def changed(self) -> bool:
        """Wait until the caller sees another list; False once nothing more is to be said."""
        while True:
            try:
                async with asyncio.timeout(self._recheck_s):
                    await self._awake.wait()
            except TimeoutError:
                pass
            woken = self._awake.is_set()
            self._awake.clear()
            told = woken and self._may_hear() and await self.look()
            if not self._may_hear():
                return False
            if told:
                return True

    def wake(self) -> None:
        """Something changed; however often that is said meanwhile, it is looked at once."""
        self._awake.set()

    def end(self) -> None:
        """Say no more."""
        self._over = True
        self._awake.set()

    def _may_hear(self) -> bool:
        return not self._over and self._gateway.still_valid(self._caller)


class Changes:
    """The listeners of one door, of which each caller may have only so many."""

    def __init__(self, gateway: Gateway, settings: DoorSettings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._listeners: set[Listener] = set()
        self._subscriptions: Counter[str] = Counter()
        self._over = False

    @asynccontextmanager
    async def listening(self, caller: Caller, source_ip: str) -> AsyncIterator[Listener]:
        """A listener that knows what its caller sees now, until the block ends."""
        listener = Listener(self._gateway, caller, source_ip, recheck_s=self._settings.recheck_s)
        # Before the first look, so that no change falls between the two.
        unsubscribe = self._gateway.on_change(listener.wake)
        self._listeners.add(listener)
        if self._over:
            listener.end()
        try:
            await listener.look()
            yield listener
        finally:
            self._listeners.discard(listener)
            unsubscribe()

    @contextmanager
    def subscription(self, caller: Caller) -> Iterator[None]:
        """A place for one `subscriptions/listen`, until the block ends.

        Raises:
            Refused: `rate_limited`: this caller, or everyone together, has as many as may be.
        """
        own = self._subscriptions[caller.id]
        if (
            own >= self._settings.max_subscriptions_per_caller
            or self._subscriptions.total() >= self._settings.max_subscriptions
        ):
            raise Refused(Code.RATE_LIMITED, "too many subscriptions are open")
        self._subscriptions[caller.id] += 1
        try:
            yield
        finally:
            self._subscriptions[caller.id] -= 1
            if not self._subscriptions[caller.id]:
                del self._subscriptions[caller.id]

    def end(self) -> None:
        """End all of them, and those that come later: the door is about to close."""
        self._over = True
        for listener in list(self._listeners):
            listener.end()


def fingerprint(tools: Sequence[Tool]) -> bytes:
    """What a list is told from another by: the names and the digests of its tools, in order."""
    seen = hashlib.sha256()
    for tool in tools:
        seen.update(f"{tool.name}\n{tool.digest}\n".encode())
    return seen.digest()
