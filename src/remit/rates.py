"""Rate limits in memory: protection against floods, not accounting.

The generic cell rate algorithm (GCRA), in the form that keeps one time per key: the earliest
moment at which the next hit would come at the steady rate. They may be lost at restart and are
kept per process. What costs money belongs in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

MINUTE_NS = 60_000_000_000
MAX_KEYS = 100_000
"""Keys remembered at once; when there are more, those with nothing to remember go first."""


class MemoryRates:
    """Implements the `Rates` port: so many hits a minute for each key, all at once if it likes.

    Args:
        per_minute: for each scope, how many hits a key may have in a minute; a scope that is
            not named is not limited.
        now_ns: a clock that never goes back, in nanoseconds.
    """

    def __init__(
        self, per_minute: Mapping[str, int], *, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._interval_ns = {scope: MINUTE_NS // count for scope, count in per_minute.items()}
        self._due_ns: dict[tuple[str, str], int] = {}
        self._now_ns = now_ns

    def hit(self, scope: str, key: str) -> int | None:
        """Count one; None if it is within the limit, else milliseconds until it would be."""
        interval = self._interval_ns.get(scope)
        if interval is None:
            return None
        now = self._now_ns()
        due = max(now, self._due_ns.get((scope, key), 0))
        over = due + interval - now - MINUTE_NS
        if over > 0:
            return max(1, over // 1_000_000)
        if len(self._due_ns) >= MAX_KEYS:
            self._forget(now)
        self._due_ns[scope, key] = due + interval
        return None

    def _forget(self, now: int) -> None:
        self._due_ns = {key: due for key, due in self._due_ns.items() if due > now}
        while len(self._due_ns) >= MAX_KEYS:
            self._due_ns.pop(next(iter(self._due_ns)))
