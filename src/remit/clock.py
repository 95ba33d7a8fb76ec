"""The clock that runs in production: the machine's time, and names from its random source."""

from __future__ import annotations

import os
import time


class SystemClock:
    """Time from the operating system; names from 104 random bits.

    Does not promise that time never goes back: the machine's administrator sets it.
    """

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000

    def new_id(self, prefix: str) -> str:
        """The prefix, an underscore and 104 random bits as 26 lower-case hex digits."""
        return f"{prefix}_{os.urandom(13).hex()}"
