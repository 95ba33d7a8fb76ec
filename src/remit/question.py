"""Asking first: what policy says of a call that is not made, and asking people for access.

`Questions._judge` is the request path up to policy's answer and not a step further: the same
stages, but no preview, no approval, no intent, no runner, and nobody is told. It reads top to
bottom, as the path does.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from remit.errors import Code, Refused
from remit.model import (
    AccessRequest,
    Call,
    Decided,
    Deny,
    Frozen,
    NormalCall,
    Operator,
    Planned,
    Reply,
    Tool,
)
from remit.pipeline import Pipeline
from remit.stages import asking, respond
from remit.stages import plan as planning
from remit.stages.admit import admit
from remit.stages.asking import CAN_I, OWN
from remit.stages.authenticate import within
from remit.stages.authorize import Authorize
from remit.stages.narrow import Terms
from remit.stages.normalise import normalise
from remit.stages.oblige import Oblige
from remit.stages.record import Record
from remit.telemetry import CALLS, REFUSALS, logger

log = logger()


class _Unsaid(Oblige):
    """Checks obligations and performs none: what is only asked is told to nobody."""

    def denied(self, planned: Planned, decision: Deny) -> None:
        """Nothing is sent."""


@dataclass(slots=True)
class _Asked:
    """One question under way: the call that is asked about, and `normal` if it could be made.

    `written` says that it stands in the log already, in the transaction that filed a request.
    """

    call: Call
    record: Record
    normal: NormalCall | None = None
    written: bool = False


MAX_LISTS = 32
"""Lists that are kept with the gateway's own tools among them; those last asked for."""


class Questions:
    """Answers the calls of the gateway's own tools, where they are served."""

    def __init__(self, pipeline: Pipeline) -> None:
        b = pipeline.backends
        self._backends = b
        self._means = pipeline.means
        self._visibility = pipeline.visibility
        self._served = OWN if pipeline.settings.questions_per_minute else ()
        self._lists: OrderedDict[int, tuple[Sequence[Tool], Sequence[Tool]]] = OrderedDict()
        self._authorize = Authorize(
            b.policy,
            b.arguments,
            pipeline.means,
            b.clock,
            histories=pipeline.histories,
            oblige=_Unsaid(b.notifier, b.clock),
            shadows=False,
        )

    def serves(self, name: str) -> bool:
        """Whether a call of that name is one of these tools'."""
        return any(own.name == name for own in self._served)

    def beside(self, tools: Sequence[Tool]) -> Sequence[Tool]:
        """The tools that a caller sees, sorted by name, with these among them.

        A list that was given before is joined once: a page of it must not cost what all of it does.
        """
        known = self._lists.get(id(tools))
        if known is not None:
            self._lists.move_to_end(id(tools))
            return known[1]
        every = list(tools)
        for own in self._served:
            insort(every, own, key=lambda tool: tool.name)
        if isinstance(tools, tuple):  # kept with its list, so that its id names no other meanwhile
            self._lists[id(tools)] = (tools, every)
            if len(self._lists) > MAX_LISTS:
                self._lists.popitem(last=False)
        return every

    async def answer(self, call: Call) -> Reply:
        """The reply to a call of one of these tools. Raises nothing but cancellation."""
        asked = _Asked(call, Record())
        try:
            reply = await self._answer(call, asked)
        except Exception as exc:  # noqa: BLE001 - the last line: anything else is a refusal too
            reply = await self._refused(call, asked, exc)
        code = str(reply.decision["code"])
        CALLS.labels(call.tool_name, "error" if reply.is_error else "ok", code).inc()
        about = None if asked.normal is None else asked.normal.tool.name
        log.info("question", call=call.id, tool=call.tool_name, about=about, code=code)
        return reply

    async def judged(self, call: Call, asked_by: Operator) -> Decided:
        """Policy's answer to a call that an enforcement point outside asks about.

        Raises:
            Refused: as the call itself would be, up to policy's answer; LedgerFault: the question
                could not be written down, so there is no answer.
        """
        asked, code = _Asked(call, Record()), "ok"
        try:
            normal = asked.normal = await normalise(
                self._visibility, self._backends.arguments, call
            )
            return await self._judge(normal, asked.record)
        except Exception as exc:
            refused = respond.as_refusal(exc)
            if refused.code is Code.INTERNAL:
                log.exception("internal_error", call=call.id)
            code = refused.code.value
            raise refused from None
        finally:
            log.info("question", call=call.id, asked_by=asked_by.subject, code=code)
            await self._written(call, asked, code, asked_by)

    async def _answer(self, call: Call, asked: _Asked) -> Reply:
        b = self._backends
        within(b.rates, "question", call.caller.id)
        own = next(own for own in self._served if own.name == call.tool_name)
        said = b.arguments.normalise(own, call.arguments).value()
        about = replace(call, tool_name=said["tool"], arguments=said.get("arguments", {}))
        asked.call = about
        if own is CAN_I:
            reply = await self._can_i(about, asked)
        else:
            reply = await self._request(about, asked, said["reason"], whole="arguments" not in said)
        await self._written(call, asked, str(reply.decision["code"]))
        return reply

    # ------------------------------------------------------------------------------- what is asked

    async def _can_i(self, about: Call, asked: _Asked) -> Reply:
        # (2) the tool as this caller sees it, the arguments in their one spelling
        normal = asked.normal = await normalise(self._visibility, self._backends.arguments, about)
        # (3) to (5), as far as policy's answer
        try:
            decided = await self._judge(normal, asked.record)
        except Refused as why:
            return asking.refused(normal, asking.hinted(why))
        return asking.permitted(normal, decided)

    async def _request(self, about: Call, asked: _Asked, reason: str, *, whole: bool) -> Reply:
        """File a request for what policy denies.

        Args:
            whole: no arguments were given, so that the tool as a whole may be meant.
        """
        b = self._backends
        try:
            normal = asked.normal = await normalise(self._visibility, b.arguments, about)
        except Refused as why:
            if why.code is not Code.INVALID_ARGUMENTS or not whole:
                raise
            # There is no call to be judged; that the caller sees the tool has been checked.
            return await self._file(about, asked, reason, why)
        try:
            decided = await self._judge(normal, asked.record)
        except Refused as why:
            if why.code is not Code.POLICY_DENIED:
                raise  # nothing that a person could grant
            return await self._file(about, asked, reason, why)
        return asking.needless(decided)

    async def _judge(self, normal: NormalCall, record: Record) -> Decided:
        """Policy's answer to a call that is not made.

        Raises:
            Refused: as the call itself would be, up to policy's answer.
        """
        means = self._means
        # (3) is everything frozen?
        admitted = await admit(self._backends.ledger, normal)
        # (4) what would run, but for what a preview would show: none is run
        planned = planning.main_plan(admitted, means, terms=means.declared(admitted), preview=None)

        async def again(terms: Terms) -> Planned:
            came_from = planned.plan.hash
            return planning.main_plan(
                admitted, means, terms=terms, preview=None, narrowed_from=came_from
            )

        # (5) may it? policy answers, with all that this subject did before
        return await self._authorize(planned, record, again)

    # --------------------------------------------------------------------------- what is written

    async def _file(self, about: Call, asked: _Asked, reason: str, why: Refused) -> Reply:
        """File a request for what was refused so; with it goes what policy said, if it was asked."""
        b, normal = self._backends, asked.normal
        with asked.record.handed_over() as drafts:
            told = drafts[-1].public["reasons"] if drafts else (why.code.value,)
            request = AccessRequest(
                id=b.clock.new_id("req"),
                caller=about.caller,
                tool_name=about.tool_name,
                environment="" if normal is None else normal.environment,
                arguments=Frozen(b"{}") if normal is None else normal.arguments,
                reason=reason,
                decision_id=why.decision_id or "",
                codes=tuple(told),
                filed_ms=b.clock.now_ms(),
            )
            known = await b.ledger.file_request(request, asking.as_questions(drafts))
        asked.written = True
        return asking.filed(known, anew=known.id == request.id)

    async def _refused(self, call: Call, asked: _Asked, exc: Exception) -> Reply:
        refused = respond.as_refusal(exc)
        if refused.code is Code.INTERNAL:
            log.error("internal_error", call=call.id, exc_info=exc)
        REFUSALS.labels(refused.code.value).inc()
        try:
            await self._written(call, asked, refused.code.value)
        except Exception as fault:  # a refusal stands whether or not it is recorded
            log.critical("refusal_not_recorded", call=call.id, exc_info=fault)
        if refused.code is Code.UNKNOWN_TOOL:
            return asking.unknown(refused, asked.call.tool_name)
        return respond.refusal(refused)

    async def _written(
        self, call: Call, asked: _Asked, code: str, asked_by: Operator | None = None
    ) -> None:
        """Write the question down: as entries up to the rate for refusals, beyond it as a count."""
        if asked.written:
            return
        b = self._backends
        drafts = asking.as_questions(asked.record.take(), asked_by)
        if b.rates.hit("refusal", call.caller.id) is not None:
            await b.ledger.count_refusal(call.caller.id, "question", b.clock.now_ms())
            return
        await b.ledger.append(drafts or [asking.question_entry(call, asked.normal, code, asked_by)])
