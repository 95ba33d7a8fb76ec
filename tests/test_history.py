"""Touches come to a bounded history in which no flag is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.history import FOLDED, MAX_NAMES, MAX_TOUCHES, Trail, folded, trail_of
from remit.model import Effect, Touch

TOUCH = Touch(
    session="s",
    system="tickets",
    effect=Effect.READ,
    untrusted=False,
    sensitive=False,
    calls=1,
    last_ms=5,
)

touches = st.lists(
    st.builds(
        Touch,
        session=st.sampled_from(["", "a", "b"]),
        system=st.sampled_from(["ci", "cloud", "chat", FOLDED]),
        effect=st.sampled_from(Effect),
        untrusted=st.booleans(),
        sensitive=st.booleans(),
        calls=st.integers(1, 9),
        last_ms=st.integers(0, 99),
    ),
    max_size=12,
)


def test_nothing_touched_is_an_empty_trail() -> None:
    assert trail_of([]) == Trail()


@given(touches, st.randoms())
def test_the_order_of_touches_does_not_matter(found: list[Touch], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    assert trail_of(shuffled) == trail_of(found)


@given(touches, touches)
def test_more_touches_never_tell_less(found: list[Touch], more: list[Touch]) -> None:
    before, after = trail_of(found), trail_of(found + more)
    assert after.calls >= before.calls
    for name in ("systems", "effects", "untrusted_from", "sensitive_from"):
        assert set(getattr(before, name)) <= set(getattr(after, name))


@pytest.mark.threat("T-30")
def test_past_the_bound_the_oldest_fold_into_one_with_every_flag() -> None:
    many = [replace(TOUCH, session=f"s{n}", last_ms=10_000 - n) for n in range(MAX_TOUCHES)]
    oldest = replace(TOUCH, system="vault", effect=Effect.WRITE, sensitive=True, last_ms=1)
    kept = folded([*many, oldest])
    assert len(kept) == MAX_TOUCHES
    assert kept[:-1] == many[:-1]
    assert (kept[-1].system, kept[-1].session, kept[-1].calls) == (FOLDED, "", 2)
    trail = trail_of(kept)
    assert trail.calls == MAX_TOUCHES + 1
    assert trail.sensitive_from == (FOLDED,)
    assert trail.untrusted_from == ()
    assert folded(many) == many


def test_a_folded_touch_counts_as_every_effect_up_to_its_strongest() -> None:
    def effects(effect: Effect) -> tuple[str, ...]:
        return trail_of([replace(TOUCH, system=FOLDED, effect=effect)]).effects

    assert effects(Effect.READ) == ("read",)
    assert effects(Effect.WRITE) == ("read", "write")
    assert effects(Effect.DESTRUCTIVE) == ("destructive", "read", "write")
    assert trail_of([replace(TOUCH, effect=Effect.WRITE)]).effects == ("write",)


@pytest.mark.threat("T-30")
@pytest.mark.parametrize("flag", ["untrusted", "sensitive"])
def test_systems_past_the_bound_are_one_star(flag: str) -> None:
    every = [
        replace(TOUCH, system=f"system-{number:03d}", untrusted=True, sensitive=True)
        for number in range(MAX_NAMES + 1)
    ]
    names = getattr(trail_of(every), f"{flag}_from")
    assert names == (FOLDED, *[touch.system for touch in every[: MAX_NAMES - 1]])
    assert trail_of(every[:MAX_NAMES]).systems == tuple(t.system for t in every[:MAX_NAMES])
    assert trail_of([*every, replace(TOUCH, system=FOLDED)]).systems == trail_of(every).systems
