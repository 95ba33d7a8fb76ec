"""Lending to runs, and ending what was lent: written down first, checked on the ledger, in time.

A run is lent all of its plan's credentials or none. Before a broker is asked, the journal has it;
before the run has it, the journal has what ends it. Loans end when the run is returned, when their
time is over, when a newer run of the same call takes the place, when nobody calls the run live any
more, and when the gateway is gone; whichever comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from remit.errors import Unverified
from remit.keeper.configured import Credential
from remit.keeper.entitled import (
    LOOK,
    Entitlement,
    Unentitled,
    check_run,
    entitlements,
    look_entitlement,
    rules_of,
)
from remit.keeper.held import Ender, RunLoans, owed_of, record
from remit.keeper.loans import Journal
from remit.keeper.proxy import ProxyLine
from remit.keeper.signing import Mark
from remit.keeper.traces import Traces
from remit.ledger.lending import LendingReader, Standing
from remit.model import Loan
from remit.runners.credentials.broker import Advance, BrokerFault, Consented, NoConsent
from remit.runners.credentials.render import header_value, render

LEND_S = 12.0
MAX_RETRY_S = 60.0
CANCELLED_S = 1.0
"""How long what is given up at the end may take to say so."""

KEPT = 2_000
"""Runs that are over of which the loans, and the traces of their secrets, are still known."""

Delivery = tuple[list[Loan], list[tuple[str, bytes]]]
"""What the run's record says, and the files that go into it."""


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Lending:
    """All that is lent, by run."""

    def __init__(
        self,
        credentials: Mapping[str, Credential],
        journal: Journal,
        proxy: ProxyLine,
        mark: Callable[[], Mark],
    ) -> None:
        self._credentials = credentials
        self._journal = journal
        self._proxy = proxy
        self._mark = mark
        self._ender = Ender(credentials, now_ms)
        self._ledger: LendingReader | None = None
        self._runs: dict[str, RunLoans] = {}
        self._asking: dict[str, asyncio.Task[Delivery]] = {}
        self._over: OrderedDict[str, RunLoans] = OrderedDict()
        self.traces = Traces(KEPT)
        self._late: list[tuple[str, Loan]] = []

    def open(self, ledger: LendingReader) -> None:
        """Lend from now on to runs of this ledger, and end what earlier keepers left."""
        self._ledger = ledger
        for run_id, loans in self._journal.left().items():
            run = RunLoans(
                run_id=run_id,
                fence=0,
                call_digest="",
                effect="",
                owed={each.loan_id: each for each in loans},
            )
            self._runs[run_id] = run
            self._end_soon(run)

    @property
    def opened(self) -> bool:
        """Whether it has its ledger; it never takes another."""
        return self._ledger is not None

    # ------------------------------------------------------------------------------ lending

    async def lend(self, run_id: str, fence: int) -> Delivery:
        """Lend the run what its plan names.

        Raises:
            Unentitled, BrokerFault: nothing is lent, or not any more.
        """
        return await self._once(run_id, self._lend(run_id, fence))

    async def look(self, look: str, ref: str) -> Delivery:
        """Lend a credential to look at a server: no run, and so only where its section says it.

        Raises:
            Unentitled, BrokerFault: nothing is lent, or not any more.
        """
        wanted = look_entitlement(self._credentials.get(ref), look, now_ms())
        run = RunLoans(run_id=look, fence=0, call_digest="", effect="read", owed={})
        return await self._once(look, self._give(run, [wanted]))

    async def _once(self, run_id: str, lending: Coroutine[Any, Any, Delivery]) -> Delivery:
        if run_id in self._runs or run_id in self._asking or run_id in self._over:
            lending.close()
            raise Unentitled("the run was lent its credentials already")
        task = asyncio.ensure_future(lending)
        self._asking[run_id] = task
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            del self._asking[run_id]
        if task.cancelled():
            raise Unentitled("it was taken back before it was lent")
        return task.result()

    async def _lend(self, run_id: str, fence: int) -> Delivery:
        standing = self._standing(run_id, fence)
        await self._end_older(standing)
        names = {str(rule["ref"]): f"loan_{os.urandom(13).hex()}" for rule in rules_of(standing)}
        wanted = entitlements(standing, self._credentials, names, now_ms())
        run = RunLoans(
            run_id=run_id,
            fence=fence,
            call_digest=standing.call_digest,
            effect=standing.effect,
            owed={},
        )
        return await self._give(run, wanted)

    async def _give(self, run: RunLoans, wanted: Sequence[Entitlement]) -> Delivery:
        run.owed |= {each.order.loan_id: owed_of(each, now_ms()) for each in wanted}
        self._journal.asked(run.run_id, list(run.owed.values()))
        self._runs[run.run_id] = run
        try:
            advances = await self._ask_all(run, wanted)
            if not LOOK.fullmatch(run.run_id):
                self._standing(run.run_id, run.fence)  # it took a while
            _check_wanted(run)
            files = await self._deliver(run, wanted, advances)
            _check_wanted(run)
        except BaseException:
            await asyncio.shield(self._end_late(run))
            raise
        self._end_in_time(run)
        return run.loans, files

    def _standing(self, run_id: str, fence: int) -> Standing:
        """The run as the ledger has it, if it is to be lent anything.

        Its intent has to be in the tree that this keeper signed last: whoever writes an intent to
        have something lent cannot take it out of the log again.
        """
        if self._ledger is None:
            raise Unentitled("the keeper has no ledger yet")
        try:
            standing = check_run(self._ledger.standing(run_id), fence, now_ms())
            mark = self._mark()
            covered = self._ledger.covered(standing.intent_index, mark.size, mark.root)
        except (sqlite3.Error, Unverified, ValueError, KeyError, TypeError, AttributeError):
            raise Unentitled("the ledger could not be read, or is not what was signed") from None
        if not covered:
            raise Unentitled("the run's intent is under no checkpoint yet")
        return standing

    async def _end_older(self, standing: Standing) -> None:
        """End what earlier runs of the same call still hold."""
        if standing.effect == "read":
            return
        older = [
            run
            for run in self._runs.values()
            if run.call_digest == standing.call_digest and run.fence < standing.fence
        ]
        await asyncio.gather(*(self._end_now(run) for run in older if run.effect != "read"))

    async def _ask_all(self, run: RunLoans, wanted: Sequence[Entitlement]) -> list[Advance]:
        found = await asyncio.gather(
            *(self._ask(run, each) for each in wanted), return_exceptions=True
        )
        advances: list[Advance] = []
        for result in found:
            if isinstance(result, BaseException):
                raise result
            advances.append(result)
        return advances

    async def _ask(self, run: RunLoans, wanted: Entitlement) -> Advance:
        ref, owed = wanted.credential.ref, run.owed[wanted.order.loan_id]
        try:
            async with asyncio.timeout(LEND_S):
                advance = await wanted.credential.broker.lend(wanted.order)
        except BrokerFault as fault:
            owed.note = fault.message
            run.ended[owed.loan_id] = record(owed, returned_ms=now_ms())
            kind = NoConsent if isinstance(fault, NoConsent) else BrokerFault
            raise kind(f"{ref}: {fault.message}") from None
        except TimeoutError:
            raise BrokerFault(f"{ref}: the lending system did not answer in time") from None
        except Exception as fault:  # noqa: BLE001 - a broker that breaks must not break the others
            raise BrokerFault(f"{ref}: lending failed ({type(fault).__name__})") from None
        owed.lent, owed.lent_ms = True, now_ms()
        owed.expires_ms, owed.lease = advance.expires_ms, advance.lease
        owed.key, owed.note = advance.key, advance.note
        # Known before it is anywhere else, so that no output goes by that was not searched for it.
        self.traces.learn(run.run_id, advance.secrets)
        self._journal.lent(run.run_id, owed)
        if run.given_up:
            run.late.add(owed.loan_id)
        return advance

    async def _deliver(
        self, run: RunLoans, wanted: Sequence[Entitlement], advances: Sequence[Advance]
    ) -> list[tuple[str, bytes]]:
        """Hand it to the proxy, or give the files that go into the run."""
        files: list[tuple[str, bytes]] = []
        headers: list[dict[str, Any]] = []
        for each, advance in zip(wanted, advances, strict=True):
            file = each.credential.file
            if file is not None:
                content = render(file["content"], advance.fields)
                files.append((str(file["name"]), content.encode()))
            headers += [self._header(run, each, place, advance) for place in each.inject]
        if headers:
            run.injected = True
            await self._proxy.inject(run.run_id, run.fence, run.ends_ms, headers)
        return files

    def _header(
        self, run: RunLoans, wanted: Entitlement, place: Mapping[str, Any], advance: Advance
    ) -> dict[str, Any]:
        value, made = header_value(place, advance.fields)
        self.traces.learn(run.run_id, made)
        return {
            "ref": wanted.credential.ref,
            "host": place["host"],
            "port": place["port"],
            "path_prefix": place.get("path_prefix"),
            "header": place["header"],
            "value": value,
            "secrets": [*advance.secrets, *made],
        }

    # ------------------------------------------------------------------------------- ending

    async def take_back(self, run_id: str) -> list[Loan]:
        """End all that the run holds, and say how each loan ended; nothing for a stranger."""
        if (asking := self._asking.get(run_id)) is not None:
            asking.cancel()
            await asyncio.wait([asking])
        if (run := self._runs.get(run_id)) is not None:
            await self._end_now(run)
            return run.loans
        over = self._over.get(run_id)
        return [] if over is None else over.loans

    async def unaccepted(self, run_id: str, scopes: Sequence[str] | None) -> None:
        """A server did not accept what the run was lent by a person's consent."""
        run = self._runs.get(run_id) or self._over.get(run_id)
        for owed in () if run is None else run.owed.values():
            credential = self._credentials.get(owed.ref)
            if credential is not None and isinstance(credential.broker, Consented):
                await credential.broker.unaccepted(owed.loan_id, scopes)

    async def sweep(self, live: frozenset[str]) -> list[tuple[str, Loan]]:
        """End what runs hold that are not live; give that, and what ended late since last time."""
        dead = [
            run
            for run in self._runs.values()
            if run.run_id not in live and not LOOK.fullmatch(run.run_id)  # which ends in its time
        ]
        await asyncio.gather(*(self._end_now(run) for run in dead))
        late, self._late = self._late, []
        self.traces.forget_but(live | self._runs.keys())
        return late + [pair for run in dead for pair in self._told(run)]

    async def end_all(self, seconds: float) -> None:
        """End everything that lives, for so long at most; what is left stands in the journal.

        What brokers are asking for is waited for, and ended when it comes: given up in the middle,
        it would be given all the same, and nobody's.
        """
        asking = list(self._asking.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._end_each()
                await asyncio.gather(*(asyncio.wait([task]) for task in asking))
                await self._end_each()  # also what was about to be asked for
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking, timeout=CANCELLED_S)
        for credential in self._credentials.values():
            await credential.broker.aclose()

    async def _end_each(self) -> None:
        runs = list(self._runs.values())
        await asyncio.gather(*(self._end_now(run) for run in runs), return_exceptions=True)

    async def _end_now(self, run: RunLoans) -> None:
        """One try to end it all, joined by whoever asks meanwhile."""
        if run.run_id not in self._runs:
            return
        if run.ending is None:
            run.ending = asyncio.ensure_future(self._end(run))
        await asyncio.shield(run.ending)

    async def _end_late(self, run: RunLoans) -> None:
        """End a run that is not lent to after all, with what brokers gave when others had ended
        it already, for whom there was nothing to end yet."""
        if run.late:
            if run.ending is not None:
                await asyncio.shield(run.ending)
            for loan_id in run.late:
                run.ended.pop(loan_id, None)
            self._over.pop(run.run_id, None)
            self._runs[run.run_id] = run
        await self._end_now(run)

    async def _end(self, run: RunLoans) -> None:
        run.given_up = True
        try:
            if run.timer is not None:
                run.timer.cancel()
                run.timer = None
            if run.injected:
                await self._proxy.forget(run.run_id)
                run.injected = False
            await self._ender.end(run)
            if run.over:
                self._journal.closed(run.run_id)
                del self._runs[run.run_id]
                self._over[run.run_id] = run
                while len(self._over) > KEPT:
                    self._over.popitem(last=False)
            else:
                run.tries += 1
                self._call_later(run, min(MAX_RETRY_S, 2.0 ** (run.tries - 1)))
        finally:
            run.ending = None

    def _end_in_time(self, run: RunLoans) -> None:
        self._call_later(run, max(0.0, (run.ends_ms - now_ms()) / 1000))

    def _call_later(self, run: RunLoans, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        run.timer = loop.call_later(seconds, self._end_soon, run)

    def _told(self, run: RunLoans) -> list[tuple[str, Loan]]:
        """What a sweep says of it: once, when it is over; each time, while it is not."""
        if run.told:
            return []
        run.told = run.over
        return [(run.run_id, loan) for loan in run.loans]

    def _end_soon(self, run: RunLoans) -> None:
        """End it without anybody who waits; the next sweep tells of it."""

        async def end() -> None:
            await self._end_now(run)
            if run.over:
                self._late += self._told(run)

        task = asyncio.ensure_future(end())
        _KEPT_TASKS.add(task)
        task.add_done_callback(_KEPT_TASKS.discard)


_KEPT_TASKS: set[asyncio.Task[None]] = set()


def _check_wanted(run: RunLoans) -> None:
    """Raises Unentitled where the run was ended while it was being lent to."""
    if run.given_up:
        raise Unentitled("it was taken back before it was lent")
