"""Annotations make a tool more dangerous than the operator said, never less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.model import Effect, Risk
from remit.upstreams.hints import Standing, at_least, raised
from tests.upstreams import listing

STANDINGS = st.builds(
    Standing,
    effect=st.sampled_from(Effect),
    risk=st.sampled_from(Risk),
    open_world=st.booleans(),
)


def _order(standing: Standing) -> tuple[int, int, bool]:
    effect, risk = list(Effect).index(standing.effect), list(Risk).index(standing.risk)
    return effect, risk, standing.open_world


@given(STANDINGS, listing.ANNOTATIONS)
def test_nothing_an_operator_said_is_lowered(operators: Standing, said: Any) -> None:
    definition = listing.defined(annotations=said)
    after = raised(operators, definition)
    least, before, floor = _order(after), _order(operators), _order(at_least(definition))
    assert least == tuple(max(pair) for pair in zip(before, floor, strict=True))
    assert raised(after, definition) == after


@pytest.mark.parametrize(
    ("said", "effect", "risk"),
    [
        (None, Effect.READ, Risk.LOW),
        ({}, Effect.READ, Risk.LOW),
        ({"readOnlyHint": True}, Effect.READ, Risk.LOW),
        ({"destructiveHint": False}, Effect.READ, Risk.LOW),
        ({"readOnlyHint": False}, Effect.DESTRUCTIVE, Risk.HIGH),
        ({"readOnlyHint": False, "destructiveHint": None}, Effect.DESTRUCTIVE, Risk.HIGH),
        ({"readOnlyHint": False, "destructiveHint": False}, Effect.WRITE, Risk.MEDIUM),
        ({"readOnlyHint": True, "destructiveHint": True}, Effect.DESTRUCTIVE, Risk.HIGH),
        ({"destructiveHint": True}, Effect.DESTRUCTIVE, Risk.HIGH),
    ],
)
def test_what_is_said_puts_a_tool_at_the_least_at(said: Any, effect: Effect, risk: Risk) -> None:
    parts = {} if said is None else {"annotations": said}
    assert at_least(listing.defined(**parts)) == Standing(effect=effect, risk=risk)


def test_an_open_world_is_believed_and_a_closed_one_is_not() -> None:
    closed, opened = ({"openWorldHint": value} for value in (False, True))
    assert at_least(listing.defined(annotations=opened)).open_world
    assert raised(Standing(open_world=True), listing.defined(annotations=closed)).open_world
