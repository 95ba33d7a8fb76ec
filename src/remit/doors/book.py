"""The resources of whose changes one stream, or one session, is told; and whether it still may be.

Each was subscribed to by a call, which policy allowed and the log has. Whenever what that rested on
is another (policy, a freeze, the catalog, the connection on which the server is heard), and every
few minutes, the same call is made again; until it has succeeded nothing is told of the resource, and
where it is refused nothing ever is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from remit.doors.gateway import Gateway
from remit.doors.settings import DoorSettings
from remit.errors import Code, Refused
from remit.model import Amount, Call, Caller, Reply
from remit.ports import Now
from remit.telemetry import logger

PASSING = frozenset(
    {
        Code.POLICY_UNAVAILABLE,
        Code.LEDGER_UNAVAILABLE,
        Code.RUNNER_UNAVAILABLE,
        Code.UPSTREAM_UNREACHABLE,
        Code.UPSTREAM_GONE,
        Code.UPSTREAM_TIMEOUT,
        Code.UPSTREAM_INVALID,
        Code.INTERNAL,
    }
)
"""What says nothing about whether the caller may: it is asked again a little later."""

TRIES = 8
_LONGEST_S = 60.0

log = logger()


class Places:
    """How many resources are subscribed to, by each caller and by all."""

    def __init__(self, settings: DoorSettings) -> None:
        self._settings = settings
        self._taken: Counter[str] = Counter()

    def take(self, caller: Caller) -> None:
        """One more.

        Raises:
            Refused: `rate_limited`: this caller, or everyone together, has as many as may be.
        """
        settings = self._settings
        if (
            self._taken[caller.id] >= settings.max_resources_per_caller
            or self._taken.total() >= settings.max_resources
        ):
            raise Refused(Code.RATE_LIMITED, "too many resources are subscribed to")
        self._taken[caller.id] += 1

    def give_back(self, caller: Caller) -> None:
        """One less."""
        self._taken[caller.id] -= 1
        if not self._taken[caller.id]:
            del self._taken[caller.id]


class _Untold:
    """The progress of a call that nobody waits for."""

    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None:
        """Nobody hears it."""


@dataclass(slots=True, kw_only=True)
class _Held:
    """One resource. `standing` is what being told of it rests on, `end` ends hearing of it."""

    call: Call
    standing: object
    asked_s: float
    end: Callable[[], None]
    changed: bool = False
    tries: int = 0
    not_before_s: float = 0.0


class Book:
    """The resources of one stream or session, all of one caller.

    Args:
        now: for the calls that are made again.
        whole: its client was told all that is in it, and has to learn when something no longer is.
    """

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        places: Places,
        settings: DoorSettings,
        now: Now,
        *,
        whole: bool,
    ) -> None:
        self._gateway = gateway
        self._caller = caller
        self._places = places
        self._settings = settings
        self._now = now
        self._held: dict[str, _Held] = {}
        self._nudges: dict[object, Callable[[], None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._closed = False
        self._whole = whole
        self.over = False
        """Whether it is not what its client was told any more."""

    async def add(self, uri: str, call: Call) -> Reply:
        """Make the call; if it succeeds, the resource is one of these. Refused, it is none any more.

        Raises:
            Refused: `rate_limited`: there is no place for it.
        """
        known = uri in self._held
        if not known:
            self._places.take(self._caller)
        taken = not known
        try:
            standing = self._gateway.offers.standing(uri)
            reply = await self._gateway.call(call, _Untold())
            held = uri in self._held
            if subscribed(reply) and not self._closed and not (taken and held):
                if not (taken or held):  # what had its place was removed meanwhile
                    self._places.take(self._caller)
                self._hold(uri, call, standing)
                taken = False
            elif known and held and _refuses(reply):
                self._lose(uri)
        finally:
            if taken:
                self._places.give_back(self._caller)
        return reply

    def _hold(self, uri: str, call: Call, standing: object) -> None:
        before = self._held.pop(uri, None)
        held = _Held(
            call=call,
            standing=(standing, self._gateway.offers.rounds(uri)),
            asked_s=_time(),
            end=_nothing,
            changed=before is not None and before.changed,
        )

        def told(changed: bool) -> None:
            held.changed = held.changed or changed
            self._nudge()

        held.end = self._gateway.offers.hear(uri, told)
        if before is not None:
            before.end()
        self._held[uri] = held
        self._leave_alone()

    def holds(self, uri: str) -> bool:
        """Whether it is one of these."""
        return uri in self._held

    def remove(self, uri: str) -> None:
        """Tell no more of it."""
        held = self._held.pop(uri, None)
        if held is not None:
            held.end()
            self._places.give_back(self._caller)

    def attach(self, nudge: Callable[[], None]) -> Callable[[], None]:
        """Somebody listens, and is nudged when there is something to tell; gives what ends that."""
        key = object()
        self._nudges[key] = nudge
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None

        def end() -> None:
            self._nudges.pop(key, None)
            self._leave_alone()

        return end

    def _leave_alone(self) -> None:
        """If nobody listens, what was subscribed to is kept for a moment."""
        if self._held and not self._nudges and self._alone is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._alone = loop.call_later(self._settings.unheard_s, self._forget)

    def _forget(self) -> None:
        self._alone = None
        for uri in list(self._held):
            self.remove(uri)

    def take(self) -> list[str]:
        """The resources that changed since this was asked, of which the caller may be told now."""
        found = []
        for uri, held in self._held.items():
            if held.changed and not self._stale(uri, held):
                held.changed = False
                found.append(uri)
        return found

    def settle(self) -> None:
        """Begin to ask again for what rests on something that is another now; whoever listens is
        nudged after it."""
        due = [
            uri
            for uri, held in self._held.items()
            if held.not_before_s <= _time() and self._stale(uri, held)
        ]
        if due and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(due))

    def _stale(self, uri: str, held: _Held) -> bool:
        offers = self._gateway.offers
        if held.standing != (offers.standing(uri), offers.rounds(uri)):
            return True
        return _time() - held.asked_s >= self._settings.reask_s

    async def _ask(self, due: list[str]) -> None:
        for uri in due:
            try:
                await self._again(uri)
            except Exception:
                log.exception("subscription_not_asked")
                self._lose(uri)
        self._nudge()

    def _nudge(self) -> None:
        for each in list(self._nudges.values()):
            each()

    async def _again(self, uri: str) -> None:
        held = self._held.get(uri)
        if held is None:
            return
        standing = self._gateway.offers.standing(uri)
        call = replace(
            held.call,
            id=self._gateway.new_call_id(),
            received_ms=self._now(),
            idempotency_key=None,
        )
        valid = self._gateway.still_valid(self._caller)
        reply = await self._gateway.call(call, _Untold()) if valid else None
        if self._held.get(uri) is not held:
            return
        if reply is not None and subscribed(reply):
            self._hold(uri, held.call, standing)
        elif reply is not None and _passes(reply) and held.tries < TRIES:
            held.tries += 1
            held.not_before_s = _time() + min(2.0**held.tries, _LONGEST_S)
        else:
            self._lose(uri)

    def _lose(self, uri: str) -> None:
        """Its caller may not be told of it any more."""
        self.remove(uri)
        self.over = self._whole

    def close(self) -> None:
        """Tell nothing any more. Idempotent."""
        self._closed = True
        if self._alone is not None:
            self._alone.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._forget()


def subscribed(reply: Reply) -> bool:
    """Whether a call was made, and the server agreed."""
    done = reply.structured is not None and reply.question is None
    return done and not reply.is_error and reply.jsonrpc_error is None


def _refuses(reply: Reply) -> bool:
    return reply.question is None and not subscribed(reply) and not _passes(reply)


def _passes(reply: Reply) -> bool:
    return reply.decision.get("code") in PASSING


def _time() -> float:
    return asyncio.get_running_loop().time()


def _nothing() -> None:
    """Nothing is heard yet."""
