"""The runs that the proxy lets out: each with its listener, its rules, and what it was lent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from remit.addresses import is_address
from remit.runners.egress.authority import Authorities, Authority
from remit.runners.egress.purse import Injection, Purse
from remit.runners.egress.refusals import Unwilling, answer_bytes
from remit.runners.egress.rules import Rules, read_rules
from remit.runners.egress.streams import PlainStream, TlsStream
from remit.runners.egress.tally import Tally, now_ms
from remit.runners.egress.upstream import LOOKS, Upstream
from remit.runners.egress.visit import Visit

MAX_RUNS = 1_024
MAX_FENCES = 16_384
_MIB = 1_048_576
_CONNECTING = 4
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is the same for every run."""

    connections: int
    bytes_mb: int
    unsafe_plain: frozenset[tuple[str, int]]


class Run:
    """One open run."""

    def __init__(
        self,
        facts: dict[str, Any],
        listener: socket.socket,
        authority: Authority,
        upstream: Upstream,
        bounds: Bounds,
    ) -> None:
        self.id = str(facts["run"])
        self.fence = int(facts["fence"])
        self.key = str(facts["key"])
        self.terminate = facts["terminate"] is True
        self.rules = Rules(read_rules(facts["rules"]))
        self.ends_ms = self.lent_until_ms = int(facts["ends_ms"])
        self.authority = authority
        self.purse = Purse()
        self.tally = Tally(bounds.bytes_mb * _MIB)
        self.unsafe_plain = bounds.unsafe_plain
        self._bounds = bounds
        self._listener = listener
        self._upstream = upstream
        self._connecting = asyncio.Semaphore(_CONNECTING)
        self._looking = asyncio.Semaphore(LOOKS)
        self._visits: dict[asyncio.Task[None], Visit] = {}
        self._accepting = asyncio.create_task(self._accept())
        self.over = False

    is_address = staticmethod(is_address)

    async def connect(self, host: str, port: int) -> tuple[PlainStream, str]:
        """A connection to the destination, a few at a time; see `Upstream.connect`."""
        async with self._connecting:
            return await self._upstream.connect(host, port, self._looking)

    async def secure(self, plain: PlainStream, host: str) -> TlsStream:
        return await self._upstream.secure(plain, host)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                try:
                    sock, _ = await loop.sock_accept(self._listener)
                except OSError:
                    await asyncio.sleep(_PAUSE_S)  # no descriptor is free, or the peer is gone
                else:
                    self._take(sock)
                    await asyncio.sleep(0)  # a run that connects without end is not alone here

    def _take(self, sock: socket.socket) -> None:
        if len(self._visits) >= self._bounds.connections:
            self._turn_away(sock)
            return
        visit = Visit(self, sock)
        task = visit.start()
        self._visits[task] = visit
        task.add_done_callback(lambda done: self._visits.pop(done, None))

    def _turn_away(self, sock: socket.socket) -> None:
        entry = self.tally.open()
        self.tally.refuse(entry, "too_many")
        self.tally.close(entry)
        with sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.send(answer_bytes("too_many"))

    def tick(self, now: float) -> None:
        """End what waited too long."""
        for visit in list(self._visits.values()):
            visit.tick(now)
        if now_ms() >= self.lent_until_ms:
            self.purse.empty()
        if not self.over and now_ms() >= self.ends_ms:
            self.stop("timeout")

    def stop(self, code: str | None) -> None:
        """No further connection, no credential, and those that are open end now."""
        self.over = True
        self.purse.empty()
        self._accepting.cancel()
        for visit in list(self._visits.values()):
            visit.end(code)

    @property
    def visits(self) -> int:
        return len(self._visits)

    async def closed(self) -> dict[str, Any]:
        """Stop, wait until every socket is closed, and give the record."""
        self.stop(None)
        await asyncio.gather(self._accepting, *self._visits, return_exceptions=True)
        self._listener.close()
        return self.tally.facts()


class Runs:
    """All open runs by id. Every method that says no raises Unwilling with the reason.

    A key that is empty is nobody's: such a run is fenced against no other.
    """

    def __init__(self, upstream: Upstream, bounds: Bounds) -> None:
        self._upstream = upstream
        self._bounds = bounds
        self._runs: dict[str, Run] = {}
        self._fences: OrderedDict[str, int] = OrderedDict()
        self._floor = -1
        self.authorities = Authorities()

    def open(self, facts: dict[str, Any], listener: socket.socket) -> None:
        """Take a run's connections from now on; the listener is the run's from here on."""
        run_id, key, fence = str(facts["run"]), str(facts["key"]), int(facts["fence"])
        if run_id in self._runs:
            raise Unwilling("this run is open already")
        if len(self._runs) >= MAX_RUNS:
            raise Unwilling("too many runs are open")
        if key and fence <= self._fences.get(key, self._floor):
            raise Unwilling("a later fence of the same call was seen")
        if now_ms() >= int(facts["ends_ms"]):
            raise Unwilling("the run's time is over")
        prepared = str(facts["prepared"])
        kept = facts.get("kept") is True
        authority = self.authorities.of(prepared) if kept else self.authorities.take(prepared)
        if authority is None:
            raise Unwilling("no authority was prepared under this name")
        run = Run(facts, listener, authority, self._upstream, self._bounds)
        for older in self._runs.values():
            if key and older.key == key:
                older.stop("fenced")
        self._runs[run_id] = run
        if key:
            self._remember(key, fence)

    def _remember(self, key: str, fence: int) -> None:
        """Fences outlive their runs: what comes late is refused too. Of very many, the oldest are
        folded into one floor; fences grow with every grant, whatever its call."""
        self._fences[key] = fence
        self._fences.move_to_end(key)
        if len(self._fences) > MAX_FENCES:
            self._floor = max(self._floor, self._fences.popitem(last=False)[1])

    async def close(self, run_id: str) -> dict[str, Any]:
        """The record of a run that is closed now; an empty one if it never was open."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return Tally(0).facts()
        return await run.closed()

    async def sweep(self, live: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
        gone = sorted(set(self._runs) - set(live))
        return [(run_id, await self.close(run_id)) for run_id in gone]

    def inject(
        self, facts: dict[str, Any], lent: Sequence[tuple[Injection, Sequence[str]]]
    ) -> None:
        """Lend an open run credentials; all or none."""
        run = self._runs.get(str(facts["run"]))
        if run is None or run.over:
            raise Unwilling("this run is not open")
        if run.fence != int(facts["fence"]):
            raise Unwilling("this run is open with another fence")
        for injection, _ in lent:
            if not run.rules.names(injection.host, injection.port):
                raise Unwilling("no rule of the run is about this destination")
        run.purse.add(lent)
        run.lent_until_ms = min(run.lent_until_ms, int(facts["ends_ms"]))

    def forget(self, run_id: str) -> None:
        """Take what was lent from a run; whoever is not open has nothing."""
        if (run := self._runs.get(run_id)) is not None:
            run.purse.empty()

    @property
    def open_visits(self) -> int:
        """Connections that are being served, of all runs."""
        return sum(run.visits for run in self._runs.values())

    def forget_all(self) -> None:
        for run in self._runs.values():
            run.purse.empty()

    def tick(self) -> None:
        now = time.monotonic()
        for run in list(self._runs.values()):
            run.tick(now)
