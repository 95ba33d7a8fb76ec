"""Rate limits in memory, by the `limits` library: protection against floods, not accounting.

They may be lost at restart and are kept per process. What costs money belongs in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter


class MemoryRates:
    """Implements the `Rates` port with a sliding window of one minute.

    Args:
        per_minute: for each scope, how many hits a key may have in a minute; a scope that is
            not named is not limited.
    """

    def __init__(self, per_minute: Mapping[str, int]) -> None:
        self._items = {
            scope: RateLimitItemPerMinute(count, namespace=scope)
            for scope, count in per_minute.items()
        }
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def hit(self, scope: str, key: str) -> int | None:
        """Count one; None if it is within the limit, else milliseconds until it would be."""
        item = self._items.get(scope)
        if item is None or self._limiter.hit(item, key):
            return None
        reset = self._limiter.get_window_stats(item, key).reset_time
        return max(1, int((reset - time.time()) * 1000))
