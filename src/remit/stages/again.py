"""Step 2, repeats: a stored result is given as policy lets results back now.

A result is kept for as long as its key is known, and policy may have another rule about results by
then, or one where it had none. So the rule in force is asked before it is given, about what was
kept of it. It can only be narrowed: what was withheld then stays withheld.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from remit.backends import Backends
from remit.canonical import encode
from remit.errors import Code
from remit.model import (
    AdmittedCall,
    Constraints,
    Ending,
    Frozen,
    Limits,
    Method,
    NormalCall,
    Plan,
    PlanKind,
    Planned,
    Repeat,
    ResultKind,
    Run,
    RunResult,
    RunState,
    Tool,
)
from remit.stages.output import output
from remit.stages.review import Review, Reviewed
from remit.stages.run_spec import run_spec
from remit.telemetry import logger

log = logger()


class Again:
    """Puts stored results to policy."""

    def __init__(self, backends: Backends, review: Review) -> None:
        self._b = backends
        self._review = review

    async def __call__(self, normal: NormalCall, earlier: Repeat) -> Repeat:
        """The stored result as the policy in force lets it back.

        Policy's answer is in the log before any of it is given. Nothing is asked where no policy
        has a rule about results, of a tool in shadow mode, or where nothing is stored.
        """
        resolved = earlier.run.resolved_as is not None
        if earlier.reply is None or resolved or not self._review.judges(normal.tool):
            return earlier
        result = as_result(normal.tool, earlier.run, earlier.reply)
        try:
            reviewed = await self._reviewed(normal, earlier.run, result)
            await self._b.ledger.append(reviewed.entries)
        except Exception:
            log.exception("result_not_judged", run=earlier.run.id)
            reviewed = Reviewed(withheld=True)
        return _narrowed(self._b, normal.tool, earlier, result, reviewed)

    async def _reviewed(self, normal: NormalCall, run: Run, result: RunResult) -> Reviewed:
        text = await self._b.ledger.plan_text(run.plan_hash)
        if text is None:
            raise LookupError("the plan of a run is not in the ledger")
        used = run.approval_id
        approval = None if used is None else await self._b.ledger.approval(used)
        planned = _planned(normal, run, text)
        return await self._review.again(planned, approval, run, result)


def _planned(normal: NormalCall, run: Run, text: bytes) -> Planned:
    """The plan that ran, as its stored bytes have it; its preview is not kept."""
    spec, facts = run_spec(text, run.plan_hash), json.loads(text)
    plan = Plan(
        kind=PlanKind.MAIN,
        text=text,
        hash=run.plan_hash,
        call_digest=run.call_digest,
        limits=Limits(**facts["limits"]),
        profile=spec.profile,
        egress=spec.egress,
        credentials=spec.credentials,
    )
    return Planned(
        admitted=AdmittedCall(normal=normal, limits=plan.limits),
        plan=plan,
        arguments=Frozen(encode(facts["arguments"])),
    )


def as_result(tool: Tool, run: Run, reply: Frozen) -> RunResult:
    """A stored reply as what a run gave, whose output would be answered in the same way."""
    return RunResult(
        ending=run.ending or Ending.EXIT, exit_code=run.exit_code, stdout=_printed(tool, run, reply)
    )


def _printed(tool: Tool, run: Run, reply: Frozen) -> bytes:
    stored: dict[str, Any] = reply.value()
    if (asks := stored.get("asks")) is not None:
        asked = {"inputRequests": asks["requests"], "requestState": asks["state"]}
        return encode({"resultType": "input_required", **asked})
    if not _gave(run) or tool.result is ResultKind.TEXT:
        texts = (each.get("text") for each in stored["content"])
        return "\n".join(each for each in texts if isinstance(each, str)).encode()
    if tool.result is ResultKind.JSON or tool.method is not Method.TOOLS_CALL:
        return encode(stored["structured"])
    found = {"content": stored["content"], "isError": stored["is_error"]}
    if stored["structured"] is not None:
        found["structuredContent"] = stored["structured"]
    return encode(found)


def _gave(run: Run) -> bool:
    """Whether the stored reply is the result itself, and not words about why there is none."""
    return run.state is RunState.SUCCEEDED and run.code is None


def _narrowed(
    b: Backends, tool: Tool, earlier: Repeat, result: RunResult, reviewed: Reviewed
) -> Repeat:
    run, reply = earlier.run, earlier.reply
    assert reply is not None
    terms = reviewed.constraints
    narrows = bool(terms.output_redact) or terms.output_content_types is not None
    if not narrows and not reviewed.keeps_back(run.state, result):
        return earlier
    question = "asks" in reply.value()
    if question:  # nothing of a question can be left out
        reviewed = Reviewed(withheld=True, decision=reviewed.decision)
    shown = output(
        b.arguments, tool, Constraints(), state=run.state, code=run.code, result=result,
        review=reviewed if _gave(run) else replace(reviewed, withheld=True),
    )  # fmt: skip
    code = run.code or (None if shown.code is None else Code.OUTPUT_WITHHELD)
    return replace(earlier, run=replace(run, code=code), reply=shown.reply)
