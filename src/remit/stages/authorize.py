"""Step 5: policy answers the plan. Anything but a well-formed allow or require_approval is a deny.

Constraints narrow the plan by making a new one, which is validated, previewed again, hashed and
put to policy once more. If that answer would narrow further, policy contradicts itself and the
call is denied. At most one round; approval and grant name only the final plan.

A plan in shadow mode is put to policy and recorded like any other, and goes on as it was made,
whatever the answer is: denied, failed, narrowed or to be agreed to by people. Only what policy says
is left aside; all else that keeps a plan from running still does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

from remit.document import call_document
from remit.errors import Code, Refused
from remit.model import (
    Allow,
    Approval,
    Decided,
    Decision,
    Deny,
    Permitted,
    PlanKind,
    Planned,
    Reason,
    RequireApproval,
    Unenforced,
)
from remit.ports import ArgumentCheck, Clock, Policy
from remit.stages.history import Histories
from remit.stages.means import Means
from remit.stages.narrow import Terms, narrow
from remit.stages.oblige import Oblige
from remit.stages.plan import printed, terms_of
from remit.stages.record import Record, decision_entry
from remit.telemetry import POLICY_FAULTS, UNENFORCED, annotate

Replan = Callable[[Terms], Awaitable[Planned]]
"""Makes the plan again from narrowed terms, naming the plan it comes from."""


class Authorize:
    """Puts plans to policy and records each answer."""

    def __init__(
        self,
        policy: Policy,
        check: ArgumentCheck,
        means: Means,
        clock: Clock,
        *,
        histories: Histories,
        oblige: Oblige,
        shadows: bool = True,
    ) -> None:
        """
        Args:
            shadows: whether plans in shadow mode go on; where nothing is carried out they need
                not, and the answer is the one that would hold if it were enforced.
        """
        self._policy = policy
        self._check = check
        self._means = means
        self._clock = clock
        self._histories = histories
        self._oblige = oblige
        self._shadows = shadows

    async def __call__(self, planned: Planned, record: Record, replan: Replan) -> Decided:
        """The plan that policy permits: the one given, or one narrowed from it.

        Raises:
            Refused: `policy_denied` or the code of the fault; `argument_out_of_bounds`,
                `constraint_widens`, `runner_degraded`, `runner_lacks`, `step_up_required`,
                `policy_unsupported`, `policy_inconsistent`.
        """
        if self._shadows and in_shadow(planned):
            return Decided(planned=planned, decision=await self._watched(planned, record))
        decision = await self.ask(planned, record)
        terms = self._narrow(planned, decision)
        if terms == terms_of(planned):
            self._check_final(planned, decision)
            return Decided(planned=planned, decision=decision)
        self._check_narrowed(planned, terms)
        final = await replan(terms)
        return Decided(planned=final, decision=await self.confirm(final, record))

    async def confirm(
        self, planned: Planned, record: Record, approval: Approval | None = None
    ) -> Permitted:
        """Policy's answer to a plan that was narrowed, or agreed to: it has to be as it is now.

        Raises:
            Refused: as `__call__`; `policy_inconsistent` if policy would narrow it further.
        """
        decision = await self.ask(planned, record, approval)
        if self._narrow(planned, decision) != terms_of(planned):
            raise _refused(
                decision,
                Code.POLICY_INCONSISTENT,
                "policy narrowed the plan and then wanted it narrower still"
                if approval is None
                else "policy wants the plan narrower than the one that people agreed to",
            )
        self._check_final(planned, decision)
        return decision

    async def _watched(self, planned: Planned, record: Record) -> Unenforced:
        """Policy's answer to a plan in shadow mode, recorded as not enforced.

        Raises:
            Refused: `runner_unavailable`, `runner_lacks` and the like: what this machine cannot
                give does not depend on policy.
        """
        decision = Unenforced(answer=await self._asked(planned, None))
        record.add(decision_entry(planned, decision))
        UNENFORCED.labels(decision.verdict).inc()
        _count_fault(decision.answer)
        self._check_given(planned, decision)
        return decision

    async def ask(
        self, planned: Planned, record: Record, approval: Approval | None = None
    ) -> Permitted:
        """Policy's answer to exactly this plan, with the approval it has, if any.

        Raises:
            Refused: policy denied, or gave no usable answer, which is the same.
        """
        decision = await self._asked(planned, approval)
        record.add(decision_entry(planned, decision))
        _count_fault(decision)
        match decision:
            case Allow() | RequireApproval():
                return decision
            case Deny():
                self._oblige.denied(planned, decision)
                raise denied(decision)
            case _:
                assert_never(decision)

    async def _asked(self, planned: Planned, approval: Approval | None) -> Decision:
        call = planned.admitted.normal.call
        document = call_document(
            normal=planned.admitted.normal,
            plan=planned.plan,
            capabilities=self._means.runner(planned.plan.profile),
            profiles=self._means.alternatives(planned.plan.profile),
            now_ms=self._clock.now_ms(),
            arguments=planned.arguments,
            preview=planned.preview,
            approvals=() if approval is None else (approval,),
            history=await self._histories.of(call.caller, call.claims),
        )
        decision = await self._policy.decide(document, decision_id=self._clock.new_id("dec"))
        annotate(decision_id=decision.evaluation.decision_id, plan_hash=planned.plan.hash)
        return decision

    def _narrow(self, planned: Planned, decision: Permitted) -> Terms:
        normal = planned.admitted.normal
        try:
            return narrow(
                decision.constraints,
                terms_of(planned),
                supplied=frozenset(normal.call.arguments),
                profiles=self._means.profiles,
                tiers=self._means.tiers,
                result=printed(planned),
                schema=normal.tool.input_schema,
            )
        except Refused as refused:
            raise _refused(
                decision, refused.code, refused.message, place=refused.place, hint=refused.hint
            ) from None

    def _check_final(self, planned: Planned, decision: Permitted) -> None:
        """What policy gave, this machine's runner has to be able to give (and to bound); what it
        obliges to must be possible."""
        self._oblige.check(planned, decision)
        self._check_given(planned, decision)

    def _check_given(self, planned: Planned, decision: Permitted) -> None:
        lack = self._means.lack(planned.plan)
        if lack is not None:
            raise _refused(decision, lack.code, lack.message, hint=lack.hint)

    def _check_narrowed(self, planned: Planned, narrowed: Terms) -> None:
        """A forced value must be one that the tool's schema allows, in the same environment."""
        tool = planned.admitted.normal.tool
        again = self._check.normalise(tool, narrowed.arguments.value())
        named = tool.environment.argument
        moved = named is not None and (
            again.value().get(named) != planned.arguments.value().get(named)
        )
        if again != narrowed.arguments or moved:
            raise Refused(
                Code.CONSTRAINT_WIDENS, "policy forces an argument to a value the tool cannot take"
            )


def in_shadow(planned: Planned) -> bool:
    """Whether this plan goes on whatever policy says; a preview's never does."""
    return planned.plan.kind is PlanKind.MAIN and planned.admitted.normal.tool.shadow


def _count_fault(decision: Decision) -> None:
    if isinstance(decision, Deny) and decision.code is not Code.POLICY_DENIED:
        POLICY_FAULTS.labels(decision.code.value).inc()


def denied(decision: Deny) -> Refused:
    """The refusal of a denial, in words that policy meant for the caller."""
    return _refused(
        decision,
        decision.code,
        _said(decision.reasons) if decision.code is Code.POLICY_DENIED else _FAULT,
        detail="; ".join(f"{reason.code}: {reason.message}" for reason in decision.reasons)[:2000],
    )


_FAULT = "policy gave no usable answer, so the call is denied and nothing ran"


def _said(reasons: tuple[Reason, ...]) -> str:
    told = [reason.message for reason in reasons if reason.audience == "user"]
    return "; ".join(told) if told else "policy does not allow this call"


def _refused(
    decision: Permitted | Deny,
    code: Code,
    message: str,
    *,
    place: str | None = None,
    hint: str | None = None,
    detail: str | None = None,
) -> Refused:
    told = (reason.path for reason in decision.reasons if reason.audience == "user")
    path = next(filter(None, told), None)
    return Refused(
        code,
        message,
        place=place or path,
        hint=hint,
        decision_id=decision.evaluation.decision_id,
        policy_revision=decision.evaluation.revision,
        detail=detail,
    )
