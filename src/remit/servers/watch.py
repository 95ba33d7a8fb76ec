"""Hearing one server for as long as somebody waits for what it tells.

One task holds the connection: opens it, has the server tell of exactly the resources that somebody
waits for, makes it anew in time, and opens it again, later each time, after it was lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from remit.errors import Code, RemitError, RunnerFault, UpstreamFault
from remit.ports import Told
from remit.servers.hearing import Heard, Opens
from remit.servers.tools import ServerTools
from remit.telemetry import logger

log = logger()

_ROUNDS = count(1)

Look = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTimes:
    """Times in seconds. `grace_s`: how long a subscription is held that nobody hears yet; `idle_s`:
    how long a connection stays that nobody waits on; `retry_s`: how long until one that was lost is
    opened again, the last from then on, which is also how long that stays known where nobody waits;
    `hold_s`: how long a server may take to say what it will tell; `pace_s` and `slowest_s`: how far looks are apart that a server causes, at first and at
    most; `calm_s`: after how much quiet they are as at first; `steady_s`: how long a connection has to
    last for the next loss to be a first one."""

    grace_s: float = 60.0
    idle_s: float = 30.0
    retry_s: tuple[float, ...] = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
    hold_s: float = 30.0
    pace_s: float = 1.0
    slowest_s: float = 120.0
    calm_s: float = 600.0
    steady_s: float = 60.0


class Watch:
    """One server; implements `notices.Hears`.

    Args:
        lists: of whose changes is to be heard, as far as the server says that it tells.
        listened: how many wait for lists to change, of whatever server.
        look: looks at the server again.
        ended: called once it holds nothing any more.
    """

    def __init__(
        self,
        server: ServerTools,
        opens: Opens,
        look: Look,
        *,
        lists: frozenset[str],
        listened: Callable[[], bool],
        ended: Callable[[], None],
        times: WatchTimes,
    ) -> None:
        self._server = server
        self._opens = opens
        self._look = look
        self._lists = lists
        self._listened = listened
        self._times = times
        self._told: dict[str, list[Told]] = defaultdict(list)
        self._asked: dict[str, float] = {}
        self._held: frozenset[str] = frozenset()
        self._refused: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._fault: RemitError | None = None
        self._wake = asyncio.Event()
        self._news = False
        self._looking: asyncio.Task[None] | None = None
        self._pace = times.pace_s
        self._looked = -times.calm_s
        self._closing = self._before = self._renew = False
        self.rounds = next(_ROUNDS)
        """Another number for each time that hearing it begins anew."""
        self._task = asyncio.create_task(self._keep())
        self._task.add_done_callback(lambda _: ended())

    # ---------------------------------------------------------------------------- what is wanted

    @property
    def subscribed(self) -> bool:
        """Whether anybody waits for a resource of it."""
        return bool(self._told or self._asked)

    async def subscribe(self, uri: str) -> None:
        """See `ports.Watches.subscribe`; the time is the caller's to bound."""
        if self._fault is not None and self._needed():
            raise _again(self._fault)
        self._fault = None
        self._asked[uri] = self._now() + self._times.grace_s
        self._refused.discard(uri)
        if uri not in self._held:
            future = self._waiting.get(uri)
            if future is None:
                future = self._waiting[uri] = asyncio.get_running_loop().create_future()
            self._wake.set()
            await asyncio.shield(future)

    def hear(self, uri: str, told: Told) -> Callable[[], None]:
        """See `ports.Watches.hear`."""
        self._told[uri].append(told)
        self._asked.pop(uri, None)
        self._wake.set()

        def end() -> None:
            if told in self._told.get(uri, ()):
                self._told[uri].remove(told)
                if not self._told[uri]:
                    del self._told[uri]
                self._wake.set()

        return end

    def tells(self, lists: frozenset[str]) -> None:
        """The server tells of changes of these lists now."""
        if lists != self._lists:
            self._lists, self._renew = lists, True
            self._wake.set()

    def wake(self) -> None:
        """Look again at what is wanted."""
        self._wake.set()

    def _wanted(self) -> frozenset[str]:
        now = self._now()
        for uri in [each for each, until in self._asked.items() if until <= now]:
            del self._asked[uri]
        return frozenset((self._told.keys() | self._asked.keys()) - self._refused)

    def _needed(self) -> bool:
        return not self._closing and (
            bool(self._wanted()) or (bool(self._lists) and self._listened())
        )

    # ---------------------------------------------------------------------------- what is heard

    def changed(self, name: str) -> None:
        if name in self._lists:
            self._look_soon()

    def updated(self, uri: str) -> None:
        for mine, told in list(self._told.items()):
            if covers(mine, uri):
                for each in list(told):
                    each(True)

    def _look_soon(self) -> None:
        self._news = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._looks())

    async def _looks(self) -> None:
        times = self._times
        while self._news:
            since = self._now() - self._looked
            if since >= times.calm_s:
                self._pace = times.pace_s
            await asyncio.sleep(max(0.0, self._pace - since))
            self._news, self._looked = False, self._now()
            self._pace = min(2 * self._pace, times.slowest_s)
            try:
                await self._look(self._server.spec.name)
            except Exception:
                log.exception("server_not_asked", server=self._server.spec.name)

    # ---------------------------------------------------------------------------- the connection

    async def _keep(self) -> None:
        tries, retries = 0, self._times.retry_s
        try:
            while self._needed():
                began = self._now()
                self._fault = await self._spell()
                if self._fault is None:
                    continue
                if self._now() - began >= self._times.steady_s:
                    tries = 0
                await self._until_not(self._left_alone, retries[min(tries, len(retries) - 1)])
                tries += 1
                self._fault = None
                await self._until_not(lambda: not (self._closing or self._needed()), retries[-1])
        finally:
            self._end_waiting(UpstreamFault(Code.CANCELLED, "the server is not heard any more"))

    def _left_alone(self) -> bool:
        """Whether a server that could not be heard is to be left alone still, though nobody may wait
        any more: who comes and goes would have it opened each time. A call that subscribes, for
        which there is a decision, has it opened at once if nobody else waits."""
        return not self._closing and self._fault is not None

    async def _until_not(self, holds: Callable[[], bool], seconds: float) -> None:
        """Wait as long as something holds, if not for longer than that."""
        until = self._now() + seconds
        while holds() and (left := until - self._now()) > 0:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _spell(self) -> RemitError | None:
        """Hear until that is lost, and why it was; None where nobody waits any more.

        A connection that is to be made anew is held until the next one stands.
        """
        held: list[Heard] = []
        try:
            while self._needed():
                self._renew = False
                held.append(await self._opens.open(self._server, self._lists, self))
                if len(held) == 1:
                    self._begun()
                await self._hold(held[-1])
                if len(held) > 1:
                    await held.pop(0).end()
                await self._while_wanted(held[-1])
        except (UpstreamFault, RunnerFault) as fault:
            return self._not_heard(fault)
        except Exception as error:  # noqa: BLE001 - it is told, and the server is left alone too
            return self._not_heard(RunnerFault(Code.INTERNAL, "hearing it failed"), error)
        finally:
            self._held = frozenset()
            for each in held:
                await asyncio.shield(each.end())
        return None

    def _not_heard(self, fault: RemitError, error: Exception | None = None) -> RemitError:
        name = self._server.spec.name
        log.warning("server_not_heard", server=name, code=fault.code.value, exc_info=error)
        self._end_waiting(fault)
        return fault

    def _begun(self) -> None:
        """Hearing it begins; what it told before that, if it was heard before, is lost."""
        if self._before:
            self.rounds = next(_ROUNDS)
            self._look_soon()
            for told in list(self._told.values()):
                for each in list(told):
                    each(False)
        self._before = True

    async def _hold(self, heard: Heard) -> None:
        wanted = self._wanted()
        try:
            async with asyncio.timeout(self._times.hold_s):
                refused = await heard.hearing.hold(wanted)
        except TimeoutError:
            message = f"the server did not say within {self._times.hold_s:g} s what it will tell"
            raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message) from None
        # Whoever only asked hears of it below, and nobody waits for it after.
        self._refused = (self._refused | refused.keys()) & self._told.keys()
        self._held = wanted - refused.keys()
        for uri in wanted:
            future = self._waiting.pop(uri, None)
            if (fault := refused.get(uri)) is not None:
                self._asked.pop(uri, None)
                _settle(future, fault)
            else:
                _settle(future, None)

    async def _while_wanted(self, heard: Heard) -> None:
        """Hear until the connection has to be made anew, or nobody waits for long enough.

        Raises:
            UpstreamFault: it is lost.
        """
        over = asyncio.ensure_future(heard.hearing.over())
        renew_s = self._now() + heard.age_s
        unneeded_s: float | None = None
        try:
            while not over.done():
                self._wake.clear()
                wanted = self._wanted()
                if wanted != self._held and (wanted or self._lists):
                    await self._hold(heard)
                now = self._now()
                if self._needed():
                    unneeded_s = None
                elif unneeded_s is None:
                    unneeded_s = now
                if self._closing or self._renew or now >= renew_s:
                    return
                if unneeded_s is not None and now >= unneeded_s + self._times.idle_s:
                    return
                ends = [renew_s, *self._asked.values()]
                ends += [] if unneeded_s is None else [unneeded_s + self._times.idle_s]
                await self._until(over, min(ends) - now)
            raise over.result()
        finally:
            over.cancel()

    async def _until(self, over: asyncio.Future[UpstreamFault], seconds: float) -> None:
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            waited: list[asyncio.Future[Any]] = [over, woken]
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    def _end_waiting(self, fault: RemitError) -> None:
        waiting, self._waiting = self._waiting, {}
        for uri, future in waiting.items():
            self._asked.pop(uri, None)
            _settle(future, fault)

    @property
    def done(self) -> bool:
        """Whether it holds nothing any more, and never will."""
        return self._task.done()

    def close(self) -> None:
        """Let go; `ended` is called once that is done."""
        self._closing = True
        self._wake.set()

    async def aclose(self) -> None:
        """Let go, and wait for it."""
        self.close()
        for task in (self._looking, self._task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def covers(mine: str, uri: str) -> bool:
    """Whether a URI is the one that was subscribed to, or something of it (MCP 2025-11-25
    `notifications/resources/updated`: it may be a sub-resource)."""
    if not uri.startswith(mine):
        return False
    return len(uri) == len(mine) or mine.endswith("/") or uri[len(mine)] in "/?#"


def _settle(future: asyncio.Future[None] | None, fault: RemitError | None) -> None:
    if future is None or future.done():
        return
    if fault is None:
        future.set_result(None)
    else:
        future.set_exception(fault)
        future.exception()  # whoever waited may be gone


def _again(fault: RemitError) -> UpstreamFault:
    """The fault of a server that was lost a moment ago, and is not asked again yet."""
    return UpstreamFault(
        fault.code,
        f"the server could not be heard, and is asked again in a moment: {fault.message}",
        hint=fault.hint,
    )
