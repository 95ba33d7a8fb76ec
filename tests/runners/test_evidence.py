"""What an end looked like, as evidence: pure functions."""

from __future__ import annotations

import pytest

from remit.runners.evidence import CAME_MS, UNSEEN, came, destruction, now_ms

GONE = {
    "processes_left": 0,
    "cgroup_removed": True,
    "mounts_left": 0,
    "directory_removed": True,
    "took_us": 9_000,
    "seen_us": {"processes": 1_000, "cgroup": 5_000, "mounts": 9_000, "directory": 9_000},
}


def test_times_are_those_at_which_each_was_seen_gone() -> None:
    found = destruction({**GONE, CAME_MS: 1_000_009}, "one", lease_left=False, proxy_ms=7)
    assert found.complete
    seen = dict(found.seen_ms)
    assert abs(seen.pop("directory") - now_ms()) < 5_000  # the lease file goes last, here
    assert seen == {"processes": 1_000_001, "cgroup": 1_000_005, "mounts": 1_000_009, "proxy": 7}


def test_an_evidence_is_marked_once() -> None:
    assert came({CAME_MS: 5})[CAME_MS] == 5
    assert abs(came({})[CAME_MS] - now_ms()) < 5_000


@pytest.mark.parametrize(
    "change",
    [
        {"processes_left": 1},
        {"cgroup_removed": False},
        {"mounts_left": 1},
        {"directory_removed": False},
    ],
)
def test_whatever_is_left_it_is_not_complete(change: dict[str, object]) -> None:
    seen = {**GONE["seen_us"], "directory": None}  # type: ignore[dict-item]  # of many types
    assert not destruction({**GONE, "seen_us": seen, **change}, "one", lease_left=False).complete


def test_a_lease_or_a_way_out_that_is_left_is_not_complete() -> None:
    left = destruction(GONE, "one", lease_left=True)
    assert not left.complete
    assert "directory" not in left.seen_ms
    open_still = destruction(GONE, "one", lease_left=False, proxy_closed=False, proxy_ms=5)
    assert not open_still.complete
    assert "proxy" not in open_still.seen_ms


def test_what_nobody_saw_is_evidence_of_nothing() -> None:
    found = destruction(UNSEEN, "one", lease_left=True)
    assert not found.complete
    assert dict(found.seen_ms) == {}
    assert found.note is not None
