"""Layers combine to what all of them permit, whatever the order (design §6)."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
)
from remit.policy.combine import MAX_REASONS, combine
from tests.policy.layered import allowing, decision, denying, permits_at_most
from tests.policy.world import EVALUATION

REASON = Reason(code="said", message="as said", audience="user")
WHOLE = replace(EVALUATION, decision_id="dec_whole", revision="r-whole")


def allow(**constraints: Any) -> Allow:
    return Allow(evaluation=EVALUATION, reasons=(REASON,), constraints=Constraints(**constraints))


def ask(required: int = 1, *groups: str, **more: Any) -> RequireApproval:
    rule = ApprovalRule(required=required, groups=groups, **more)
    return RequireApproval(evaluation=EVALUATION, reasons=(REASON,), approvals=rule)


def deny(code: Code = Code.POLICY_DENIED, *, retriable: bool = False) -> Deny:
    return Deny(evaluation=EVALUATION, reasons=(REASON,), code=code, retriable=retriable)


def together(*decisions: Decision) -> Decision:
    return combine([(f"layer{n}", each) for n, each in enumerate(decisions)], WHOLE)


def meaning(found: Decision) -> Any:
    """What a decision lets happen. Of a denial only that it is one, and whose fault: which
    reasons it gives depends on who was asked together."""
    if isinstance(found, Deny):
        return "deny", found.code
    rule = found.approvals if isinstance(found, RequireApproval) else None
    return found.constraints, found.limits, found.obligations, rule


@given(st.lists(decision, min_size=1, max_size=4))
def test_order_of_layers_changes_nothing(decisions: list[Decision]) -> None:
    named = [(f"layer{n}", each) for n, each in enumerate(decisions)]
    whole = combine(named, WHOLE)
    assert all(combine(list(order), WHOLE) == whole for order in permutations(named))


@given(decision, decision, decision)
def test_combining_in_steps_gives_what_combining_at_once_gives(
    a: Decision, b: Decision, c: Decision
) -> None:
    def pair(left: Decision, right: Decision) -> Decision:
        return combine([("x", left), ("y", right)], WHOLE)

    whole = meaning(combine([("x", a), ("y", b), ("z", c)], WHOLE))
    assert meaning(pair(pair(a, b), c)) == whole
    assert meaning(pair(a, pair(b, c))) == whole


@given(decision)
def test_a_layer_asked_twice_counts_once(one: Decision) -> None:
    twice = combine([("same", one), ("same", one)], WHOLE)
    again = combine([("same", twice), ("same", twice), ("same", one)], WHOLE)
    assert meaning(again) == meaning(twice)
    if not isinstance(twice, Deny):
        assert again == twice
    assert permits_at_most(twice, one)


@pytest.mark.threat("T-13")
@given(st.lists(decision, min_size=1, max_size=4))
def test_no_layer_widens_what_another_permits(decisions: list[Decision]) -> None:
    whole = together(*decisions)
    if len(decisions) == 1:
        assert whole == replace(decisions[0], evaluation=WHOLE)
    else:
        assert all(permits_at_most(whole, each) for each in decisions)


@pytest.mark.threat("T-12")
@given(st.lists(decision, max_size=3), denying, st.lists(decision, max_size=3))
def test_one_denial_is_enough(before: list[Decision], no: Decision, after: list[Decision]) -> None:
    assert isinstance(together(*before, no, *after), Deny)


@pytest.mark.threat("T-12")
def test_no_layer_at_all_denies() -> None:
    found = together()
    assert isinstance(found, Deny)
    assert found.code is Code.POLICY_UNDEFINED


@given(decision)
def test_one_layer_is_given_back_as_it_is(one: Decision) -> None:
    assert together(one) == replace(one, evaluation=WHOLE)


def test_what_one_layer_asks_people_for_stands_beside_what_another_allows() -> None:
    found = together(allow(wall_s=5), ask(2, "sre"))
    assert isinstance(found, RequireApproval)
    assert found.constraints.wall_s == 5
    assert found.evaluation == WHOLE


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    ("left", "right", "place"),
    [
        (
            {"force": {"n": Frozen(b"1")}},
            {"force": {"n": Frozen(b"2")}},
            "/constraints/arguments/force",
        ),
        (
            {"force": {"n": Frozen(b"1")}},
            {"force": {"n": Frozen(b"true")}},
            "/constraints/arguments/force",
        ),
        (
            {"force": {"n": Frozen(b"5")}},
            {"bounds": {"n": Bound(maximum=3)}},
            "/constraints/arguments/force",
        ),
        (
            {"bounds": {"n": Bound(minimum=5)}},
            {"bounds": {"n": Bound(maximum=3)}},
            "/constraints/arguments/bounds",
        ),
        (
            {"bounds": {"n": Bound(one_of=("a",))}},
            {"bounds": {"n": Bound(one_of=("b",))}},
            "/constraints/arguments/bounds",
        ),
        (
            {"bounds": {"n": Bound(one_of=(1,))}},
            {"bounds": {"n": Bound(one_of=(True,))}},
            "/constraints/arguments/bounds",
        ),
        (
            {"bounds": {"n": Bound(one_of=(1, 2))}},
            {"bounds": {"n": Bound(minimum=3)}},
            "/constraints/arguments/bounds",
        ),
        ({"profile": "sandbox"}, {"profile": "gvisor"}, "/constraints/runner/profile"),
    ],
)
def test_layers_that_contradict_each_other_deny(
    left: dict[str, Any], right: dict[str, Any], place: str
) -> None:
    found = together(allow(**left), allow(**right))
    assert isinstance(found, Deny)
    assert found.code is Code.POLICY_INCONSISTENT
    assert [each.audience for each in found.reasons] == ["user", "admin"]
    assert place in found.reasons[1].message
    assert place not in found.reasons[0].message


def test_layers_that_agree_on_a_forced_value_do_not_contradict() -> None:
    found = together(
        allow(force={"n": Frozen(b"2")}), allow(force={"n": Frozen(b"2")}, profile="sandbox")
    )
    assert isinstance(found, Allow)
    assert found.constraints.force == {"n": Frozen(b"2")}


def test_layer_without_an_opinion_on_egress_takes_nothing_from_another() -> None:
    found = together(allow(), allow(egress=()))
    assert isinstance(found, Allow)
    assert found.constraints.egress == ()
    neither = together(allow(), allow())
    assert isinstance(neither, Allow)
    assert neither.constraints.egress is None


def test_each_layers_own_people_have_to_agree() -> None:
    found = together(ask(2, "sre"), ask(1, "security"), ask(1, "sre"), ask(1))
    assert isinstance(found, RequireApproval)
    assert found.approvals.quorums == (
        Quorum(required=2, groups=("sre",)),
        Quorum(required=1, groups=("security",)),
    )


def test_quorum_of_anybody_is_kept_beside_a_smaller_one_of_a_group() -> None:
    found = together(ask(3), ask(1, "sre"))
    assert isinstance(found, RequireApproval)
    assert found.approvals.quorums == (Quorum(required=3), Quorum(required=1, groups=("sre",)))


def test_stricter_half_of_each_approval_rule_holds() -> None:
    found = together(
        ask(1, exclude=("max",), separation_of_duties=False, ttl_s=60),
        ask(1, exclude=("eve",), reason_required=True),
    )
    assert isinstance(found, RequireApproval)
    rule = found.approvals
    assert (rule.exclude, rule.separation_of_duties) == (("eve", "max"), True)
    assert (rule.ttl_s, rule.reason_required) == (60, True)


@pytest.mark.parametrize(
    ("codes", "winner"),
    [
        ((Code.POLICY_ERROR, Code.POLICY_DENIED), Code.POLICY_DENIED),
        ((Code.POLICY_UNAVAILABLE, Code.POLICY_ERROR), Code.POLICY_ERROR),
        ((Code.POLICY_INCONSISTENT, Code.POLICY_UNAVAILABLE), Code.POLICY_UNAVAILABLE),
        ((Code.INTERNAL, Code.POLICY_INCONSISTENT), Code.POLICY_INCONSISTENT),
    ],
)
def test_denial_has_the_code_that_weighs_most(codes: tuple[Code, Code], winner: Code) -> None:
    for order in permutations(codes):
        found = together(*map(deny, order))
        assert isinstance(found, Deny)
        assert found.code is winner


def test_denial_is_worth_a_retry_only_if_every_layer_says_so() -> None:
    late = deny(Code.POLICY_UNAVAILABLE, retriable=True)
    both, one = together(late, late), together(late, deny())
    assert isinstance(both, Deny)
    assert isinstance(one, Deny)
    assert (both.retriable, one.retriable) == (True, False)


def test_each_reason_names_its_layer_and_a_denial_gives_only_its_own() -> None:
    found = together(allow(), deny(), deny())
    assert [(each.layer, each.code) for each in found.reasons] == [
        ("layer1", "said"),
        ("layer2", "said"),
    ]


def test_reasons_are_bounded_and_those_for_the_caller_go_first() -> None:
    many = tuple(Reason(code=f"c{n:03}", message="m") for n in range(64))
    found = together(replace(deny(), reasons=many), replace(deny(), reasons=(*many, REASON)))
    assert len(found.reasons) == MAX_REASONS
    assert found.reasons[0].code == "said"


def test_obligations_unite_and_none_is_dropped_for_their_number() -> None:
    def obliged(layer: int) -> Allow:
        many = tuple(
            Obligation(id=f"{layer}-{n}", type="log", properties=Frozen(b"{}")) for n in range(32)
        )
        return replace(allow(), obligations=many)

    found = together(*(obliged(layer) for layer in range(9)), obliged(0))
    assert len(found.obligations) == 9 * 32


@given(st.lists(allowing, min_size=2, max_size=3))
def test_obligations_of_every_layer_are_kept(decisions: list[Allow]) -> None:
    found = together(*decisions)
    if isinstance(found, Allow):
        assert set(found.obligations) == {one for each in decisions for one in each.obligations}


@pytest.mark.threat("T-13")
@pytest.mark.parametrize(
    ("left", "right", "met"),
    [
        (
            {"bounds": {"n": Bound(minimum=1, maximum=9)}},
            {"bounds": {"n": Bound(minimum=2, maximum=8), "m": Bound(maximum=1)}},
            {"bounds": {"n": Bound(minimum=2, maximum=8), "m": Bound(maximum=1)}},
        ),
        (
            {"bounds": {"n": Bound(one_of=(3, 1, True))}},
            {"bounds": {"n": Bound(one_of=(1, 2, 3), minimum=1)}},
            {"bounds": {"n": Bound(one_of=(1, 3), minimum=1)}},
        ),
        ({"redact": ("/b",)}, {"redact": ("/a", "/b")}, {"redact": ("/a", "/b")}),
        ({"output_redact": ("/b",)}, {"output_redact": ("/a",)}, {"output_redact": ("/a", "/b")}),
        (
            {"output_content_types": ("text/plain", "image/png")},
            {"output_content_types": ("image/png", "application/json")},
            {"output_content_types": ("image/png",)},
        ),
        ({"output_content_types": ("b/b", "a/a")}, {}, {"output_content_types": ("a/a", "b/b")}),
        ({"min_tier": "degraded"}, {"min_tier": "sandbox"}, {"min_tier": "sandbox"}),
        ({"wall_s": 5}, {"wall_s": 3}, {"wall_s": 3}),
        ({"memory_mb": 5}, {"memory_mb": 3}, {"memory_mb": 3}),
        ({"cpu_ms": 5}, {"cpu_ms": 3}, {"cpu_ms": 3}),
        ({"output_max_bytes": 5}, {"output_max_bytes": 3}, {"output_max_bytes": 3}),
        ({"profile": "sandbox"}, {}, {"profile": "sandbox"}),
        (
            {"egress": (EgressRule(host="a.example", port=443),)},
            {"egress": (EgressRule(host="a.example", port=443, methods=("GET",)),)},
            {"egress": (EgressRule(host="a.example", port=443, methods=("GET",)),)},
        ),
        (
            {"credentials": (CredentialRule(ref="vault:ci", scopes=("r", "w"), ttl_s=60),)},
            {"credentials": (CredentialRule(ref="vault:ci", scopes=("r",)),)},
            {"credentials": (CredentialRule(ref="vault:ci", scopes=("r",), ttl_s=60),)},
        ),
    ],
)
def test_the_narrower_half_of_each_constraint_holds(
    left: dict[str, Any], right: dict[str, Any], met: dict[str, Any]
) -> None:
    for one, other in permutations((left, right)):
        found = together(allow(**one), allow(**other))
        assert isinstance(found, Allow)
        assert found.constraints == Constraints(**met)


def test_lower_rates_and_budgets_hold() -> None:
    left = CallLimits(calls_per_minute=5, budget={"tokens": 3})
    right = CallLimits(calls_per_minute=3, concurrent=1, budget={"tokens": 5, "usd_minor": 1})
    found = together(replace(allow(), limits=left), replace(allow(), limits=right))
    assert isinstance(found, Allow)
    assert found.limits == CallLimits(
        calls_per_minute=3, concurrent=1, budget={"tokens": 3, "usd_minor": 1}
    )
