"""What happens before a gateway serves again: no run of an earlier life stays open.

A run whose intent was written but that never started did nothing. One that had started may have
taken effect: its outcome is unknown, which refuses the same call until a person has looked. A
read, and a preview, leaves no effect to know of. Nothing is ever started again.
"""

from __future__ import annotations

from collections.abc import Sequence

from remit.errors import Code
from remit.model import Destruction, Effect, EntryDraft, Outcome, Run, RunState
from remit.ports import Clock, Ledger, Runner
from remit.stages.evidence import destruction_public
from remit.telemetry import LEFTOVERS, logger

log = logger()


async def recover(ledger: Ledger, runner: Runner, clock: Clock) -> Sequence[Run]:
    """Remove what earlier runs left on this machine, then close every open run; give those."""
    evidence = {one.lease_id: one for one in await runner.sweep(frozenset())}
    LEFTOVERS.inc(len(evidence))
    closed: list[Run] = []
    while True:
        open_runs = await ledger.runs(
            states=frozenset({RunState.INTENDED, RunState.STARTED}), limit=500
        )
        if not open_runs:
            return closed
        for run in open_runs:
            state, code = became(run)
            outcome = Outcome(
                run_id=run.id,
                fence=run.fence,
                state=state,
                code=code,
                result=None,
                reply=None,
                settled_ms=clock.now_ms(),
            )
            await ledger.settle(outcome, _entry(run, outcome, evidence.get(run.id)))
            log.warning("run_closed_after_restart", run=run.id, state=state.value)
            closed.append(run)


def became(run: Run) -> tuple[RunState, Code]:
    """What is known of an open run whose gateway died."""
    if run.state is RunState.INTENDED:
        return RunState.NEVER_STARTED, Code.RUN_KILLED
    if run.effect is Effect.READ:
        return RunState.FAILED, Code.RUN_KILLED
    return RunState.UNKNOWN, Code.OUTCOME_UNKNOWN


def _entry(run: Run, outcome: Outcome, evidence: Destruction | None) -> EntryDraft:
    return EntryDraft(
        event="call.outcome",
        public={
            "run": run.id,
            "kind": run.kind.value,
            "plan_hash": run.plan_hash,
            "tool": {"name": run.tool_name},
            "fence": run.fence,
            "state": outcome.state.value,
            "code": None if outcome.code is None else outcome.code.value,
            "ending": "lost",
            "recovered": True,
            "destruction": None if evidence is None else destruction_public(evidence),
        },
    )
