"""Step 9: what came of the run is judged and written, in one transaction.

A command that ended by itself has an outcome. One that was ended from outside in the middle of a
write has none that Remit can know: that is `unknown`, a state of its own, and the same call is
refused until a person says what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from remit.backends import Backends
from remit.errors import Code, Refused
from remit.model import (
    Approved,
    Effect,
    Ending,
    Frozen,
    Grant,
    Outcome,
    PlanKind,
    Planned,
    ResultFile,
    RunResult,
    RunState,
)
from remit.stages.files import keep_files
from remit.stages.output import Output, output
from remit.stages.record import outcome_entry
from remit.stages.respond import with_files
from remit.stages.review import Review, Reviewed
from remit.telemetry import annotate

_ENDED_BY_FORCE: Mapping[Ending, Code] = {
    Ending.SIGNAL: Code.RUN_KILLED,
    Ending.OUT_OF_MEMORY: Code.RUN_OUT_OF_MEMORY,
    Ending.TIMED_OUT: Code.RUN_TIMED_OUT,
    Ending.OUTPUT_LIMIT: Code.OUTPUT_TOO_LARGE,
    Ending.CANCELLED: Code.CANCELLED,
    Ending.LOST: Code.OUTCOME_UNKNOWN,
}


async def settle(
    b: Backends,
    *,
    approved: Approved,
    grant: Grant,
    result: RunResult,
    review: Review,
) -> tuple[Outcome, int]:
    """Judge and write the outcome; give it with its index in the log.

    Args:
        approved: what the grant was made from.
        review: asked about the result, where a policy in force has anything to say of results.

    Raises:
        LedgerFault: the outcome could not be written; the run stays open and is closed as
            unknown at the next start.
    """
    planned = approved.decided.planned
    reads = planned.plan.kind is PlanKind.PREVIEW
    effect = Effect.READ if reads else planned.admitted.normal.tool.effect
    state, code = judge(effect, result)
    reviewed = await review(approved, grant.run_id, state, result)
    reply: Frozen | None = None
    files: tuple[ResultFile, ...] = ()
    if planned.plan.kind is PlanKind.MAIN:
        kept_back = reviewed.keeps_back(state, result)
        shown = _shown(b, approved, reviewed, state=state, code=code, result=result)
        code, reply, result = shown.code, shown.reply, shown.kept
        if result.files:
            files = await keep_files(b.artifacts, grant.run_id, result.files)
            reply = reply if kept_back else with_files(reply, files)
    outcome = Outcome(
        run_id=grant.run_id,
        fence=grant.fence,
        state=state,
        code=code,
        result=result,
        reply=reply,
        settled_ms=b.clock.now_ms(),
        files=files,
        review=reviewed.decision,
    )
    annotate(run_id=grant.run_id, outcome=state.value, ending=result.ending.value)
    index = await b.ledger.settle(outcome, outcome_entry(planned, outcome), reviewed.entries)
    return outcome, index


def _shown(
    b: Backends,
    approved: Approved,
    reviewed: Reviewed,
    *,
    state: RunState,
    code: Code | None,
    result: RunResult,
) -> Output:
    """What of a run of the call itself is answered, and what is kept."""
    return output(
        b.arguments,
        approved.decided.planned.admitted.normal.tool,
        approved.decided.decision.constraints,
        state=state,
        code=code,
        result=result,
        review=reviewed,
    )


def judge(effect: Effect, result: RunResult) -> tuple[RunState, Code | None]:
    """What a run's ending says about its effect."""
    if result.ending is Ending.NOT_STARTED:
        return RunState.NEVER_STARTED, _why_not_started(result)
    if result.ending is Ending.EXIT:
        if result.exit_code == 0:
            return RunState.SUCCEEDED, None
        return RunState.FAILED, Code.RUN_FAILED
    if result.ending in _OF_SERVERS:
        return _judge_server(effect, result)
    code = _ENDED_BY_FORCE[result.ending]
    if effect is Effect.READ and result.ending is not Ending.LOST:
        return RunState.FAILED, code
    return RunState.UNKNOWN, code


_OF_SERVERS = frozenset({Ending.ANSWERED, Ending.UNANSWERED, Ending.UNASKED})
_CODES = frozenset(code.value for code in Code)


def _judge_server(effect: Effect, result: RunResult) -> tuple[RunState, Code | None]:
    """A server that answered with an error says that it failed; of silence after a question that
    was sent, only a read is known to have changed nothing."""
    code = next((Code(met) for met in result.limits_hit if met in _CODES), None)
    if result.ending is Ending.ANSWERED:
        return (RunState.SUCCEEDED, None) if code is None else (RunState.FAILED, code)
    if result.ending is Ending.UNASKED or effect is Effect.READ:
        return RunState.FAILED, code or Code.UPSTREAM_GONE
    return RunState.UNKNOWN, code or Code.UPSTREAM_GONE


_BEFORE_START = (
    Code.FROZEN,
    Code.DEADLINE_PASSED,
    Code.CANCELLED,
    Code.CREDENTIAL_UNAVAILABLE,
    Code.CONSENT_REQUIRED,
)


def _why_not_started(result: RunResult) -> Code:
    met = (code for code in _BEFORE_START if code.value in result.limits_hit)
    return next(met, Code.RUNNER_UNAVAILABLE)


def unrecorded(planned: Planned, grant: Grant) -> Refused:
    """What a caller hears when a command was let go and its outcome could not be written."""
    if planned.plan.kind is PlanKind.PREVIEW:
        return Refused(
            Code.PREVIEW_FAILED,
            "the outcome of this action's preview could not be recorded; the action was not planned",
            run_id=grant.run_id,
        )
    return Refused(
        Code.OUTCOME_UNKNOWN,
        "the action was started, and what came of it could not be recorded",
        run_id=grant.run_id,
        plan_hash=grant.plan.hash,
        hint="a person has to look at what it did before it is tried again",
    )
