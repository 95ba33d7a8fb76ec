"""Which slots are kept: numbers and times alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remit.runners.pool import (
    AT_ONCE,
    BURST,
    COST,
    MIB,
    STUBBORN,
    Keep,
    Pool,
    SlotClass,
    Waiting,
    apportion,
)

SHELL = SlotClass(profile="a", kind="shell", tmp_mb=8, open_files=256)
OTHER = SlotClass(profile="a", kind="shell", tmp_mb=16, open_files=256)
PYTHON = SlotClass(profile="a", kind="python", tmp_mb=8, open_files=256, prefix=("python3",))
FOREIGN = SlotClass(profile="b", kind="shell", tmp_mb=8, open_files=256)

_ids = itertools.count()


def _pool(*classes: SlotClass, size: int = 4, rate: float = 1_000, memory: int = 256) -> Pool:
    keep = Keep(sizes={"shell": size, "python": size}, max_age_s=300, memory_bytes=memory * MIB)
    return Pool({"a": keep, "b": keep}, classes, refill_per_s=rate, now=0)


def _made(pool: Pool, of: SlotClass, *, until: float = 300, memory: int | None = None) -> Waiting:
    slot = Waiting(id=f"slot-{next(_ids)}", of=of, until=until)
    pool.made(slot, memory_bytes=memory)
    return slot


def _fill(pool: Pool, now: float = 0, most: int = 1_000) -> list[Waiting]:
    made: list[Waiting] = []
    while len(made) < most and (of := pool.next(now)) is not None:
        made.append(_made(pool, of))
    return made


def test_a_slot_is_given_once() -> None:
    pool = _pool(SHELL, size=1)
    (slot,) = _fill(pool)
    assert pool.take(SHELL, 0) == slot
    assert pool.take(SHELL, 0) is None


def test_what_no_slot_is_kept_for_gets_none() -> None:
    pool = _pool(SHELL)
    _fill(pool)
    assert not pool.keeps(OTHER)
    assert pool.take(OTHER, 0) is None


def test_a_slot_of_another_profile_kind_or_limit_is_never_given() -> None:
    pool = _pool(SHELL, OTHER, PYTHON, FOREIGN)
    slots = _fill(pool, now=1_000)
    assert {slot.of for slot in slots} == {SHELL, OTHER, PYTHON, FOREIGN}
    for of in (SHELL, OTHER, PYTHON, FOREIGN):
        assert (taken := pool.take(of, 0)) is not None
        assert taken.of == of


def test_a_taken_slot_is_replaced_at_once() -> None:
    pool = _pool(SHELL)
    _fill(pool)
    assert pool.next(1) is None
    pool.take(SHELL, 1)
    assert pool.next(1) == SHELL


def test_slots_are_made_no_faster_than_the_rate_after_a_burst() -> None:
    pool = _pool(SHELL, size=64, rate=10)
    assert len(_fill(pool, 0)) == BURST
    assert _fill(pool, 0.05) == []
    assert len(_fill(pool, 0.5)) == 5
    assert pool.wake_s(0.5) == pytest.approx(0.1)


def test_only_so_many_are_made_at_a_time() -> None:
    pool = _pool(SHELL)
    assert [pool.next(0) for _ in range(AT_ONCE + 1)] == [*[SHELL] * AT_ONCE, None]


def test_a_failure_neither_delays_the_next_nor_takes_a_waiting_slot_away() -> None:
    pool = _pool(SHELL)
    _fill(pool, most=2)
    assert pool.next(0) == SHELL
    pool.failed(SHELL, 0)
    assert pool.waiting("shell") == 2
    assert pool.next(0) == SHELL


def test_a_class_that_fails_and_fails_holds_nobody_up_and_is_tried_again() -> None:
    pool = _pool(SHELL, PYTHON)
    now, failures = 0.0, 0
    while failures < STUBBORN:
        now += 1
        while (of := pool.next(now)) is SHELL:
            _made(pool, SHELL)
        assert of == PYTHON
        pool.failed(PYTHON, now)
        failures += 1
    while pool.next(now) == SHELL:
        _made(pool, SHELL)
    assert pool.waiting("shell") == 4
    pool.take(SHELL, now)
    assert pool.next(now) == SHELL
    assert pool.next(now + 1.1) == PYTHON
    _made(pool, PYTHON)
    assert pool.next(now + 1.1) == PYTHON


def test_memory_bounds_them_too_by_what_one_was_seen_to_take() -> None:
    pool = _pool(SHELL, size=64, memory=32)
    assert pool.next(0) == SHELL
    _made(pool, SHELL, memory=10 * MIB)
    assert len(_fill(pool, 0)) == 2
    assert pool.next(9) is None


def test_a_slot_that_is_too_old_is_not_given_and_taken_out() -> None:
    pool = _pool(SHELL, size=2)
    pool.next(0)
    pool.next(0)
    old, young = _made(pool, SHELL, until=10), _made(pool, SHELL, until=20)
    assert pool.wake_s(4) == pytest.approx(6)
    assert pool.take(SHELL, 15) == young
    assert pool.old(15) == [old]
    assert pool.waiting("shell") == 0


def test_a_drained_pool_is_empty_and_fills_again() -> None:
    pool = _pool(SHELL, PYTHON)
    slots = _fill(pool, 0)
    assert sorted(slot.id for slot in pool.drain()) == sorted(slot.id for slot in slots)
    assert pool.take(SHELL, 0) is None
    assert len(_fill(pool, 1)) == 8


def test_what_is_asked_for_most_gets_most_slots() -> None:
    pool = _pool(SHELL, OTHER, size=4)
    for _ in range(30):
        pool.take(OTHER, 0)
    assert [slot.of for slot in _fill(pool)].count(OTHER) == 4


def test_demand_is_forgotten_again() -> None:
    pool = _pool(SHELL, OTHER, size=4)
    for _ in range(30):
        pool.take(OTHER, 0)
    for minute in range(1, 12):
        assert pool.wake_s(60.0 * minute) is not None
    assert [slot.of for slot in _fill(pool, 1_000)].count(SHELL) == 2


def test_a_profile_that_keeps_none_gets_none() -> None:
    pool = _pool(SHELL, size=0)
    assert pool.most == 0
    assert pool.next(0) is None
    assert pool.wake_s(0) is None


@given(
    st.integers(min_value=0, max_value=64),
    st.lists(st.floats(min_value=1, max_value=1e6), min_size=1, max_size=20),
)
def test_shares_add_up_whatever_the_weights(size: int, weights: list[float]) -> None:
    of = {
        SlotClass(profile="a", kind="shell", tmp_mb=number, open_files=16): weight
        for number, weight in enumerate(weights)
    }
    shares = apportion(size, of)
    assert sum(shares.values()) == size
    assert all(share >= 0 for share in shares.values())
    for one, other in itertools.combinations(of, 2):
        if of[one] > of[other]:
            assert shares[one] >= shares[other]


class PoolMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, the bounds hold and no slot is given twice."""

    classes = (SHELL, OTHER, PYTHON, FOREIGN)
    size, memory = 3, 30 * MIB

    def __init__(self) -> None:
        super().__init__()
        keep = Keep(
            sizes={"shell": self.size, "python": self.size},
            max_age_s=10,
            memory_bytes=self.memory,
        )
        self.pool = Pool({"a": keep, "b": keep}, self.classes, refill_per_s=5, now=0)
        self.now = 0.0
        self.begun = 0
        self.pending: list[SlotClass] = []
        self.waiting: dict[str, Waiting] = {}
        self.seen: set[str] = set()

    @rule(seconds=st.floats(min_value=0, max_value=4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        if (of := self.pool.next(self.now)) is not None:
            self.begun += 1
            self.pending.append(of)

    @precondition(lambda self: self.pending)
    @rule()
    def stand(self) -> None:
        slot = _made(self.pool, self.pending.pop(0), until=self.now + 10)
        self.waiting[slot.id] = slot

    @precondition(lambda self: self.pending)
    @rule()
    def fail(self) -> None:
        self.pool.failed(self.pending.pop(0), self.now)

    @rule(of=st.sampled_from(classes))
    def take(self, of: SlotClass) -> None:
        if (slot := self.pool.take(of, self.now)) is None:
            return
        assert slot.of == of
        assert slot.until > self.now
        assert slot.id not in self.seen
        self.seen.add(slot.id)
        del self.waiting[slot.id]

    @rule()
    def retire(self) -> None:
        for slot in self.pool.old(self.now):
            del self.waiting[slot.id]

    @precondition(lambda self: self.waiting)
    @rule()
    def die(self) -> None:
        slot_id = next(iter(self.waiting))
        self.pool.lost(slot_id)
        del self.waiting[slot_id]

    @rule()
    def drain(self) -> None:
        assert {slot.id for slot in self.pool.drain()} == set(self.waiting)
        self.waiting.clear()

    @invariant()
    def bounded(self) -> None:
        there = [*self.pending, *(slot.of for slot in self.waiting.values())]
        assert len(self.pending) <= AT_ONCE
        assert self.begun <= BURST + 5 * self.now + 1e-6
        for profile, kind in itertools.product("ab", COST):
            held = [of for of in there if (of.profile, of.kind) == (profile, kind)]
            assert len(held) <= self.size
        for profile in "ab":
            assert sum(COST[of.kind] for of in there if of.profile == profile) <= self.memory
        assert self.pool.waiting("shell") + self.pool.waiting("python") == len(self.waiting)


TestPoolMachine = PoolMachine.TestCase
