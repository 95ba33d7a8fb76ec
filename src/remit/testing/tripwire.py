"""Kills this process at one exact step of the path, as a power cut would.

    backends = replace(backends, ledger=Tripwire(backends.ledger, "settle", When.BEFORE))

Wraps one backend; everything but the named method passes through untouched.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from typing import Any


class When(StrEnum):
    BEFORE = "before"
    AFTER = "after"


class Tripwire:
    """A backend of which one method, when it is called for the nth time, is the end.

    Args:
        backend: what is wrapped.
        method: the name of an async method of its port.
        when: before the method does anything, or once it has returned.
        nth: which call of it; the first is 1.
    """

    def __init__(self, backend: Any, method: str, when: When, nth: int = 1) -> None:
        self._backend = backend
        self._method = method
        self._when = when
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name != self._method:
            return found

        async def tripped(*values: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._when is When.BEFORE:
                die()
            result = await found(*values, **named)
            if self._left == 0 and self._when is When.AFTER:
                die()
            return result

        return tripped


def die() -> None:
    """SIGKILL to this very process: no handler, no finally, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)
