"""Many layers' decisions become one: deny before require_approval before allow (design §6).

What the layers permit is met part by part (`merge.py`), so that the whole permits at most what
each one permits, in whatever order they are asked. Layers that contradict each other deny.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

from remit.errors import Code, PolicyFault
from remit.model import (
    Allow,
    Constraints,
    Decision,
    Deny,
    Evaluation,
    Reason,
    RequireApproval,
)
from remit.policy import merge
from remit.policy.verdict import denial

MAX_REASONS = 64
"""Reasons that are kept of all layers; those for the caller come first."""

_SEVERITY = {
    code: rank
    for rank, code in enumerate(
        (
            Code.POLICY_DENIED,
            Code.POLICY_BAD_DECISION,
            Code.POLICY_UNSUPPORTED,
            Code.POLICY_ERROR,
            Code.POLICY_UNDEFINED,
            Code.POLICY_NOT_READY,
            Code.POLICY_UNAVAILABLE,
            Code.POLICY_INCONSISTENT,
        )
    )
}
"""Whose code a denial by several layers has: policy's own word first, then the fault that a person
has to mend, then what passes. Any other code comes last."""


def combine(decisions: Sequence[tuple[str, Decision]], evaluation: Evaluation) -> Decision:
    """The decision of all layers together.

    Args:
        decisions: each layer's name and its decision. One alone is given back as it is.
        evaluation: the circumstances of the whole.

    Never raises. No layer at all is a denial, `policy_undefined`; layers that force different
    values, ask for different runners, or bound a value so that none is left, are one too,
    `policy_inconsistent`. A denial that one layer meant goes before the faults of others; it is
    worth trying again only if every layer that denies says so.
    """
    if len(decisions) == 1:
        return replace(decisions[0][1], evaluation=evaluation)
    denied = [(name, each) for name, each in decisions if isinstance(each, Deny)]
    if denied:
        return _deny(denied, evaluation)
    permitted = [(name, each) for name, each in decisions if not isinstance(each, Deny)]
    if not permitted:
        fault = PolicyFault(Code.POLICY_UNDEFINED, "no layer of policy answered")
        return denial(fault, evaluation)
    return _permit(permitted, evaluation)


def _deny(denied: Sequence[tuple[str, Deny]], evaluation: Evaluation) -> Deny:
    codes = [each.code for _, each in denied]
    return Deny(
        evaluation=evaluation,
        reasons=_reasons(denied),
        code=min(codes, key=lambda code: (_SEVERITY.get(code, len(_SEVERITY)), code.value)),
        obligations=merge.obligations(each.obligations for _, each in denied),
        retriable=all(each.retriable for _, each in denied),
    )


def _permit(
    permitted: Sequence[tuple[str, Allow | RequireApproval]], evaluation: Evaluation
) -> Decision:
    constraints = reduce(merge.meet, (each.constraints for _, each in permitted), Constraints())
    place = merge.contradiction(constraints)
    if place is not None:
        fault = PolicyFault(
            Code.POLICY_INCONSISTENT, "the layers of policy contradict each other", place=place
        )
        return denial(fault, evaluation)
    limits = reduce(merge.limits, (each.limits for _, each in permitted))
    obligations = merge.obligations(each.obligations for _, each in permitted)
    asking = [(name, each) for name, each in permitted if isinstance(each, RequireApproval)]
    if not asking:
        return Allow(
            evaluation=evaluation,
            reasons=_reasons(permitted),
            constraints=constraints,
            limits=limits,
            obligations=obligations,
        )
    rule = reduce(merge.approvals, (each.approvals for _, each in asking), asking[0][1].approvals)
    return RequireApproval(
        evaluation=evaluation,
        reasons=_reasons(asking),
        approvals=rule,
        constraints=constraints,
        limits=limits,
        obligations=obligations,
    )


def _reasons(parts: Iterable[tuple[str, Decision]]) -> tuple[Reason, ...]:
    named = {
        reason if reason.layer is not None else replace(reason, layer=name)
        for name, part in parts
        for reason in part.reasons
    }
    return tuple(sorted(named, key=_order)[:MAX_REASONS])


def _order(reason: Reason) -> tuple[object, ...]:
    return (
        reason.audience != "user",
        reason.layer or "",
        reason.code,
        reason.message,
        reason.path or "",
        reason.rule or "",
    )
