"""The clock that runs in production: the machine's time, and names from its random source."""

from __future__ import annotations

import base64
import os
import time


class SystemClock:
    """Time from the operating system; names from 128 random bits.

    Does not promise that time never goes back: the machine's administrator sets it.
    """

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000

    def new_id(self, prefix: str) -> str:
        """The prefix, an underscore and 26 lower-case base32 characters."""
        return f"{prefix}_{base64.b32encode(os.urandom(16))[:26].decode('ascii').lower()}"
