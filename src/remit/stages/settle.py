"""Step 9: what came of the run is judged and written, in one transaction.

A command that ended by itself has an outcome. One that was ended from outside in the middle of a
write has none that Remit can know: that is `unknown`, a state of its own, and the same call is
refused until a person says what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult

from remit.canonical import parse
from remit.errors import Code, Refused
from remit.model import (
    Effect,
    Ending,
    Frozen,
    Grant,
    Outcome,
    PlanKind,
    Planned,
    ResultKind,
    RunResult,
    RunState,
    Tool,
)
from remit.ports import ArgumentCheck, Clock, Ledger
from remit.stages.record import outcome_entry
from remit.stages.respond import (
    as_text,
    block_shown,
    content_of,
    failure_content,
    masked,
    printable,
)
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
    ledger: Ledger,
    clock: Clock,
    check: ArgumentCheck,
    *,
    planned: Planned,
    grant: Grant,
    result: RunResult,
) -> tuple[Outcome, int]:
    """Judge and write the outcome; give it with its index in the log.

    Raises:
        LedgerFault: the outcome could not be written; the run stays open and is closed as
            unknown at the next start.
    """
    tool = planned.admitted.normal.tool
    effect = Effect.READ if planned.plan.kind is PlanKind.PREVIEW else tool.effect
    state, code = judge(effect, result)
    reply: Frozen | None = None
    if planned.plan.kind is PlanKind.MAIN:
        state, code, reply = _reply(check, tool, state, code, result)
    outcome = Outcome(
        run_id=grant.run_id,
        fence=grant.fence,
        state=state,
        code=code,
        result=result,
        reply=reply,
        settled_ms=clock.now_ms(),
    )
    annotate(run_id=grant.run_id, outcome=state.value, ending=result.ending.value)
    index = await ledger.settle(outcome, outcome_entry(planned, outcome))
    return outcome, index


def judge(effect: Effect, result: RunResult) -> tuple[RunState, Code | None]:
    """What a run's ending says about its effect."""
    if result.ending is Ending.NOT_STARTED:
        return RunState.NEVER_STARTED, _why_not_started(result)
    if result.ending is Ending.EXIT:
        if result.exit_code == 0:
            return RunState.SUCCEEDED, None
        return RunState.FAILED, Code.RUN_FAILED
    code = _ENDED_BY_FORCE[result.ending]
    if effect is Effect.READ and result.ending is not Ending.LOST:
        return RunState.FAILED, code
    return RunState.UNKNOWN, code


_BEFORE_START = (Code.FROZEN, Code.DEADLINE_PASSED, Code.CANCELLED)


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


def _reply(
    check: ArgumentCheck, tool: Tool, state: RunState, code: Code | None, result: RunResult
) -> tuple[RunState, Code | None, Frozen]:
    """The content that is stored and answered; output that is not what the tool says is an error.

    A write whose output is invalid still happened: its state stays, only its reply says so.
    """
    if state is not RunState.SUCCEEDED:
        return state, code, failure_content(tool, state, code or Code.RUN_FAILED, result)
    if result.stdout_truncated:
        reply = failure_content(tool, state, Code.OUTPUT_TOO_LARGE, result)
        return state, Code.OUTPUT_TOO_LARGE, reply
    try:
        return state, None, _checked(check, tool, result.stdout)
    except Exception:  # noqa: BLE001 - no output whatever may leave a run without its outcome
        reply = failure_content(tool, state, Code.OUTPUT_INVALID, result)
        return state, Code.OUTPUT_INVALID, reply


def _checked(check: ArgumentCheck, tool: Tool, stdout: bytes) -> Frozen:
    match tool.result:
        case ResultKind.TEXT:
            return content_of([{"type": "text", "text": printable(stdout)}], None, error=False)
        case ResultKind.JSON:
            value = parse(stdout)
            _check_schema(check, tool, value)
            value = masked(value)
            return content_of([{"type": "text", "text": as_text(value)}], value, error=False)
        case ResultKind.MCP:
            document = parse(stdout)
            result = CallToolResult.model_validate(document, strict=False)
            if not result.is_error:
                _check_schema(check, tool, result.structured_content)
            dumped = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            return content_of(
                [block_shown(block) for block in dumped["content"]],
                masked(dumped.get("structuredContent")),
                error=bool(result.is_error),
            )


def _check_schema(check: ArgumentCheck, tool: Tool, value: Any) -> None:
    """Raise ValueError when the tool declares an output schema and the value is not of it."""
    if not check.fits(tool, value):
        raise ValueError("output schema")
