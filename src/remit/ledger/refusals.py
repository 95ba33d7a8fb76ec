"""Refusals that get no entry of their own: one entry per source, code and minute.

A flood must cost little, so the counts are in memory until their minute is over; a crash loses
at most those of the last minute. The number of sources counted apart is bounded.
"""

from __future__ import annotations

import threading

from remit.ledger import events
from remit.model import EntryDraft

MAX_SOURCES = 4096
OTHERS = "others"
"""Stands for all sources beyond the bound within one minute."""


class RefusalCounts:
    """Counts of the current minute and those not yet written; safe to use from two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, str, str], int] = {}

    def count(self, source: str, code: str, now_ms: int) -> None:
        minute = now_ms // 60_000
        with self._lock:
            key = (minute, source, code)
            if key not in self._counts and len(self._counts) >= MAX_SOURCES:
                key = (minute, OTHERS, code)
            self._counts[key] = self._counts.get(key, 0) + 1

    def due(self, now_ms: int) -> bool:
        """Whether a minute with counts is over."""
        minute = now_ms // 60_000
        first = next(iter(self._counts), None)
        return first is not None and first[0] != minute

    @property
    def pending(self) -> bool:
        return bool(self._counts)

    def take(self, now_ms: int | None) -> list[EntryDraft]:
        """Entries for all minutes but the one of `now_ms`; for all of them if that is None."""
        current = None if now_ms is None else now_ms // 60_000
        with self._lock:
            done = sorted(key for key in self._counts if key[0] != current)
            return [
                events.refusals(source, code, minute, self._counts.pop((minute, source, code)))
                for minute, source, code in done
            ]
