"""What a pointer names goes out of a result, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.stages.redact import REDACTED, removed, replaced

pytestmark = pytest.mark.threat("T-23")

RESULT: dict[str, Any] = {
    "token": "s1",
    "user": {"name": "ann", "key": "s2", "a/b": "s3", "m~n": "s4"},
    "items": [{"key": "s5", "n": 1}, {"key": "s6"}, "plain", ["s7"]],
    "*": "s8",
}


@pytest.mark.parametrize(
    ("pointer", "gone"),
    [
        ("/token", {"s1"}),
        ("/user", {"ann", "s2", "s3", "s4"}),
        ("/user/key", {"s2"}),
        ("/user/a~1b", {"s3"}),
        ("/user/m~0n", {"s4"}),
        ("/items/0/key", {"s5"}),
        ("/items/*/key", {"s5", "s6"}),
        ("/items/3/0", {"s7"}),
        ("/*/key", {"s2"}),
        ("/*/*/key", {"s5", "s6"}),
        ("/items/00/key", set()),
        ("/items/-", set()),
        ("/items/9/key", set()),
        ("/token/deeper", set()),
        ("/missing", set()),
        ("/", set()),
        ("/*", {"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "ann", "plain"}),
    ],
)
def test_pointer_takes_out_what_it_names_and_nothing_else(pointer: str, gone: set[str]) -> None:
    words = {"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "ann", "plain"}
    for way in (replaced, removed):
        left = json.dumps(way(RESULT, [pointer]))
        assert {word for word in words if f'"{word}"' in left} == words - gone


def test_redacted_member_stays_with_its_name() -> None:
    assert replaced(RESULT, ["/user/key"])["user"]["key"] == REDACTED
    assert "key" not in removed(RESULT, ["/user/key"])["user"]


def test_removing_from_a_list_moves_no_other_pointer() -> None:
    assert removed([1, 2, 3, 4], ["/0", "/2"]) == [2, 4]


def test_the_result_as_it_came_is_not_changed() -> None:
    before = json.dumps(RESULT)
    replaced(RESULT, ["/user/key", "/items/*"])
    assert json.dumps(RESULT) == before


values = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "*", "0"]), inner, max_size=3)
    ),
    max_leaves=12,
)
segments = st.sampled_from(["a", "b", "*", "0", "1"])
pointers = st.lists(
    st.lists(segments, min_size=1, max_size=3).map(lambda path: "".join(f"/{s}" for s in path)),
    max_size=3,
)


@given(values, pointers)
def test_redacting_twice_is_redacting_once(value: Any, named: list[str]) -> None:
    once = replaced(value, named)
    assert replaced(once, named) == once


@given(values, pointers, pointers)
def test_one_more_pointer_shows_nothing_more(value: Any, named: list[str], more: list[str]) -> None:
    fewer = json.dumps(replaced(value, [*named, *more])).count("x")
    assert fewer <= json.dumps(replaced(value, named)).count("x")


@given(values)
def test_no_pointer_changes_nothing(value: Any) -> None:
    assert replaced(value, []) == value == removed(value, [])
