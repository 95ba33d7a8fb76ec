"""Constraints only narrow (promise 5), whatever policy asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import encode
from remit.errors import Code, Refused
from remit.model import (
    Bound,
    Constraints,
    CredentialRule,
    EgressRule,
    Frozen,
    Limits,
    ResultKind,
    Tier,
)
from remit.profile import DEFAULT, Profile
from remit.reach import meet_credentials, meet_egress, normal_credentials, normal_egress
from remit.stages.narrow import Terms, narrow
from tests.test_reach import credentials, egress

pytestmark = pytest.mark.threat("T-13")

LIMITS = Limits(wall_s=30, memory_mb=256, output_bytes=65_536)


@dataclass(frozen=True)
class Applied:
    """Terms before and after some constraints."""

    before: Terms
    after: Terms

    @property
    def changed(self) -> bool:
        return self.after != self.before

    @property
    def arguments(self) -> Frozen:
        return self.after.arguments

    @property
    def limits(self) -> Limits:
        return self.after.limits


def apply(constraints: Constraints, arguments: dict[str, Any], **planned: Any) -> Applied:
    terms = Terms(
        arguments=Frozen(encode(arguments)),
        limits=planned.get("limits", LIMITS),
        egress=planned.get("egress", ()),
        credentials=planned.get("credentials", ()),
    )
    after = narrow(
        constraints,
        terms,
        supplied=frozenset(planned.get("supplied", arguments)),
        profiles=planned.get("profiles", {DEFAULT: Profile()}),
        tiers=planned.get("tiers", {DEFAULT: planned.get("tier", Tier.SANDBOX)}),
        result=planned.get("result", ResultKind.JSON),
        schema=Frozen(encode({"properties": {name: {} for name in "abcdxreplicas"} | {"x": {}}})),
    )
    return Applied(terms, after)


def force(**values: Any) -> Constraints:
    return Constraints(force={name: Frozen(encode(value)) for name, value in values.items()})


def test_no_constraint_changes_nothing() -> None:
    assert not apply(Constraints(), {"replicas": 3}).changed


def test_a_value_the_caller_left_out_is_filled_in() -> None:
    narrowed = apply(force(dry_run=True), {"replicas": 3})
    assert narrowed.arguments.value() == {"replicas": 3, "dry_run": True}
    assert narrowed.changed


def test_a_default_is_replaced_because_the_caller_did_not_give_it() -> None:
    narrowed = apply(force(replicas=9), {"replicas": 3}, supplied=[])
    assert narrowed.arguments.value() == {"replicas": 9}


def test_a_number_the_caller_gave_is_lowered() -> None:
    assert apply(force(replicas=2), {"replicas": 3}).arguments.value() == {"replicas": 2}


@pytest.mark.parametrize(
    ("given_value", "wanted"),
    [
        (3, 4),
        (3, -1),
        (-3, -4),
        ("a", "b"),
        (True, False),
        (1, True),
        (True, 1),
        (["a"], ["a", "b"]),
        ({"a": 1}, {"a": 2}),
        ("3", 2),
    ],
)
def test_another_value_than_the_caller_gave_is_refused(given_value: Any, wanted: Any) -> None:
    with pytest.raises(Refused) as refused:
        apply(force(x=wanted), {"x": given_value})
    assert refused.value.code is Code.CONSTRAINT_WIDENS
    assert refused.value.place == "/x"


def test_a_set_the_caller_gave_is_shrunk() -> None:
    narrowed = apply(force(names=["a"]), {"names": ["a", "b"]})
    assert narrowed.arguments.value() == {"names": ["a"]}


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        (Bound(maximum=3), 4),
        (Bound(minimum=1), 0),
        (Bound(maximum=3), "2"),
        (Bound(maximum=3), True),
        (Bound(one_of=("a", "b")), "c"),
        (Bound(one_of=(1,)), True),
        (Bound(one_of=(True,)), 1),
    ],
)
def test_an_argument_outside_its_bound_is_refused(bound: Bound, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        apply(Constraints(bounds={"x": bound}), {"x": value})
    assert refused.value.code is Code.ARGUMENT_OUT_OF_BOUNDS


def test_a_bound_sees_the_forced_value_not_the_given_one() -> None:
    constraints = Constraints(force={"x": Frozen(b"2")}, bounds={"x": Bound(maximum=2)})
    assert apply(constraints, {"x": 5}).arguments.value() == {"x": 2}


@given(
    planned=st.tuples(*[st.integers(1, 10_000)] * 3),
    wanted=st.tuples(*[st.none() | st.integers(1, 100_000)] * 3),
)
def test_limits_are_never_raised(
    planned: tuple[int, int, int], wanted: tuple[int | None, int | None, int | None]
) -> None:
    limits = Limits(wall_s=planned[0], memory_mb=planned[1], output_bytes=planned[2])
    constraints = Constraints(wall_s=wanted[0], memory_mb=wanted[1], output_max_bytes=wanted[2])
    lowered = apply(constraints, {}, limits=limits).limits
    assert lowered.wall_s <= limits.wall_s
    assert lowered.memory_mb <= limits.memory_mb
    assert lowered.output_bytes <= limits.output_bytes
    again = apply(constraints, {}, limits=lowered)
    assert not again.changed


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 50)), st.data())
def test_forcing_is_idempotent_or_refused(arguments: dict[str, int], data: st.DataObject) -> None:
    forced = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 50)))
    try:
        once = apply(force(**forced), arguments)
    except Refused:
        return
    after = once.arguments.value()
    assert not apply(force(**forced), after, supplied=list(arguments)).changed
    assert all(after[name] <= value for name, value in arguments.items())


def test_bound_on_an_argument_the_tool_does_not_have_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        apply(Constraints(bounds={"replicaz": Bound(maximum=3)}), {"x": 1})
    assert refused.value.code is Code.POLICY_BAD_DECISION


def test_bound_on_an_argument_that_was_left_out_holds_by_itself() -> None:
    assert not apply(Constraints(bounds={"a": Bound(maximum=3)}), {}).changed


def test_another_runner_profile_is_refused() -> None:
    with pytest.raises(Refused):
        apply(Constraints(profile="other"), {})


@pytest.mark.parametrize(
    ("tier", "wanted"),
    [(Tier.DEGRADED, "sandbox"), (Tier.SANDBOX, "gvisor"), (Tier.NONE, "remote")],
)
def test_a_runner_below_the_tier_policy_wants_is_refused(tier: Tier, wanted: str) -> None:
    with pytest.raises(Refused) as refused:
        apply(Constraints(min_tier=wanted), {}, tier=tier)
    assert refused.value.code is Code.RUNNER_DEGRADED


@given(egress, st.none() | egress, credentials, st.none() | credentials)
def test_a_run_reaches_what_is_declared_and_given_and_nothing_else(
    declared: tuple[EgressRule, ...],
    given_egress: tuple[EgressRule, ...] | None,
    owned: tuple[CredentialRule, ...],
    lent: tuple[CredentialRule, ...] | None,
) -> None:
    declared, owned = normal_egress(declared), normal_credentials(owned)
    constraints = Constraints(egress=given_egress, credentials=lent)
    once = apply(constraints, {}, egress=declared, credentials=owned).after
    assert once.egress == (meet_egress(declared, given_egress) if given_egress else ())
    assert once.credentials == (meet_credentials(owned, lent) if lent else ())
    assert meet_egress(once.egress, declared) == once.egress
    assert meet_credentials(once.credentials, owned) == once.credentials
    again = apply(constraints, {}, egress=once.egress, credentials=once.credentials)
    assert not again.changed


def test_where_policy_is_silent_a_run_reaches_nothing() -> None:
    declared = (EgressRule(host="api.example.com", port=443),)
    owned = (CredentialRule(ref="vault:ci"),)
    after = apply(Constraints(), {}, egress=declared, credentials=owned).after
    assert (after.egress, after.credentials) == ((), ())


def test_policy_adds_no_destination_that_the_catalog_does_not_declare() -> None:
    wanted = (EgressRule(host="evil.example.com", port=443),)
    lent = (CredentialRule(ref="vault:root"),)
    assert not apply(Constraints(egress=wanted, credentials=lent), {}).changed
