"""What is kept of policy's answers is bounded, shared where it is equal, and never too old."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from remit.document import list_document
from remit.model import Actor, Caller, CallerKind, Tool
from remit.stages.views import Answers, Lists, identity_class
from remit.testing.catalog import make_tool

CALLER = Caller(tenant="t", subject="bot", kind=CallerKind.AGENT, key_id="k1", expires_ms=5)
OTHER: dict[str, Any] = {
    "tenant": "u",
    "subject": "cat",
    "kind": CallerKind.SERVICE,
    "groups": ("g",),
    "chain": (Actor(subject="dana", kind=CallerKind.HUMAN),),
    "issuer": "https://id.example",
    "key_id": "k2",
    "expires_ms": 6,
    "acr": "gold",
    "amr": ("hwk",),
    "auth_ms": 1_795_405_186_867,
}


@pytest.mark.threat("T-03")
@pytest.mark.parametrize("name", [field.name for field in fields(Caller)])
def test_callers_of_one_class_are_shown_to_policy_alike(name: str) -> None:
    other = replace(CALLER, **{name: OTHER[name]})
    asked = [list_document(caller=one, tools=[], now_ms=1)["caller"] for one in (CALLER, other)]
    assert (asked[0] == asked[1]) == (name in ("key_id", "expires_ms"))
    assert (identity_class(CALLER) == identity_class(other)) == (asked[0] == asked[1])


def _who(number: int) -> tuple[Caller, str]:
    return identity_class(replace(CALLER, subject=f"bot-{number}")), ""


TOOLS = tuple(make_tool(f"t{number:03d}") for number in range(100))


def test_answer_is_given_until_it_is_too_old() -> None:
    kept: Answers[str, bool] = Answers(10)
    kept.put("a", False, 1_000)
    assert kept.get("a", 10_999, 10_000) is False
    assert kept.get("a", 11_000, 10_000) is None
    assert kept.get("a", 1_000, 0) is None
    assert kept.get("b", 1_000, 10_000) is None


def test_clock_that_was_set_back_makes_an_answer_old() -> None:
    kept: Answers[str, bool] = Answers(10)
    kept.put("a", True, 1_000)
    assert kept.get("a", 999, 10_000) is None


def test_answer_asked_for_longest_ago_goes_first() -> None:
    kept: Answers[int, int] = Answers(3)
    for number in range(3):
        kept.put(number, number, 0)
    assert kept.get(0, 0, 1) == 0
    assert kept.put(3, 3, 0) == [1]
    assert [kept.get(number, 0, 1) for number in range(4)] == [0, None, 2, 3]
    assert len(kept) == 3


def test_callers_who_see_the_same_share_one_sequence() -> None:
    lists = Lists()
    kept = [lists.put(_who(number), list(TOOLS), 0) for number in range(50)]
    assert all(one is kept[0] for one in kept)
    assert lists.names == len(TOOLS)
    assert lists.get(_who(49), 0, 1) is kept[0]


def test_names_of_all_lists_together_are_bounded() -> None:
    lists = Lists(names=500)
    for number in range(40):
        lists.put(_who(number), TOOLS[number:], 0)
        assert lists.names <= 500
    assert lists.get(_who(39), 0, 1) == TOOLS[39:]
    assert lists.get(_who(0), 0, 1) is None


def test_list_longer_than_the_bound_is_still_given() -> None:
    lists = Lists(names=10)
    assert lists.put(_who(1), TOOLS, 0) == TOOLS
    assert lists.put(_who(2), TOOLS[1:], 0) == TOOLS[1:]
    assert len(lists) == 1


def test_number_of_lists_is_bounded_and_what_goes_is_let_go_of() -> None:
    lists = Lists(most=3)
    for number in range(9):
        lists.put(_who(number), TOOLS[number:], 0)
    assert len(lists) == 3
    assert lists.names == sum(len(TOOLS[number:]) for number in (6, 7, 8))


def test_list_put_again_counts_once() -> None:
    lists = Lists()
    for _ in range(3):
        lists.put(_who(1), TOOLS, 0)
    lists.put(_who(1), TOOLS[1:], 0)
    assert lists.names == len(TOOLS) - 1
    assert lists.get(_who(1), 0, 1) == TOOLS[1:]


def test_tool_that_changed_under_its_name_makes_another_list() -> None:
    lists = Lists()
    before = lists.put(_who(1), TOOLS, 0)
    changed: tuple[Tool, ...] = (make_tool("t000", description="other words"), *TOOLS[1:])
    assert lists.put(_who(2), changed, 0) != before
