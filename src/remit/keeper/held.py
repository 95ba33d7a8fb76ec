"""What one run holds, and how each of its loans ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from remit.keeper.configured import Credential
from remit.keeper.entitled import Entitlement
from remit.keeper.loans import Owed
from remit.model import Loan
from remit.runners.credentials.broker import BrokerFault, Held

REVOKE_S = 9.0
"""Longest that one try to revoke takes; brokers give up a little earlier themselves."""

UNKNOWN = "the keeper ended while it asked; what was given, if anything, ends by itself"


@dataclass(slots=True, kw_only=True)
class RunLoans:
    """The loans of one run. `ended` has those that are over, by name.

    `given_up`: somebody began to end it. `late` are loans that a broker gave after that.
    """

    run_id: str
    fence: int
    call_digest: str
    effect: str
    owed: dict[str, Owed]
    ended: dict[str, Loan] = field(default_factory=dict)
    injected: bool = False
    given_up: bool = False
    late: set[str] = field(default_factory=set)
    told: bool = False
    tries: int = 0
    ending: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def ends_ms(self) -> int:
        """When they have to be over: all together, with the first of them."""
        return min((each.ends_ms for each in self.owed.values()), default=0)

    @property
    def over(self) -> bool:
        """Whether every loan was given up."""
        return all(
            each in self.ended and self.ended[each].returned_ms is not None for each in self.owed
        )

    @property
    def loans(self) -> list[Loan]:
        """What the record says of each."""
        return [self.ended.get(each.loan_id) or record(each) for each in self.owed.values()]


def record(owed: Owed, *, returned_ms: int | None = None, revoked: bool = False) -> Loan:
    """One loan as the record has it."""
    return Loan(
        ref=owed.ref,
        broker=owed.broker,
        delivered=owed.delivered,
        lent_ms=owed.lent_ms,
        expires_ms=owed.expires_ms,
        lease=owed.lease,
        returned_ms=returned_ms,
        revoked=revoked,
        note=owed.note,
    )


def owed_of(wanted: Entitlement, lent_ms: int) -> Owed:
    """The loan of an order, about to be asked for."""
    return Owed(
        loan_id=wanted.order.loan_id,
        ref=wanted.credential.ref,
        broker=wanted.credential.kind,
        delivered=wanted.credential.delivered,
        lent_ms=lent_ms,
        ends_ms=wanted.order.ends_ms,
    )


class Ender:
    """Ends loans at their brokers.

    Args:
        credentials: what is configured; a loan of an earlier configuration may have no broker.
        now: milliseconds since the epoch.
    """

    def __init__(self, credentials: Mapping[str, Credential], now: Callable[[], int]) -> None:
        self._credentials = credentials
        self._now = now

    async def end(self, run: RunLoans) -> None:
        """Try to end each loan that is not over; never raises. `run.ended` says how it went."""
        open_loans = [
            each
            for each in run.owed.values()
            if (done := run.ended.get(each.loan_id)) is None or done.returned_ms is None
        ]
        found = await asyncio.gather(*(self._end(run.run_id, each) for each in open_loans))
        for owed, loan in zip(open_loans, found, strict=True):
            run.ended[owed.loan_id] = loan

    async def _end(self, run_id: str, owed: Owed) -> Loan:
        credential = self._credentials.get(owed.ref)
        if credential is None or credential.kind != owed.broker:
            owed.note = "its broker is not configured any more: it ends by itself"
            return record(owed, returned_ms=self._now())
        held = Held(
            loan_id=owed.loan_id,
            run_id=run_id,
            lease=owed.lease,
            key=owed.key,
            expires_ms=owed.expires_ms,
        )
        try:
            async with asyncio.timeout(REVOKE_S):
                revoked = await credential.broker.revoke(held)
        except BrokerFault as fault:
            return self._not_yet(owed, fault.message)
        except TimeoutError:
            return self._not_yet(owed, "the lending system did not answer in time")
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is tried again
            return self._not_yet(owed, f"revoking failed ({type(fault).__name__})")
        if not revoked and not owed.lent:
            owed.note = UNKNOWN
        return record(owed, returned_ms=self._now(), revoked=revoked)

    def _not_yet(self, owed: Owed, why: str) -> Loan:
        """Not ended: tried again, unless it has ended by itself meanwhile."""
        now = self._now()
        by_itself = owed.expires_ms if owed.lent else owed.ends_ms
        if by_itself is not None and by_itself <= now:
            owed.note = f"{why}; it ended by itself"
            return record(owed, returned_ms=now)
        owed.note = why
        return record(owed)
