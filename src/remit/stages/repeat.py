"""Step 2, repeats: the same call, by its digest, does not take effect twice by accident.

| the call | an equal one is in flight | its outcome is unknown | approved and just finished |
|---|---|---|---|
| read | runs | runs | runs |
| write, destructive | joins it | refused until resolved | stored result, `replayed` |
| with an idempotency key | joins it | refused until resolved | stored result, at any age |

What a person resolved as succeeded counts, for its key, as finished.

An answer to what a server asked has the key of the question: while an equal one is under way it
joins it, and after that it is refused, whatever came of it.

An idempotent tool's unknown outcome does not refuse: the new run is linked to the old. A call with
a key that was not used yet is a new call, whatever ran before it: that is how to say "once more".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from remit.errors import Code, Refused
from remit.model import Amount, Effect, NormalCall, Permitted, Repeat, Reply, RunState
from remit.ports import Ledger, Progress
from remit.stages.execute import Stop
from remit.stages.rounds import spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Nothing known of this call stands in its way; `parent` is the run that it repeats."""

    parent_run_id: str | None = None


async def find_repeat(
    ledger: Ledger, normal: NormalCall, *, now_ms: int, result_ttl_s: int
) -> Fresh | Repeat:
    """What the ledger's earlier runs mean for this call.

    Raises:
        Refused: `idempotency_mismatch` if the key was used for another call;
            `outcome_unknown` if nobody has said yet what became of the last one.
    """
    key = normal.call.idempotency_key
    if normal.tool.effect is Effect.READ and key is None:
        return Fresh()
    earlier = await ledger.repeat(normal.call.caller, normal.tool.name, normal.digest, key)
    if earlier is None:
        return Fresh()
    run = earlier.run
    if _answers(normal) and earlier.by_key:
        if run.state is RunState.NEVER_STARTED:
            return Fresh(parent_run_id=run.id)
        looked_at = run.resolved_as is not None or normal.tool.effect is Effect.READ
        raise spent(run.id) if looked_at or run.state is not RunState.UNKNOWN else unknown(run.id)
    if earlier.by_key and run.call_digest != normal.digest:
        raise mismatch()
    if run.resolved_as == "succeeded" and earlier.by_key:
        return earlier
    if run.resolved_as is not None:
        return Fresh(parent_run_id=run.id)
    if run.state is RunState.UNKNOWN or run.state.open:
        if normal.tool.idempotent:
            return Fresh(parent_run_id=run.id)
        if normal.tool.effect is Effect.READ:
            return Fresh(parent_run_id=run.id)
        raise unknown(run.id)
    recent = run.settled_ms is not None and now_ms - run.settled_ms <= 1000 * result_ttl_s
    by_approval = run.approval_id is not None and recent and key is None
    if (by_approval or earlier.by_key) and run.state is not RunState.NEVER_STARTED:
        return earlier
    return Fresh()


def unknown(run_id: str) -> Refused:
    return Refused(
        Code.OUTCOME_UNKNOWN,
        "an earlier run of this same call has an unknown outcome",
        run_id=run_id,
        hint="a person looks at what it did and says so with `remit runs resolve`",
    )


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """One call under way, and those who wait for it.

    `normal` is the call that began it; others join only if they are equal to it.
    `guarded` is true while a transaction or a run of it is under way, and for good once the
    call's own intent is being committed: a cancel then no longer ends the call's task, it only
    marks it withdrawn and, where `stoppable`, stops the run.
    """

    normal: NormalCall
    task: asyncio.Task[Reply] | None = None
    decision: Permitted | None = None
    guarded: bool = False
    stoppable: bool = False
    withdrawn: bool = False
    stop: Stop = field(default_factory=Stop)
    waiting: int = 0
    listeners: list[Progress] = field(default_factory=list)

    def withdraw(self) -> None:
        """Nobody waits any more."""
        self.withdrawn = True
        if not self.guarded and self.task is not None:
            self.task.cancel()
        elif self.stoppable:
            self.stop.set()

    def release(self) -> None:
        """From here a cancel ends the call again; one that came meanwhile ends it now.

        Raises:
            Refused: `cancelled`.
        """
        self.guarded = False
        if self.withdrawn:
            raise withdrawn()

    def serves(self, normal: NormalCall) -> bool:
        """Whether an equal call may join: it is not being cancelled.

        Raises:
            Refused: `idempotency_mismatch` if it shares the key and is another call.
        """
        if self.task is None or self.task.done():
            return False
        if self.normal.digest != normal.digest or _groups(self.normal) != _groups(normal):
            raise spent(None) if _answers(normal) else mismatch()
        return self.guarded or not self.withdrawn

    @property
    def wanted(self) -> bool:
        """Whether anyone who waits asked for progress."""
        return any(listener.wanted for listener in self.listeners)

    async def report(self, message: str, amount: Amount | None = None) -> None:
        """Tell all who wait (this is the `Progress` that the path reports to)."""
        for listener in tuple(self.listeners):
            await listener.report(message, amount)


class Flights:
    """The calls under way in this gateway, so that an equal one can join."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._running: set[Flight] = set()

    @staticmethod
    def key(normal: NormalCall) -> str | None:
        """What equal calls share; None for a call that is never joined.

        Two credentials of one subject may have different groups: what policy allows to one is
        not handed to the other.
        """
        if normal.call.idempotency_key is not None:
            scope = (normal.call.caller.id, normal.tool.name, normal.call.idempotency_key)
            return "\n".join(scope)
        if normal.tool.effect is Effect.READ:
            return None
        return "\n".join((normal.digest, *_groups(normal)))

    async def fly(
        self,
        normal: NormalCall,
        progress: Progress,
        begin: Callable[[Flight], Awaitable[Reply]],
    ) -> Reply:
        """Begin the call, or join the equal one that is under way, and wait for its reply.

        If whoever waits is cancelled and nobody else waits, the call is withdrawn before its
        intent, and stopped or left to finish after it.

        Raises:
            Refused: `idempotency_mismatch` if another call with the same key is under way.
        """
        key = self.key(normal)
        flight = None if key is None else self._flights.get(key)
        if flight is None or not flight.serves(normal):
            flight = Flight(normal=normal)
            flight.task = asyncio.ensure_future(begin(flight))
            self._running.add(flight)
            if key is not None:
                self._flights[key] = flight
            flight.task.add_done_callback(partial(self._landed, key, flight))
        return await self._wait(flight, flight.task, progress)

    def _landed(self, key: str | None, flight: Flight, _: object) -> None:
        self._running.discard(flight)
        if key is not None and self._flights.get(key) is flight:
            del self._flights[key]

    async def _wait(
        self, flight: Flight, task: asyncio.Task[Reply] | None, progress: Progress
    ) -> Reply:
        if task is None:
            raise RuntimeError("a flight without a task")
        flight.withdrawn = flight.stop.asked()
        flight.waiting += 1
        flight.listeners.append(progress)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if flight.waiting == 1 and not task.done():
                flight.withdraw()
            raise
        finally:
            flight.waiting -= 1
            flight.listeners.remove(progress)

    async def drain(self, seconds: float) -> None:
        """Withdraw what has no intent yet, then wait for the rest for at most so long."""
        for flight in tuple(self._running):
            if flight.guarded:
                flight.withdrawn = True  # a preview then goes no further; a run goes on
            else:
                flight.withdraw()
        tasks = [flight.task for flight in self._running if flight.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


def _answers(normal: NormalCall) -> bool:
    """Whether it answers the question of a run, which is done once."""
    return normal.round is not None and normal.round.run_id is not None


def _groups(normal: NormalCall) -> list[str]:
    return sorted(normal.call.caller.groups)


def withdrawn() -> Refused:
    return Refused(Code.CANCELLED, "the call was withdrawn before it was carried out")


def mismatch() -> Refused:
    return Refused(
        Code.IDEMPOTENCY_MISMATCH,
        "this idempotency key was used for another call",
        hint="use a new key for a new call",
    )
