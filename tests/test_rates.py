"""Rate limits: so many a minute, each key for itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.rates import MINUTE_NS, MemoryRates

pytestmark = pytest.mark.threat("T-05")


class Watch:
    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns


def test_hits_within_the_limit_pass_and_the_next_says_how_long_to_wait() -> None:
    watch = Watch()
    rates = MemoryRates({"caller": 3}, now_ns=watch)
    assert [rates.hit("caller", "a") for _ in range(3)] == [None] * 3
    wait = rates.hit("caller", "a")
    assert wait == 20_000
    watch.ns += wait * 1_000_000
    assert rates.hit("caller", "a") is None


def test_keys_and_scopes_do_not_share_a_limit() -> None:
    rates = MemoryRates({"caller": 1, "source": 1}, now_ns=Watch())
    assert rates.hit("caller", "a") is None
    assert rates.hit("caller", "b") is None
    assert rates.hit("source", "a") is None
    assert rates.hit("caller", "a") is not None


def test_scope_without_a_limit_is_not_limited() -> None:
    rates = MemoryRates({})
    assert all(rates.hit("other", "a") is None for _ in range(1000))


def test_many_keys_do_not_grow_memory_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.rates.MAX_KEYS", 100)
    rates = MemoryRates({"source": 5}, now_ns=Watch())
    for number in range(1000):
        rates.hit("source", str(number))
    assert len(rates._due_ns) <= 100


@given(st.integers(1, 50), st.lists(st.integers(0, 10_000), max_size=200))
def test_no_minute_sees_more_than_twice_the_limit(limit: int, gaps_ms: list[int]) -> None:
    watch = Watch()
    rates = MemoryRates({"caller": limit}, now_ns=watch)
    passed: list[int] = []
    for gap in gaps_ms:
        watch.ns += gap * 1_000_000
        if rates.hit("caller", "a") is None:
            passed.append(watch.ns)
    for start in passed:
        assert sum(start <= one < start + MINUTE_NS for one in passed) <= 2 * limit
