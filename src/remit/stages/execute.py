"""Step 8: a grant is carried out in one runner, made for it and destroyed after it.

The runner is told what the ledger's stored bytes of the plan say. `start` in the ledger is a
compare-and-set that checks freeze, fence and deadline once more; the command is let go only
after it. Whatever happens, the runner is destroyed and the evidence collected.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from dataclasses import replace

from remit.errors import Code, LedgerFault, RunnerFault
from remit.model import Ending, Grant, Lease, RunResult
from remit.ports import Clock, Ledger, Progress, Runner
from remit.stages.plan import run_spec

STOP_GRACE_S = 2.0
"""Time between TERM and KILL when a run is stopped."""

MAX_PROGRESS_LINE = 500
"""Longest line of output that is passed on as a progress message, in characters."""


class Stop:
    """Asked for once, by a cancel; acts at once, or as soon as there is something to stop."""

    __slots__ = ("_act", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._act: Callable[[], None] | None = None

    def set(self) -> None:
        self.is_set = True
        if self._act is not None:
            self._act()
            self._act = None

    def then(self, act: Callable[[], None]) -> None:
        """What to do when it is asked for; done at once if it was already."""
        if self.is_set:
            act()
        else:
            self._act = act

    def forget(self) -> None:
        """There is nothing to stop any more."""
        self._act = None


async def execute(
    runner: Runner,
    ledger: Ledger,
    clock: Clock,
    grant: Grant,
    *,
    gateway: str,
    progress: Progress,
    stop: Stop,
) -> RunResult:
    """Run the granted plan once, and give what came of it with the evidence of destruction.

    Args:
        stop: set by a cancel that should end the run: TERM, a grace, then KILL.

    Never raises for what the runner or the command does: that is in the result.

    Raises:
        Refused: the compare-and-set failed, so nothing was started.
        LedgerFault: the plan could not be read, or the start not be written; nothing was started.
    """
    text = await ledger.plan_text(grant.plan.hash)
    if text is None:
        raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the plan of a grant is not in the ledger")
    spec = run_spec(text, grant.plan.hash)
    lease = Lease(
        id=grant.run_id, gateway=gateway, fence=grant.fence, deadline_ms=grant.deadline_ms
    )
    try:
        try:
            await runner.provision(lease, spec)
        except RunnerFault as fault:
            result = _not_started(fault)
        else:
            await ledger.start(grant, clock.now_ms())
            result = await _carry_out(runner, lease, progress, stop)
    except BaseException:
        await asyncio.shield(runner.destroy(lease))
        raise
    evidence = await runner.destroy(lease)
    return replace(result, destruction=evidence)


async def _carry_out(runner: Runner, lease: Lease, progress: Progress, stop: Stop) -> RunResult:
    try:
        await runner.start(lease)
    except RunnerFault as fault:
        if fault.started:
            return RunResult(ending=Ending.LOST, limits_hit=(str(fault.code),))
        return _not_started(fault)
    stopping: list[asyncio.Future[None]] = []
    stop.then(
        lambda: stopping.append(asyncio.ensure_future(runner.stop(lease, grace_s=STOP_GRACE_S)))
    )
    watching = asyncio.ensure_future(_watch(runner, lease, progress)) if progress.wanted else None
    try:
        result = await runner.collect(lease)
        if watching is not None:
            await watching
    except RunnerFault as fault:
        return RunResult(ending=Ending.LOST, limits_hit=(str(fault.code),))
    finally:
        stop.forget()
        for task in (*stopping, *([watching] if watching is not None else [])):
            task.cancel()
    if stop.is_set and result.ending is Ending.SIGNAL:
        return replace(result, ending=Ending.CANCELLED)
    return result


def _not_started(fault: RunnerFault) -> RunResult:
    return RunResult(
        ending=Ending.NOT_STARTED, stderr=str(fault).encode(), limits_hit=(fault.code,)
    )


async def _watch(runner: Runner, lease: Lease, progress: Progress) -> None:
    """Pass each finished line of standard error on as a progress message."""
    lines = Lines(MAX_PROGRESS_LINE)
    async for frame in runner.stream(lease):
        if frame.channel.value == "stderr":
            for line in lines.feed(frame.data):
                await progress.report(line)


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
