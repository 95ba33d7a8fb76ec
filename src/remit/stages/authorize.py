"""Step 5: policy answers the plan. Anything but a well-formed allow or require_approval is a deny.

Constraints narrow the plan by making a new one, which is validated, previewed again, hashed and
put to policy once more. If that answer would narrow further, policy contradicts itself and the
call is denied. At most one round; approval and grant name only the final plan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

from remit.document import call_document
from remit.errors import Code, Refused
from remit.model import (
    Allow,
    Approval,
    Capabilities,
    Decided,
    Deny,
    Frozen,
    Limits,
    Permitted,
    Planned,
    Reason,
    RequireApproval,
)
from remit.ports import ArgumentCheck, Clock, Policy
from remit.stages.narrow import Narrowed, narrow
from remit.stages.record import Record, decision_entry
from remit.telemetry import POLICY_FAULTS, annotate

Replan = Callable[[Frozen, Limits, str], Awaitable[Planned]]
"""Makes the plan again from narrowed arguments and limits, naming the plan it comes from."""


class Authorize:
    """Puts plans to policy and records each answer."""

    def __init__(
        self, policy: Policy, check: ArgumentCheck, runner: Capabilities, clock: Clock
    ) -> None:
        self._policy = policy
        self._check = check
        self._runner = runner
        self._clock = clock

    async def __call__(self, planned: Planned, record: Record, replan: Replan) -> Decided:
        """The plan that policy permits: the one given, or one narrowed from it.

        Raises:
            Refused: `policy_denied` or the code of the fault; `argument_out_of_bounds`,
                `constraint_widens`, `runner_degraded`, `policy_inconsistent`.
        """
        decision = await self.ask(planned, record)
        narrowed = self._narrow(planned, decision)
        if not narrowed.changed:
            return Decided(planned=planned, decision=decision)
        self._check_narrowed(planned, narrowed)
        final = await replan(narrowed.arguments, narrowed.limits, planned.plan.hash)
        return Decided(planned=final, decision=await self.confirm(final, record))

    async def confirm(
        self, planned: Planned, record: Record, approval: Approval | None = None
    ) -> Permitted:
        """Policy's answer to a plan that was narrowed, or agreed to: it has to be as it is now.

        Raises:
            Refused: as `__call__`; `policy_inconsistent` if policy would narrow it further.
        """
        decision = await self.ask(planned, record, approval)
        if self._narrow(planned, decision).changed:
            raise _refused(
                decision,
                Code.POLICY_INCONSISTENT,
                "policy narrowed the plan and then wanted it narrower still"
                if approval is None
                else "policy wants the plan narrower than the one that people agreed to",
            )
        return decision

    async def ask(
        self, planned: Planned, record: Record, approval: Approval | None = None
    ) -> Permitted:
        """Policy's answer to exactly this plan, with the approval it has, if any.

        Raises:
            Refused: policy denied, or gave no usable answer, which is the same.
        """
        document = call_document(
            normal=planned.admitted.normal,
            plan=planned.plan,
            capabilities=self._runner,
            now_ms=self._clock.now_ms(),
            arguments=planned.arguments,
            preview=planned.preview,
            approvals=() if approval is None else (approval,),
        )
        decision = await self._policy.decide(document, decision_id=self._clock.new_id("dec"))
        record.add(decision_entry(planned, decision))
        annotate(decision_id=decision.evaluation.decision_id, plan_hash=planned.plan.hash)
        match decision:
            case Allow() | RequireApproval():
                return decision
            case Deny(code=code):
                if code is not Code.POLICY_DENIED:
                    POLICY_FAULTS.labels(code.value).inc()
                raise denied(decision)
            case _:
                assert_never(decision)

    def _narrow(self, planned: Planned, decision: Permitted) -> Narrowed:
        normal = planned.admitted.normal
        try:
            return narrow(
                decision.constraints,
                arguments=planned.arguments,
                supplied=frozenset(normal.call.arguments),
                limits=planned.plan.limits,
                profile=normal.tool.runner,
                tier=self._runner.tier,
                schema=normal.tool.input_schema,
            )
        except Refused as refused:
            raise _refused(
                decision, refused.code, refused.message, place=refused.place, hint=refused.hint
            ) from None

    def _check_narrowed(self, planned: Planned, narrowed: Narrowed) -> None:
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
