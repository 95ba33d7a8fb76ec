"""Enough people agreed, or not: whoever is counted, in whatever order they spoke."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.model import ApprovalRule, Quorum, Verdict, Vote
from remit.quorum import met, missing

pytestmark = pytest.mark.threat("T-09")

GROUPS = ["sre", "security", "owners"]

groups = st.lists(st.sampled_from(GROUPS), unique=True, max_size=3).map(tuple)
quorums = st.lists(
    st.builds(Quorum, required=st.integers(1, 3), groups=groups), min_size=1, max_size=3
)
rules = quorums.map(
    lambda found: ApprovalRule(
        required=found[0].required, groups=found[0].groups, also=tuple(found[1:])
    )
)
approving = st.builds(
    Vote,
    subject=st.sampled_from(["ann", "ben", "cem", "Ann", "dia"]),
    verdict=st.just(Verdict.APPROVE),
    voted_ms=st.just(0),
    groups=groups,
)
votes = st.lists(approving, max_size=6)


def no(subject: str = "max") -> Vote:
    return Vote(subject=subject, verdict=Verdict.DENY, voted_ms=0, groups=("sre",))


def yes(subject: str, *of: str) -> Vote:
    return Vote(subject=subject, verdict=Verdict.APPROVE, voted_ms=0, groups=of)


@given(rules, votes, approving)
def test_one_more_who_agrees_never_takes_an_approval_away(
    rule: ApprovalRule, cast: list[Vote], more: Vote
) -> None:
    assert met(rule, [*cast, more]) >= met(rule, cast)


@given(rules, votes, st.data())
def test_order_of_votes_changes_nothing(
    rule: ApprovalRule, cast: list[Vote], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(cast))
    assert met(rule, shuffled) == met(rule, cast)
    assert set(missing(rule, shuffled)) == set(missing(rule, cast))


@given(rules, votes)
def test_enough_agreed_exactly_if_each_quorum_has_its_people(
    rule: ApprovalRule, cast: list[Vote]
) -> None:
    def people(of: tuple[str, ...]) -> int:
        return len({v.subject.lower() for v in cast if not of or set(of) & set(v.groups)})

    wanted = all(people(each.groups) >= each.required for each in rule.quorums)
    assert met(rule, cast) == wanted == (missing(rule, cast) == ())


@given(rules, votes)
def test_one_who_refuses_is_enough_to_refuse(rule: ApprovalRule, cast: list[Vote]) -> None:
    assert not met(rule, [*cast, no()])


@given(rules, votes, st.lists(quorums, max_size=1))
def test_one_more_quorum_never_gives_an_approval(
    rule: ApprovalRule, cast: list[Vote], more: list[list[Quorum]]
) -> None:
    also = (*rule.also, *(each for found in more for each in found))
    harder = ApprovalRule(required=rule.required, groups=rule.groups, also=also)
    assert met(harder, cast) <= met(rule, cast)


def test_one_person_counts_once_for_a_quorum_and_for_several_quorums() -> None:
    two = ApprovalRule(required=2, groups=("sre",))
    assert not met(two, [yes("ann", "sre"), yes("ANN", "sre")])
    both = ApprovalRule(groups=("sre",), also=(Quorum(groups=("security",)),))
    assert met(both, [yes("ann", "sre", "security")])


def test_what_is_missing_is_named() -> None:
    rule = ApprovalRule(required=2, groups=("sre",), also=(Quorum(groups=("security",)),))
    assert missing(rule, [yes("ann", "sre")]) == (
        Quorum(required=1, groups=("sre",)),
        Quorum(required=1, groups=("security",)),
    )
