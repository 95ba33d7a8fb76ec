"""What policy is told of a subject's earlier calls: kept by the gateway, counted from intents.

Kept by tenant and subject alone, whatever session, key or delegation chain a call comes with, so
that none of these resets it. The session id that a client claims only splits off a part.

Two calls of one subject may be under way at once. One that is decided before the other's intent is
committed is told nothing of it, and need not be: the other has not started, so nothing that it
reads can have shaped this one's arguments, which were frozen before. From the moment of its intent,
before its run starts, a call is told to every decision that follows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from remit.history import MAX_TOUCHES, History, Trail, folded, touch_of, trail_of
from remit.model import Caller, Claims, Effect, Intent, NormalCall, Taint, Touch
from remit.ports import Clock, Ledger

MAX_KEPT = 100_000
"""How many touches are kept in memory over all subjects; the ledger has the others."""

MAX_VIEWS = 64
"""For how many sessions of one subject a trail is kept ready."""

SLACK = 250
"""By how many touches a subject may exceed `MAX_TOUCHES` before the oldest are folded."""

REFILL_MS = 3_600_000
"""After how long a subject is counted anew from the ledger, at the latest."""


class Histories:
    """The history of each subject, in memory while it is used.

    Args:
        window_s: how far back a history reaches, in seconds.
    """

    def __init__(self, ledger: Ledger, clock: Clock, *, window_s: int) -> None:
        self._ledger = ledger
        self._clock = clock
        self._window_ms = 1_000 * window_s
        # A count may be too high by what left the window since the last refill: at most 1/24.
        self._refill_ms = min(REFILL_MS, self._window_ms // 24)
        self._subjects: OrderedDict[tuple[str, str], _Subject] = OrderedDict()
        self._kept = 0

    async def of(self, caller: Caller, claims: Claims) -> History:
        """What this caller's subject did within the window, up to the last committed intent.

        Raises:
            LedgerFault: it is not in memory and could not be read; the call must not go on.
        """
        key = caller.tenant, caller.subject
        now = self._clock.now_ms()
        subject = self._subjects.get(key)
        if subject is None or now >= subject.stale_ms:
            subject = await self._refilled(key, now)
        else:
            self._subjects.move_to_end(key)
        since = now - self._window_ms
        if subject.oldest_ms < since:
            subject.forget_before(since)
        every, part = subject.view(None), subject.view(claims.session_id or "")
        return History(since_ms=since, all=every, session=part)

    def committed(self, intent: Intent) -> None:
        """Take in an intent that has just become durable, before its run starts."""
        self._add(intent.caller, touch_of(intent))

    async def returned(self, normal: NormalCall) -> None:
        """Take in that a stored result was handed out again, which is as good as reading it anew.

        In memory only: after a restart, only the run that made it counts, from its own time on.

        Raises:
            LedgerFault: as `of`.
        """
        tool, call = normal.tool, normal.call
        await self.of(call.caller, call.claims)
        touch = Touch(
            session=call.claims.session_id or "",
            system=tool.system,
            effect=Effect.READ,
            untrusted=Taint.UNTRUSTED in tool.returns,
            sensitive=Taint.SENSITIVE in tool.returns,
            calls=1,
            last_ms=self._clock.now_ms(),
        )
        self._add(call.caller, touch)

    def _add(self, caller: Caller, touch: Touch) -> None:
        key = caller.tenant, caller.subject
        subject = self._subjects.get(key)
        if subject is not None:  # else the ledger is asked when it is needed
            subject.add(touch)
            self._weigh(key, subject)

    async def _refilled(self, key: tuple[str, str], now: int) -> _Subject:
        subject = self._subjects.setdefault(key, _Subject())
        async with subject.filling:
            if now < subject.stale_ms:
                return subject  # whoever held the lock has filled it
            late: list[Touch] = []
            subject.late = late
            try:
                tenant, name = key
                found = await self._ledger.touches(tenant, name, since_ms=now - self._window_ms)
            finally:
                subject.late = None
            # What came meanwhile may be in both: a count is then too high, never too low.
            subject.fill([*found, *late], stale_ms=now + self._refill_ms)
        self._weigh(key, subject)
        return subject

    def _weigh(self, key: tuple[str, str], subject: _Subject) -> None:
        """Keep the sum of all that is kept; let those go that were used longest ago."""
        if self._subjects.get(key) is not subject:
            return
        self._subjects.move_to_end(key)
        self._kept += subject.weight() - subject.weighed
        subject.weighed = subject.weight()
        while self._kept > MAX_KEPT and len(self._subjects) > 1:
            _, gone = self._subjects.popitem(last=False)
            self._kept -= gone.weighed


class _Subject:
    """The touches of one subject, and trails made ready of them."""

    def __init__(self) -> None:
        self.filling = asyncio.Lock()
        self.late: list[Touch] | None = None
        self.stale_ms = 0
        self.oldest_ms = 0
        self.weighed = 0
        self._touches: dict[Touch, Touch] = {}
        self._views: dict[str | None, Trail] = {}

    def weight(self) -> int:
        return len(self._touches) + 1

    def fill(self, touches: Iterable[Touch], *, stale_ms: int) -> None:
        self._touches = {}
        for touch in touches:
            self._put(touch)
        self.stale_ms = stale_ms
        self._changed()

    def add(self, touch: Touch) -> None:
        if self.late is not None:
            self.late.append(touch)
        if self._put(touch):
            if len(self._touches) > MAX_TOUCHES + SLACK:
                newest_first = sorted(self._touches.values(), key=lambda each: -each.last_ms)
                self._touches = {}
                for each in folded(newest_first):
                    self._put(each)
            self._changed()
            return
        for session in (None, touch.session):
            if session in self._views:
                trail = self._views[session]
                self._views[session] = replace(trail, calls=trail.calls + touch.calls)

    def view(self, session: str | None) -> Trail:
        """The trail of one session, or of all."""
        trail = self._views.get(session)
        if trail is None:
            every = self._touches.values()
            trail = trail_of(t for t in every if session is None or t.session == session)
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            self._views[session] = trail
        return trail

    def forget_before(self, since_ms: int) -> None:
        """Let go of what is outside the window."""
        self._touches = {
            alike: touch for alike, touch in self._touches.items() if touch.last_ms >= since_ms
        }
        self._changed()

    def _put(self, touch: Touch) -> bool:
        """Whether it is unlike all that was known."""
        alike = _alike(touch)
        known = self._touches.get(alike)
        if known is None:
            self._touches[alike] = touch
            return True
        last = max(known.last_ms, touch.last_ms)
        self._touches[alike] = replace(known, calls=known.calls + touch.calls, last_ms=last)
        return False

    def _changed(self) -> None:
        self._views.clear()
        self.oldest_ms = min((each.last_ms for each in self._touches.values()), default=1 << 62)


def _alike(touch: Touch) -> Touch:
    """What two touches have in common that are counted as one."""
    return replace(touch, calls=0, last_ms=0)
