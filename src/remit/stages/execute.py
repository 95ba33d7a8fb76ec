"""Step 8: a grant is carried out in one runner, made for it and destroyed after it.

The runner is told what the ledger's stored bytes of the plan say. `start` in the ledger is a
compare-and-set that checks freeze, fence and deadline once more; the command is let go only
after it. Where nothing is made for a run, its intent wrote the start, and `start` hands it over.
A run with credentials is lent them in between. Whatever happens, the runner is destroyed, what was
lent is taken back, and the evidence collected.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from dataclasses import dataclass, replace

from remit.backends import Backends
from remit.errors import Code, LedgerFault, Refused, RemitError, RunnerFault
from remit.model import (
    Amount,
    Constraints,
    Destruction,
    Ending,
    Grant,
    Lease,
    Lent,
    Loan,
    RunResult,
    RunSpec,
)
from remit.ports import Clock, Progress, Runner
from remit.stages.admit import frozen
from remit.stages.lend import Returned, Searched, close_files, lend, scrubbed, take_back, with_loans
from remit.stages.live import HELD_BACK, HOLDS_CREDENTIAL, REDACTED, Live
from remit.stages.output import streamed
from remit.stages.run_spec import run_spec
from remit.telemetry import logger

log = logger()

STOP_GRACE_S = 2.0
"""Time between TERM and KILL when a run is stopped."""

MAX_PROGRESS_LINE = 500
"""Longest line of output that is passed on as a progress message, in characters."""


class Stop:
    """Asked for once, by a cancel; acts at once, or as soon as there is something to stop."""

    __slots__ = ("_act", "_asked")

    def __init__(self) -> None:
        self._asked = False
        self._act: Callable[[], None] | None = None

    def asked(self) -> bool:
        """Whether it was asked for."""
        return self._asked

    def set(self) -> None:
        self._asked = True
        if self._act is not None:
            self._act()
            self._act = None

    def then(self, act: Callable[[], None]) -> None:
        """What to do when it is asked for; done at once if it was already."""
        if self._asked:
            act()
        else:
            self._act = act

    def forget(self) -> None:
        """There is nothing to stop any more."""
        self._act = None


class Unheard:
    """A progress listener to whom nothing of a run may be told."""

    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None:
        return None


async def execute(
    b: Backends,
    grant: Grant,
    *,
    gateway: str,
    constraints: Constraints,
    held_back: bool = False,
    progress: Progress,
    stop: Stop,
    live: Live,
) -> RunResult:
    """Run the granted plan once, and give what came of it with the evidence of destruction.

    Args:
        constraints: those of the decision that the grant was made from: where they redact or
            withhold output, none of it is told as it comes.
        held_back: policy looks at the result first, so none of it is told before.
        stop: set by a cancel that should end the run: TERM, a grace, then KILL; nothing is
            started once it is set.
        live: told of the run when it is let go; whoever settles it tells that it is over.

    Raises nothing but cancellation: what the ledger, the runner, the keeper or the command did is
    in the result. `not_started` says that the command was certainly never let go; whatever went
    wrong after that is `lost`.
    """
    lease = Lease(
        id=grant.run_id, gateway=gateway, fence=grant.fence, deadline_ms=grant.deadline_ms
    )
    live.expect(lease)
    run = _Run(b, lease, _Watchers(progress, constraints, held_back, live), stop)
    try:
        result = await run.through(grant)
    except BaseException:
        await asyncio.shield(run.undo())
        raise
    return await run.gone(result)


@dataclass(frozen=True, slots=True)
class _Watchers:
    """Who hears of a run as it goes, and whether they may."""

    progress: Progress
    constraints: Constraints
    held_back: bool
    live: Live

    async def began(self, lease: Lease, lent: Lent) -> Progress:
        """The run is about to be let go; gives the one who is told what it writes."""
        secret = HOLDS_CREDENTIAL if lent.files else None
        hidden = REDACTED if self.constraints.output_redact else secret
        self.live.began(lease, HELD_BACK if self.held_back and hidden is None else hidden)
        if self.held_back or not streamed(self.constraints) or not self.progress.wanted:
            return Unheard()
        if secret is None:
            return self.progress
        await self.progress.report(secret)
        return Unheard()


class _Run:
    """One run, from its runner to the evidence that it is gone."""

    def __init__(self, b: Backends, lease: Lease, watchers: _Watchers, stop: Stop) -> None:
        self._b = b
        self._lease = lease
        self._watchers = watchers
        self._stop = stop
        self._lends = False
        self._loans: tuple[Loan, ...] = ()

    async def through(self, grant: Grant) -> RunResult:
        """Make the runner, lend, let go, wait for the end."""
        b, lease = self._b, self._lease
        spec = await _prepared(b, grant, lease=lease, stop=self._stop)
        if isinstance(spec, RunResult):
            return spec
        lent = Lent()
        if spec.credentials:
            self._lends = True
            try:
                lent = await lend(b.credentials, lease)
                await _look_again(b, grant)
            except BaseException as fault:
                close_files(lent)
                if not isinstance(fault, Exception):
                    raise
                return _not_started(lease, fault)
            self._loans = lent.loans
            if self._stop.asked():
                close_files(lent)
                return _cancelled()
        heard = await self._watchers.began(lease, lent)
        if self._lends and heard.wanted:
            heard = Searched(heard, b.credentials, lease)
        result = await _carry_out(b.runner, lease, lent, heard, self._stop)
        return await scrubbed(b.credentials, lease, result) if self._lends else result

    async def gone(self, result: RunResult) -> RunResult:
        """The result with the evidence that the runner and what it was lent are gone."""
        if not self._lends:
            return replace(result, destruction=await self._destroy())
        evidence, returned = await asyncio.gather(self._destroy(), self._take_back())
        return replace(result, destruction=with_loans(evidence, returned), loans=returned.loans)

    async def undo(self) -> None:
        """Leave nothing of a run whose result nobody waits for any more."""
        await asyncio.gather(self._destroy(), *([self._take_back()] if self._lends else []))

    async def _take_back(self) -> Returned:
        return await take_back(self._b.credentials, self._lease, self._loans, self._b.clock)

    async def _destroy(self) -> Destruction:
        return await _destroy(self._b.runner, self._lease, self._b.clock)


async def _prepared(b: Backends, grant: Grant, *, lease: Lease, stop: Stop) -> RunSpec | RunResult:
    """Make the runner and win the compare-and-set; a result only if the command may not go.

    Both at once, for neither lets the command go and each takes about as long as the other. A
    runner that took longer is let go only after another look at freeze and deadline.
    """
    making: asyncio.Future[None] | None = None
    try:
        text = await b.ledger.plan_text(grant.plan.hash)
        if text is None:
            raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the plan of a grant is not in the ledger")
        spec = run_spec(text, grant.plan.hash, approved=grant.approval_id is not None)
        if stop.asked():
            return _cancelled()
        if grant.started:
            await b.runner.provision(lease, spec)
            await b.ledger.start(grant, b.clock.now_ms())
            return spec
        making = asyncio.ensure_future(b.runner.provision(lease, spec))
        making.add_done_callback(lambda made: made.cancelled() or made.exception())
        await b.ledger.start(grant, b.clock.now_ms())
        if not making.done():
            await making
            await _look_again(b, grant)
        await making
    except Exception as fault:  # noqa: BLE001 - whatever it is, the command was not let go
        return _not_started(lease, fault)
    finally:
        if making is not None and not making.done():
            await asyncio.wait([making])  # it has to be made before it can be destroyed
    if stop.asked():
        return _cancelled()
    return spec


def _cancelled() -> RunResult:
    return RunResult(ending=Ending.NOT_STARTED, limits_hit=(Code.CANCELLED.value,))


async def _look_again(b: Backends, grant: Grant) -> None:
    """What the compare-and-set looked at, for it was some time ago.

    Raises:
        Refused: `frozen` or `deadline_passed`.
    """
    if await b.ledger.frozen() is not None:
        raise frozen()
    if grant.deadline_ms <= b.clock.now_ms():
        raise Refused(Code.DEADLINE_PASSED, "the run's deadline passed before it started")


async def _carry_out(
    runner: Runner, lease: Lease, lent: Lent, progress: Progress, stop: Stop
) -> RunResult:
    try:
        await runner.start(lease, lent.files)
    except RunnerFault as fault:
        return _lost(lease, fault) if fault.started else _not_started(lease, fault)
    except Exception as fault:  # noqa: BLE001 - it may have been let go
        return _lost(lease, fault)
    stopping: list[asyncio.Future[None]] = []
    stop.then(lambda: stopping.append(asyncio.ensure_future(_stop(runner, lease))))
    watching = asyncio.ensure_future(_watch(runner, lease, progress)) if progress.wanted else None
    try:
        result = await runner.collect(lease)
        if watching is not None:
            await watching
    except Exception as fault:  # noqa: BLE001 - it was let go, and nobody saw its end
        return _lost(lease, fault)
    finally:
        stop.forget()
        for task in (*stopping, *([watching] if watching is not None else [])):
            task.cancel()
    if stop.asked() and result.ending is Ending.SIGNAL:
        return replace(result, ending=Ending.CANCELLED)
    return result


async def _stop(runner: Runner, lease: Lease) -> None:
    try:
        await runner.stop(lease, grace_s=STOP_GRACE_S)
    except Exception as fault:  # its deadline still ends it
        log.warning("run_not_stopped", run=lease.id, exc_info=fault)


async def _destroy(runner: Runner, lease: Lease, clock: Clock) -> Destruction:
    """Destroy the runner. Where that fails, what ran still ran: the evidence says what is not known."""
    try:
        return await runner.destroy(lease)
    except Exception as fault:  # the outcome of the run must not be lost over it
        log.critical("runner_not_destroyed", run=lease.id, exc_info=fault)
    return Destruction(
        lease_id=lease.id,
        processes_left=-1,
        cgroup_removed=False,
        directory_removed=False,
        mounts_left=-1,
        destroyed_ms=clock.now_ms(),
        took_us=0,
        note="destroying it failed, so nothing is known (-1); a sweep looks again",
    )


def _not_started(lease: Lease, fault: Exception) -> RunResult:
    log.warning("run_not_started", run=lease.id, exc_info=fault)
    return RunResult(ending=Ending.NOT_STARTED, stderr=_why(fault), limits_hit=_code(fault))


def _lost(lease: Lease, fault: Exception) -> RunResult:
    log.error("run_lost", run=lease.id, exc_info=fault)
    return RunResult(ending=Ending.LOST, limits_hit=_code(fault))


def _why(fault: Exception) -> bytes:
    """What operators read of it; no caller does."""
    return str(fault).encode() if isinstance(fault, RemitError) else b""


def _code(fault: Exception) -> tuple[str]:
    return (fault.code.value if isinstance(fault, RemitError) else Code.INTERNAL.value,)


async def _watch(runner: Runner, lease: Lease, progress: Progress) -> None:
    """Pass on what a server reports, and of a command each finished line of standard error."""
    lines = Lines(MAX_PROGRESS_LINE)
    try:
        async for frame in runner.stream(lease):
            if frame.told is not None:
                await progress.report(frame.told.words, frame.told.amount)
            elif frame.channel.value == "stderr":
                for line in lines.feed(frame.data):
                    await progress.report(line)
    except Exception as fault:  # the run and its outcome do not depend on it
        log.warning("progress_lost", run=lease.id, exc_info=fault)


class Lines:
    """Cuts a byte stream into lines of bounded length."""

    def __init__(self, limit: int) -> None:
        self._decoder: Callable[[bytes], str] = codecs.getincrementaldecoder("utf-8")(
            "replace"
        ).decode
        self._limit = limit
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are finished by this data, without empty ones."""
        *lines, rest = (self._rest + self._decoder(data)).split("\n")
        self._rest = rest[: self._limit]
        return [line[: self._limit] for line in lines if line.strip()]
