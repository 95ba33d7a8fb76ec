"""Decisions of layers at random, and what it means that one permits at most what another does."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from remit.canonical import encode
from remit.errors import Code
from remit.model import (
    Allow,
    ApprovalRule,
    Bound,
    CallLimits,
    Constraints,
    CredentialRule,
    Decision,
    Deny,
    EgressRule,
    Frozen,
    Obligation,
    Quorum,
    Reason,
    RequireApproval,
    Tier,
)
from remit.reach import meet_credentials, meet_egress
from tests.policy.world import EVALUATION

SCALARS: list[Any] = [1, 2, 3, 1.5, True, False, None, "a", "1"]
POINTERS = ["/a", "/b/c", "/items/*/key"]

small = st.none() | st.integers(1, 4)
names = st.sampled_from(["replicas", "service"])
groups = st.lists(st.sampled_from(["sre", "security", "owners"]), max_size=3).map(tuple)


def _tuples(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


bounds = st.builds(
    Bound,
    minimum=small,
    maximum=small,
    one_of=st.none() | st.lists(st.sampled_from(SCALARS), min_size=1, max_size=4).map(tuple),
)
egress = st.lists(
    st.builds(
        EgressRule,
        host=st.sampled_from(["a.example", "b.example"]),
        port=st.just(443),
        methods=st.none() | st.just(("GET",)),
        path_prefix=st.none() | st.sampled_from(["/x", "/x/y"]),
    ),
    max_size=3,
).map(tuple)
credentials = st.lists(
    st.builds(
        CredentialRule,
        ref=st.sampled_from(["one", "two"]),
        scopes=_tuples(["read", "write"]),
        ttl_s=small,
    ),
    max_size=3,
).map(tuple)
constraints = st.builds(
    Constraints,
    bounds=st.dictionaries(names, bounds, max_size=1),
    force=st.dictionaries(
        names, st.sampled_from(SCALARS).map(lambda one: Frozen(encode(one))), max_size=1
    ),
    redact=_tuples(POINTERS),
    profile=st.none() | st.sampled_from(["sandbox", "other"]),
    min_tier=st.none() | st.sampled_from([tier.value for tier in Tier]),
    wall_s=small,
    cpu_ms=small,
    memory_mb=small,
    egress=st.none() | egress,
    credentials=st.none() | credentials,
    output_max_bytes=small,
    output_redact=_tuples(POINTERS),
    output_content_types=st.none() | _tuples(["text/plain", "application/json"]),
)
limits = st.builds(
    CallLimits,
    calls_per_minute=small,
    concurrent=small,
    budget=st.dictionaries(st.sampled_from(["tokens", "usd_minor"]), st.integers(0, 3)),
)
approvals = st.builds(
    ApprovalRule,
    required=st.integers(1, 3),
    groups=groups,
    exclude=_tuples(["max", "eve"]),
    separation_of_duties=st.booleans(),
    ttl_s=small,
    reason_required=st.booleans(),
    also=st.lists(st.builds(Quorum, required=st.integers(1, 3), groups=groups), max_size=2).map(
        tuple
    ),
)
reasons = st.lists(
    st.builds(
        Reason,
        code=st.sampled_from(["one", "two"]),
        message=st.sampled_from(["x", "y"]),
        audience=st.sampled_from(["user", "admin"]),
        path=st.none() | st.just("/a"),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
obligations = st.lists(
    st.builds(
        Obligation,
        id=st.sampled_from(["a", "b"]),
        type=st.sampled_from(["log", "notify"]),
        properties=st.sampled_from([Frozen(b"{}"), Frozen(b'{"channel":"x"}')]),
    ),
    max_size=3,
).map(tuple)
same = st.just(EVALUATION)

allowing = st.builds(
    Allow,
    evaluation=same,
    reasons=reasons,
    constraints=constraints,
    limits=limits,
    obligations=obligations,
)
asking = st.builds(
    RequireApproval,
    evaluation=same,
    reasons=reasons,
    approvals=approvals,
    constraints=constraints,
    limits=limits,
    obligations=obligations,
)
denying = st.builds(
    Deny,
    evaluation=same,
    reasons=reasons,
    code=st.sampled_from(
        [Code.POLICY_DENIED, Code.POLICY_ERROR, Code.POLICY_UNAVAILABLE, Code.POLICY_INCONSISTENT]
    ),
    obligations=obligations,
    retriable=st.booleans(),
)
decision: st.SearchStrategy[Decision] = st.one_of(allowing, asking, denying)
permitting: st.SearchStrategy[Allow | RequireApproval] = st.one_of(allowing, asking)


def permits_at_most(less: Decision, more: Decision) -> bool:
    """Whether all that `less` lets happen, `more` lets happen too; said part by part, from §6."""
    if isinstance(less, Deny):
        return True
    if isinstance(more, Deny):
        return False
    if isinstance(more, RequireApproval) and not (
        isinstance(less, RequireApproval) and _asks_no_less(less.approvals, more.approvals)
    ):
        return False
    return (
        _narrower(less.constraints, more.constraints)
        and _lower(less.limits, more.limits)
        and set(less.obligations) >= set(more.obligations)
    )


def _asks_no_less(rule: ApprovalRule, than: ApprovalRule) -> bool:
    def implied(weak: Quorum) -> bool:
        return any(
            strong.required >= weak.required
            and (not weak.groups or (strong.groups and set(strong.groups) <= set(weak.groups)))
            for strong in rule.quorums
        )

    return (
        all(map(implied, than.quorums))
        and set(rule.exclude) >= set(than.exclude)
        and rule.separation_of_duties >= than.separation_of_duties
        and rule.reason_required >= than.reason_required
        and _most(rule.ttl_s, than.ttl_s)
    )


def _most(value: float | None, than: float | None) -> bool:
    return than is None or (value is not None and value <= than)


def _narrower(less: Constraints, more: Constraints) -> bool:
    tiers = [tier.value for tier in Tier]
    return (
        all(_tighter(less.bounds.get(name, Bound()), bound) for name, bound in more.bounds.items())
        and less.force.items() >= more.force.items()
        and set(less.redact) >= set(more.redact)
        and more.profile in (None, less.profile)
        and (
            more.min_tier is None
            or tiers.index(less.min_tier or "none") >= tiers.index(more.min_tier)
        )
        and _most(less.wall_s, more.wall_s)
        and _most(less.cpu_ms, more.cpu_ms)
        and _most(less.memory_mb, more.memory_mb)
        and _most(less.output_max_bytes, more.output_max_bytes)
        and (more.egress is None or less.egress is not None)
        and meet_egress(less.egress, more.egress) == less.egress
        and (more.credentials is None or less.credentials is not None)
        and meet_credentials(less.credentials, more.credentials) == less.credentials
        and set(less.output_redact) >= set(more.output_redact)
        and (
            more.output_content_types is None
            or (
                less.output_content_types is not None
                and set(less.output_content_types) <= set(more.output_content_types)
            )
        )
    )


def _tighter(less: Bound, more: Bound) -> bool:
    def inside(value: Any, members: tuple[Any, ...]) -> bool:
        return encode(value) in map(encode, members)

    members = more.one_of is None or (
        less.one_of is not None and all(inside(each, more.one_of) for each in less.one_of)
    )
    low = more.minimum is None or (less.minimum is not None and less.minimum >= more.minimum)
    return members and low and _most(less.maximum, more.maximum)


def _lower(less: CallLimits, more: CallLimits) -> bool:
    return (
        _most(less.calls_per_minute, more.calls_per_minute)
        and _most(less.concurrent, more.concurrent)
        and all(_most(less.budget.get(name), most) for name, most in more.budget.items())
    )
