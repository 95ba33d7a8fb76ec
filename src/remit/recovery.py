"""What happens before a gateway serves again: no run of an earlier life stays open.

A run whose intent was written but that never started did nothing. One that had started may have
taken effect: its outcome is unknown, which refuses the same call until a person has looked. A
read, and a preview, leaves no effect to know of. Nothing is ever started again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from remit.backends import NoCredentials
from remit.errors import Code
from remit.model import Destruction, Effect, EntryDraft, Loan, Outcome, Run, RunState
from remit.ports import Clock, Credentials, Ledger, Runner
from remit.stages.evidence import destruction_public, left_entry, swept_entry
from remit.telemetry import LEFTOVERS, logger

MAX_SWEPT = 100
"""Runners that one sweep names in the log; more are counted."""

MAX_TOLD = 10_000

log = logger()


async def recover(
    ledger: Ledger, runner: Runner, clock: Clock, credentials: Credentials | None = None
) -> Sequence[Run]:
    """Remove what earlier runs left on this machine, then close every open run; give those.

    What was found of runs that were closed before, and loans that outlived their runs, is written
    down too.
    """
    found = await runner.sweep(frozenset())
    evidence = {one.lease_id: one for one in found}
    loans = await (credentials or NoCredentials()).sweep(frozenset())
    LEFTOVERS.inc(len(leftovers(tuple(evidence.values()))))
    closed: list[Run] = []
    while True:
        open_runs = await ledger.runs(
            states=frozenset({RunState.INTENDED, RunState.STARTED}), limit=500
        )
        if not open_runs:
            break
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
            await ledger.settle(outcome, _entry(run, outcome, evidence.pop(run.id, None)))
            log.warning("run_closed_after_restart", run=run.id, state=state.value)
            closed.append(run)
    await Sweeps(ledger).write(tuple(evidence.values()), loans, when="recovery")
    return closed


def leftovers(found: Sequence[Destruction]) -> Sequence[Destruction]:
    """What should not have been there any more: all but sessions that were ended whole."""
    return [each for each in found if each.session is None or not each.complete]


class Sweeps:
    """Writes into the log what sweeps found, each thing once as long as it stays the same.

    Args:
        ledger: where it is written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._told: OrderedDict[str, str] = OrderedDict()

    async def write(
        self, found: Sequence[Destruction], loans: Sequence[Loan], *, when: str
    ) -> None:
        """One entry for each of the first `MAX_SWEPT` runners, the rest counted; one for loans.

        What could not be removed is found again by every sweep: it is written again only when
        something about it has changed.
        """
        states = {each.lease_id: _state(each) for each in found}
        fresh = [each for each in found if self._new(each.lease_id, states[each.lease_id])]
        owed = {_loan_key(loan): str(loan) for loan in loans}
        due = [loan for loan in loans if self._new(_loan_key(loan), owed[_loan_key(loan)])]
        drafts = [swept_entry(each, when=when) for each in fresh[:MAX_SWEPT]]
        if len(fresh) > MAX_SWEPT or due:
            drafts.append(left_entry(when=when, more=len(fresh[MAX_SWEPT:]), loans=due))
        if drafts:
            await self._ledger.append(drafts)
            self._tell(states | owed)

    def _new(self, name: str, state: str) -> bool:
        return self._told.get(name) != state

    def _tell(self, states: Mapping[str, str]) -> None:
        for name, state in states.items():
            self._told[name] = state
            self._told.move_to_end(name)
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)


def _loan_key(loan: Loan) -> str:
    return f"loan {loan.ref} {loan.lent_ms} {loan.lease}"


def _state(evidence: Destruction) -> str:
    """What matters of it, without the times at which it was looked at."""
    facts = destruction_public(evidence)
    return str(
        [facts[name] for name in sorted(facts.keys() - {"destroyed_ms", "seen_ms", "took_us"})]
    )


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
