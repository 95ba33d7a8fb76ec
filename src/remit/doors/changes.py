"""Who hears that what a caller sees has changed, and when nobody hears any more.

A client that asked holds a stream: `subscriptions/listen` (MCP 2026-07-28), or the GET stream of a
session of an earlier revision. Whenever the catalog, policy or a freeze changed, its caller's own
lists are made again, and it is told only of one that is another than before: what others see is
nobody's business. Of resources it hears as its book has it. A stream ends when the credential it was
opened with is no longer valid, or when the gateway stops.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from remit.doors.book import Book
from remit.doors.gateway import Gateway
from remit.doors.settings import DoorSettings
from remit.errors import Code, Refused
from remit.model import Caller, Method, ResourceLists, Tool

LISTS: Mapping[str, Method | None] = {
    "tools": None,
    "prompts": Method.PROMPTS_GET,
    "resources": Method.RESOURCES_READ,
}
"""The lists that can change, and by which method what is on them is asked for, if not all have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a stream is told: names of lists that are others now, and resources that changed."""

    lists: frozenset[str] = frozenset()
    uris: Sequence[str] = ()


class Listener:
    """One stream that waits for what its caller sees to change.

    Args:
        lists: the lists that it is told of.
        book: the resources.
    """

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        source_ip: str,
        *,
        lists: frozenset[str],
        book: Book,
        settings: DoorSettings,
    ) -> None:
        self._gateway = gateway
        self._caller = caller
        self._source_ip = source_ip
        self._lists = lists
        self._book = book
        self._settings = settings
        self._awake = asyncio.Event()
        self._relook = False
        self._seen: Mapping[str, bytes] = {}
        self._told_s = 0.0
        self._over = False

    async def look(self) -> frozenset[str]:
        """Make the lists again; which are others than before."""
        found: dict[str, bytes] = {}
        if "tools" in self._lists:
            tools = await self._gateway.visible(self._caller, source_ip=self._source_ip)
            found["tools"] = fingerprint(tools)
        offers = self._gateway.offers
        if self._wants("prompts"):
            found["prompts"] = fingerprint(await offers.prompts(self._caller, self._source_ip))
        if self._wants("resources"):
            listed = await offers.resources(self._caller, self._source_ip)
            found["resources"] = of_resources(listed)
        before, self._seen = self._seen, found
        none = fingerprint(())
        names = before.keys() | found.keys()
        return frozenset(each for each in names if before.get(each, none) != found.get(each, none))

    def _wants(self, name: str) -> bool:
        return name in self._lists and LISTS[name] in self._gateway.offers.methods()

    async def changed(self) -> Told | None:
        """Wait until there is something to tell; None once nothing more is to be said."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.recheck_s):
                    await self._awake.wait()
            await self._paced()
            self._awake.clear()
            relook, self._relook = self._relook, False
            if not self._may_hear():
                return None
            self._book.settle()
            lists = await self.look() if relook else frozenset()
            if not self._may_hear():
                return None
            told = Told(lists=lists, uris=self._book.take())
            if told.uris:
                self._told_s = asyncio.get_running_loop().time()
            if told.lists or told.uris:
                return told

    async def _paced(self) -> None:
        """However often resources change, what is told of them at once is told together."""
        since = asyncio.get_running_loop().time() - self._told_s
        if since < self._settings.told_apart_s:
            await asyncio.sleep(self._settings.told_apart_s - since)

    def wake(self) -> None:
        """Something changed; however often that is said meanwhile, it is looked at once."""
        self._relook = True
        self._awake.set()

    def nudge(self) -> None:
        """There may be something to tell of a resource."""
        self._awake.set()

    def end(self) -> None:
        """Say no more."""
        self._over = True
        self._awake.set()

    def _may_hear(self) -> bool:
        if self._over or self._book.over:
            return False
        return self._gateway.still_valid(self._caller)


class Changes:
    """The listeners of one door, of which each caller may have only so many."""

    def __init__(self, gateway: Gateway, settings: DoorSettings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._listeners: set[Listener] = set()
        self._subscriptions: Counter[str] = Counter()
        self._over = False

    @asynccontextmanager
    async def listening(
        self, caller: Caller, source_ip: str, *, lists: frozenset[str], book: Book
    ) -> AsyncIterator[Listener]:
        """A listener that knows what its caller sees now, until the block ends."""
        listener = Listener(
            self._gateway, caller, source_ip, lists=lists, book=book, settings=self._settings
        )
        # Before the first look, so that no change falls between the two.
        unsubscribe = self._gateway.on_change(listener.wake)
        unheard = self._gateway.offers.listen() if lists else _nothing
        detach = book.attach(listener.nudge)
        self._listeners.add(listener)
        if self._over:
            listener.end()
        try:
            await listener.look()
            yield listener
        finally:
            self._listeners.discard(listener)
            unsubscribe()
            unheard()
            detach()

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


def of_resources(listed: Sequence[ResourceLists]) -> bytes:
    """The same of lists of resources: what is on them."""
    seen = hashlib.sha256()
    for each in listed:
        for _, item in (*each.resources, *each.templates):
            seen.update(item.text + b"\n")
    return seen.digest()


def _nothing() -> None:
    """Nobody was told to listen."""
