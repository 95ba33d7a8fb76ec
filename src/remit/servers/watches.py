"""Which servers are heard now, and who waits for what; implements `ports.Watches`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from remit.catalog.server_spec import Beside
from remit.errors import Code, RunnerFault, UpstreamFault
from remit.ports import Told
from remit.ports import Watches as Port
from remit.servers.announced import Announced
from remit.servers.hearing import Opens
from remit.servers.tools import ServerTools
from remit.servers.watch import Look, Watch, WatchTimes

MOST = 32
"""How many servers are heard at a time; one that is heard for its lists alone makes room for one
whose resources are subscribed to."""

MOST_FOR_LISTS = 16
"""How many are heard for their lists alone."""


class Watches:
    """The watches of one gateway.

    Args:
        servers: all servers by name.
        announced: what each says that it tells.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerTools],
        announced: Announced,
        times: WatchTimes = WatchTimes(),  # noqa: B008 - frozen
    ) -> None:
        self._servers = servers
        self._announced = announced
        self._times = times
        self._watches: dict[str, Watch] = {}
        self._closing: set[Watch] = set()
        self._listening = 0
        self._opens: Opens | None = None
        self._look: Look = _nobody

    @asynccontextmanager
    async def kept(self, opens: Opens | None, look: Look) -> AsyncIterator[None]:
        """Until the block ends: hear servers, and look at those that say that they changed."""
        self._opens, self._look = opens, look
        self.announced()
        try:
            yield
        finally:
            self._opens = None
            watches = [*self._watches.values(), *self._closing]
            await asyncio.gather(*(each.aclose() for each in watches))

    async def subscribe(self, server: str, uri: str, *, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._of(server, subscribed=True).subscribe(uri)
        except TimeoutError:
            message = f"the server did not agree to tell of changes within {within_s:g} s"
            raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message, sent=True) from None

    def hear(self, server: str, uri: str, told: Told) -> Callable[[], None]:
        try:
            return self._of(server, subscribed=True).hear(uri, told)
        except RunnerFault:
            return _nothing  # it ended since; whoever waits asks again

    def rounds(self, server: str) -> int:
        found = self._watches.get(server)
        return 0 if found is None else found.rounds

    def listen(self) -> Callable[[], None]:
        self._listening += 1
        self.announced()
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._listening -= 1
                for each in self._watches.values():
                    each.wake()

        return end

    def announced(self) -> None:
        """Hear the servers that tell of changes of lists, if anybody waits for that."""
        for name, watch in self._watches.items():
            watch.tells(self._lists(name))
        if not self._listening or self._opens is None:
            return
        for name in sorted(self._servers):
            if self._lists(name) and name not in self._watches:
                alone = sum(not each.subscribed for each in self._watches.values())
                if alone >= MOST_FOR_LISTS or len(self._watches) >= MOST:
                    return
                self._of(name, subscribed=False)

    def _lists(self, name: str) -> frozenset[str]:
        """Of which lists a server's changes matter: those that are offered."""
        spec = self._servers[name].spec
        offered = {"tools"}
        offered |= {"prompts"} if spec.prompts is Beside.OFFER else set()
        offered |= {"resources"} if spec.resources is Beside.OFFER else set()
        return self._announced.of(name) & offered

    def _of(self, name: str, *, subscribed: bool) -> Watch:
        """The watch of a server, which may only be opening.

        Raises:
            RunnerFault: no more servers can be heard, or none any more.
        """
        found = self._watches.get(name)
        if found is not None and not found.done:
            return found
        if self._opens is None or name not in self._servers:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "no server is heard now")
        if subscribed:
            self._make_room()
        made = Watch(
            self._servers[name],
            self._opens,
            self._look,
            lists=self._lists(name),
            listened=lambda: self._listening > 0,
            ended=lambda: self._ended(name, made),
            times=self._times,
        )
        self._watches[name] = made
        return made

    def _make_room(self) -> None:
        if len(self._watches) < MOST:
            return
        for name, each in self._watches.items():
            if not each.subscribed:
                each.close()
                self._closing.add(each)
                del self._watches[name]
                return
        message = "as many servers are heard as can be"
        raise RunnerFault(Code.RUNNER_UNAVAILABLE, message, hint="try again later")

    def _ended(self, name: str, watch: Watch) -> None:
        self._closing.discard(watch)
        if self._watches.get(name) is watch:
            del self._watches[name]


async def _nobody(_: str) -> None:
    """Nobody looks."""


def _nothing() -> None:
    """Nothing was begun."""


_: type[Port] = Watches
