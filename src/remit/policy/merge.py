"""What two layers both permit: constraints, limits and approval rules, met part by part.

Each function is commutative, associative and idempotent, and gives at most what each side gives:
numbers take the least, sets intersect, redactions unite. Absent is no opinion. Two layers that
contradict each other keep nothing that could be carried out: `contradiction` says where, and
whoever merged must deny.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from remit.model import (
    ApprovalRule,
    Bound,
    CallLimits,
    Constraints,
    Frozen,
    Obligation,
    Quorum,
    Tier,
)
from remit.reach import meet_credentials, meet_egress

N = TypeVar("N", int, float)

CLASH = "\0"
"""A runner profile that no runner has: what two layers with different profiles come to."""

_TIERS = tuple(tier.value for tier in Tier)


def meet(left: Constraints, right: Constraints) -> Constraints:
    """What both let through. Two forced values that differ, or two profiles, clash: see
    `contradiction`."""
    return Constraints(
        bounds=_bounds(left.bounds, right.bounds),
        force=_force(left.force, right.force),
        redact=_united(left.redact, right.redact),
        profile=_profile(left.profile, right.profile),
        min_tier=_tier(left.min_tier, right.min_tier),
        wall_s=least(left.wall_s, right.wall_s),
        cpu_ms=least(left.cpu_ms, right.cpu_ms),
        memory_mb=least(left.memory_mb, right.memory_mb),
        egress=meet_egress(left.egress, right.egress),
        credentials=meet_credentials(left.credentials, right.credentials),
        output_max_bytes=least(left.output_max_bytes, right.output_max_bytes),
        output_redact=_united(left.output_redact, right.output_redact),
        output_content_types=_common(left.output_content_types, right.output_content_types),
    )


def contradiction(constraints: Constraints) -> str | None:
    """Where constraints cannot be met by anything, as a pointer into a decision; None if nowhere."""
    if constraints.profile == CLASH:
        return "/constraints/runner/profile"
    for name in sorted(constraints.bounds):
        bound, forced = constraints.bounds[name], constraints.force.get(name)
        if _nothing_meets(bound):
            return "/constraints/arguments/bounds"
        if forced is not None and forced != _CLASHING and not meets(forced.value(), bound):
            return "/constraints/arguments/force"
    if _CLASHING in constraints.force.values():
        return "/constraints/arguments/force"
    return None


def meets(value: Any, bound: Bound) -> bool:
    """Whether a JSON value is within a bound; unlike in Python, true is not 1."""
    if bound.one_of is not None and _scalar(value) not in map(_scalar, bound.one_of):
        return False
    if bound.minimum is None and bound.maximum is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (bound.minimum is None or value >= bound.minimum) and (
        bound.maximum is None or value <= bound.maximum
    )


def least(left: N | None, right: N | None) -> N | None:
    """The smaller of two, where None is no opinion."""
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def limits(left: CallLimits, right: CallLimits) -> CallLimits:
    """The lower of each rate and budget."""
    budgets = {**left.budget, **right.budget}
    for name in left.budget.keys() & right.budget.keys():
        budgets[name] = min(left.budget[name], right.budget[name])
    return CallLimits(
        calls_per_minute=least(left.calls_per_minute, right.calls_per_minute),
        concurrent=least(left.concurrent, right.concurrent),
        budget=budgets,
        cache_ttl_s=min(left.cache_ttl_s, right.cache_ttl_s),
    )


def approvals(left: ApprovalRule, right: ApprovalRule) -> ApprovalRule:
    """Both rules at once: every quorum of either, everybody excluded by either.

    A quorum that another one implies is left out; the greatest comes first.
    """
    first, *others = _quorums([*left.quorums, *right.quorums])
    return ApprovalRule(
        required=first.required,
        groups=first.groups,
        also=tuple(others),
        exclude=_united(left.exclude, right.exclude),
        separation_of_duties=left.separation_of_duties or right.separation_of_duties,
        ttl_s=least(left.ttl_s, right.ttl_s),
        reason_required=left.reason_required or right.reason_required,
    )


def obligations(several: Iterable[tuple[Obligation, ...]]) -> tuple[Obligation, ...]:
    """All of them, in one order, none twice."""
    united = {each for one in several for each in one}
    return tuple(sorted(united, key=lambda each: (each.type, each.id, each.properties.text)))


# ---------------------------------------------------------------------------------- arguments

_CLASHING = Frozen(b"")
"""Two forced values that differ. No JSON value has no bytes."""


def _force(left: Mapping[str, Frozen], right: Mapping[str, Frozen]) -> dict[str, Frozen]:
    both = {**left, **right}
    for name in left.keys() & right.keys():
        if left[name] != right[name]:
            both[name] = _CLASHING
    return both


def _bounds(left: Mapping[str, Bound], right: Mapping[str, Bound]) -> dict[str, Bound]:
    return {
        name: _bound(left.get(name, _FREE), right.get(name, _FREE))
        for name in sorted(left.keys() | right.keys())
    }


_FREE = Bound()


def _bound(left: Bound, right: Bound) -> Bound:
    low, high = (left.minimum, right.minimum), (left.maximum, right.maximum)
    members = [one.one_of for one in (left, right) if one.one_of is not None]
    shared: tuple[Any, ...] | None = None
    if members:
        keys = frozenset.intersection(*(frozenset(map(_scalar, each)) for each in members))
        shared = tuple(value for _, value in sorted(keys))
    return Bound(
        minimum=max((each for each in low if each is not None), default=None),
        maximum=min((each for each in high if each is not None), default=None),
        one_of=shared,
    )


def _nothing_meets(bound: Bound) -> bool:
    if bound.one_of is not None:
        return not any(meets(value, bound) for value in bound.one_of)
    return bound.minimum is not None and bound.maximum is not None and bound.minimum > bound.maximum


def _scalar(value: Any) -> tuple[str, Any]:
    """A JSON value as something that equals only its like, and sorts."""
    match value:
        case bool():
            return "boolean", value
        case int() | float():
            return "number", value
        case str():
            return "string", value
        case None:
            return "null", value
        case _:
            return "other", repr(value)


# -------------------------------------------------------------------------------- the others


def _united(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*left, *right}))


def _common(left: tuple[str, ...] | None, right: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if left is None or right is None:
        said = right if left is None else left
        return None if said is None else tuple(sorted(set(said)))
    return tuple(sorted(set(left) & set(right)))


def _profile(left: str | None, right: str | None) -> str | None:
    if left is None or right is None:
        return right if left is None else left
    return left if left == right else CLASH


def _tier(left: str | None, right: str | None) -> str | None:
    if left is None or right is None:
        return right if left is None else left
    return max(left, right, key=_strength)


def _strength(tier: str) -> int:
    return _TIERS.index(tier) if tier in _TIERS else len(_TIERS)


def _quorums(asked: Iterable[Quorum]) -> list[Quorum]:
    plain = {
        Quorum(required=each.required, groups=tuple(sorted(set(each.groups)))) for each in asked
    }
    kept = [
        each
        for each in plain
        if not any(other != each and _implies(other, each) for other in plain)
    ]
    return sorted(kept, key=lambda each: (-each.required, each.groups))


def _implies(strong: Quorum, weak: Quorum) -> bool:
    """Whether whoever meets the one meets the other."""
    within = not weak.groups or (bool(strong.groups) and set(strong.groups) <= set(weak.groups))
    return strong.required >= weak.required and within
