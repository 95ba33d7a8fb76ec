"""From a well-shaped answer to a `Decision`: do its parts agree, and can Remit enforce them?"""

from __future__ import annotations

from typing import Any

from remit.errors import Code, PolicyFault
from remit.model import (
    Allow,
    CallLimits,
    Constraints,
    Decision,
    Deny,
    Evaluation,
    Obligation,
    Reason,
    RequireApproval,
)
from remit.policy import decision as documents
from remit.policy.decision import Answer
from remit.policy.merge import contradiction
from remit.policy.supported import first_unsupported, performable

_USER_MESSAGE = {
    Code.POLICY_UNDEFINED: "Policy gives no decision on this call.",
    Code.POLICY_BAD_DECISION: "Policy gave an answer that is not a decision.",
    Code.POLICY_ERROR: "Policy failed while deciding on this call.",
    Code.POLICY_UNAVAILABLE: "Policy did not answer in time. Trying again may help.",
    Code.POLICY_NOT_READY: "No policy is in force yet.",
    Code.POLICY_INCONSISTENT: "Policy gave a decision that contradicts itself.",
    Code.POLICY_UNSUPPORTED: "Policy asks for something that Remit cannot enforce yet.",
}


def judge(document: Any, evaluation: Evaluation) -> Decision:
    """The decision in a `remit.decision/1` document.

    Raises:
        PolicyFault: `policy_bad_decision`, `policy_inconsistent` or `policy_unsupported`; whoever
            asked must deny. A denial is never turned into a fault by what else it says.
    """
    answer = documents.read(document)
    if answer.decision == documents.DENY:
        return Deny(
            evaluation=evaluation,
            reasons=answer.reasons,
            obligations=_performable(answer.obligations),
        )
    _refuse_contradictions(answer)
    place = first_unsupported(document)
    if place is not None:
        raise PolicyFault(
            Code.POLICY_UNSUPPORTED, "the decision asks for what cannot be enforced", place=place
        )
    if answer.decision == documents.ALLOW or answer.approvals is None:
        return Allow(
            evaluation=evaluation,
            reasons=answer.reasons,
            constraints=answer.constraints,
            limits=answer.limits,
            obligations=answer.obligations,
        )
    return RequireApproval(
        evaluation=evaluation,
        reasons=answer.reasons,
        approvals=answer.approvals,
        constraints=answer.constraints,
        limits=answer.limits,
        obligations=answer.obligations,
    )


def judge_result(document: Any, evaluation: Evaluation) -> Decision:
    """As `judge`, of an answer about a result: it is given, with less of it, or withheld.

    Raises:
        PolicyFault: as `judge`; `policy_unsupported` if it asks for people, narrows anything but
            the output, or obliges to more than being recorded.
    """
    decision = judge(document, evaluation)
    if isinstance(decision, Deny):
        return decision
    place = _beyond_output(decision)
    if place is not None:
        raise PolicyFault(
            Code.POLICY_UNSUPPORTED, "of a result only the output can be narrowed", place=place
        )
    return decision


def _beyond_output(decision: Allow | RequireApproval) -> str | None:
    """Where an answer asks for what cannot be had any more once a run is over."""
    if isinstance(decision, RequireApproval):
        return "/decision"
    found = decision.constraints
    output = Constraints(
        output_max_bytes=found.output_max_bytes,
        output_redact=found.output_redact,
        output_content_types=found.output_content_types,
    )
    if found != output:
        return "/constraints"
    if decision.limits != CallLimits():
        return "/limits"
    return "/obligations" if any(each.type != "log" for each in decision.obligations) else None


def denial(fault: PolicyFault, evaluation: Evaluation) -> Deny:
    """The denial that a fault becomes: a fixed sentence for the caller, the detail for operators."""
    where = f" at {fault.place}" if fault.place else ""
    return Deny(
        evaluation=evaluation,
        code=fault.code,
        retriable=fault.code is Code.POLICY_UNAVAILABLE,
        reasons=(
            Reason(
                code=fault.code.value,
                message=_USER_MESSAGE.get(fault.code, "Policy could not decide on this call."),
                audience="user",
            ),
            Reason(code=fault.code.value, message=f"{fault.message}{where}"[:1024]),
        ),
    )


def _performable(obligations: tuple[Obligation, ...]) -> tuple[Obligation, ...]:
    """What can be done beside a denial; what cannot changes nothing, since nothing runs."""
    return tuple(item for item in obligations if performable(item.type, item.properties.value()))


def _refuse_contradictions(answer: Answer) -> None:
    """An allow or require_approval must mean it, and its constraints must be satisfiable."""
    if answer.denies:
        raise _inconsistent("the verdict is not deny, yet a reason denies", "/reasons")
    rule = answer.approvals
    if answer.decision == documents.ALLOW:
        if rule is not None:
            raise _inconsistent("the verdict is allow, yet approvals are asked for", "/approvals")
    elif rule is None:
        raise _inconsistent("approval is required, yet no rule says whose", "/approvals")
    elif rule.required < 1:
        raise _inconsistent("approval is required, yet by nobody", "/approvals/required")
    place = contradiction(answer.constraints)
    if place is not None:
        raise _inconsistent(
            "a bound that nothing meets, or a forced value outside its bound", place
        )


def _inconsistent(message: str, place: str) -> PolicyFault:
    return PolicyFault(Code.POLICY_INCONSISTENT, message, place=place)
