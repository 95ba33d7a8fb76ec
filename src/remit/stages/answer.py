"""Step 10, with what it needs: the receipt, the record of a refusal, and a line in the log file.

Every call ends here, and every refusal is written down before it is answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from remit.backends import Backends, PathSettings
from remit.canonical import encode
from remit.errors import Code
from remit.model import (
    Approved,
    Call,
    Frozen,
    NormalCall,
    Outcome,
    Receipt,
    Repeat,
    Reply,
    RunResult,
)
from remit.stages import respond
from remit.stages.again import Again
from remit.stages.asking import hinted
from remit.stages.consent import opens_pages
from remit.stages.consent_pages import ConsentRequired
from remit.stages.record import Record, refusal_entry
from remit.stages.review import Review
from remit.stages.rounds import Rounds
from remit.telemetry import CALLS, REFUSALS, annotate_call, logger, stage

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A plan that was carried out: what was decided, and what came of it."""

    approved: Approved
    outcome: Outcome
    result: RunResult
    index: int


class Answers:
    """Gives replies, and sees to it that what they say is in the log."""

    def __init__(self, backends: Backends, settings: PathSettings, review: Review) -> None:
        self._backends = backends
        self._again = Again(backends, review)
        self.rounds = Rounds(settings.state_key)
        self._unsafe = settings.unsafe
        self._asking = settings.questions_per_minute > 0

    async def finished(self, finished: Finished) -> Reply:
        """The reply to a call that ran, with the receipt of its outcome."""
        planned, outcome = finished.approved.decided.planned, finished.outcome
        with stage("respond"):
            reply = respond.finished(
                planned,
                outcome,
                finished.approved.decided.decision,
                await self._receipt(finished.index),
                unsafe=self._unsafe,
            )
            asked = self.rounds.question(
                planned.admitted.normal, outcome.run_id, outcome.reply, outcome.settled_ms
            )
            return replace(reply, question=asked)

    async def replayed(self, normal: NormalCall, earlier: Repeat) -> Reply:
        """The stored reply of an earlier run as policy lets it back now, with its receipt."""
        earlier = await self._again(normal, earlier)
        run = earlier.run
        index = run.outcome_index
        receipt = None if index is None else await self._receipt(index)
        reply = respond.replayed(run, earlier.reply, receipt, unsafe=self._unsafe)
        asked = self.rounds.question(normal, run.id, earlier.reply, run.settled_ms)
        return replace(reply, question=asked)

    async def _receipt(self, index: int) -> Receipt | None:
        try:
            return await self._backends.ledger.receipt(index)
        except Exception as fault:  # what ran has an outcome, with or without proof
            log.warning("no_receipt", index=index, exc_info=fault)
            return None

    async def refused(
        self, call: Call, normal: NormalCall | None, record: Record, exc: Exception
    ) -> Reply:
        """Whatever ended the path, as a reply, written down: as entries up to a rate per caller,
        beyond it as one counted entry per caller, code and minute."""
        refused = respond.as_refusal(exc)
        if self._asking:
            refused = hinted(refused)
        if refused.code is Code.INTERNAL:
            log.error("internal_error", call=call.id, exc_info=exc)
        REFUSALS.labels(refused.code.value).inc()
        ledger, now = self._backends.ledger, self._backends.clock.now_ms()
        try:
            if self._backends.rates.hit("refusal", call.caller.id) is not None:
                await ledger.count_refusal(call.caller.id, refused.code.value, now)
            else:
                drafts = record.take()
                if not (drafts and drafts[-1].public.get("verdict") == "deny"):
                    drafts = (*drafts, refusal_entry(call, normal, refused))
                await ledger.append(drafts)
        except Exception as fault:  # a refusal stands whether or not it is recorded
            log.critical("refusal_not_recorded", call=call.id, exc_info=fault)
        reply = respond.refusal(refused)
        if isinstance(refused, ConsentRequired):
            return replace(reply, question=refused.question)
        return reply

    def fit(self, call: Call, reply: Reply) -> Reply:
        """The reply; an error has Remit's own words as its structure, where it has none of the
        tool's and the tool has no schema for that place.

        Clients hold what stands there against the tool's output schema, of an error too, and would
        show that it does not fit instead of the error. `_meta` has the same words. A page to open is
        asked of no client that did not say that it can: the error's text names it.
        """
        question = reply.question
        if question is not None and question.page is not None and not opens_pages(call):
            reply = replace(reply, question=None)
        if not reply.is_error:
            return reply
        ours = Frozen(encode({"decision": dict(reply.decision)}))
        tool = self._backends.catalog.tool(call.tool_name)
        if tool is not None and tool.output_schema is not None:
            return replace(reply, structured=None) if reply.structured == ours else reply
        return reply if reply.structured is not None else replace(reply, structured=ours)

    def tell(self, call: Call, normal: NormalCall | None, reply: Reply) -> None:
        """One line for operators and two counters; nothing of what the caller sent."""
        name = "unknown" if normal is None else normal.tool.name
        code = str(reply.decision["code"])
        waiting = code == Code.APPROVAL_REQUIRED.value
        verdict = "waiting" if waiting else "error" if reply.is_error else "ok"
        CALLS.labels(name, verdict, code).inc()
        decision, run = reply.decision.get("decision_id"), reply.decision.get("run_id")
        found = None if normal is None else name
        annotate_call(found, call_id=call.id, code=code, decision_id=decision, run_id=run)
        log.info(
            "call",
            call=call.id,
            tool=name,
            code=code,
            decision=decision,
            run=run,
            ms=self._backends.clock.now_ms() - call.received_ms,
        )
