"""A circuit breaker: after failures in a row nothing is asked until a trial went well. No I/O.

    closed ──failures in a row──▶ open, trial allowed ──trial begins──▶ trying
      ▲                              ▲        ▲                           │
      └───────── went well ──────────┼────────┼───────────────────────────┤
                        after a pause└────────┼────── failed ─────────────┤
                                              └────── given up ───────────┘

The first trial after it opened is allowed at once: what failed in a row may be one caller's
slow questions, and a server that answers a trial should not be kept from the others.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

FAILURES = 5
PAUSE_S = 1.0


class Gate(Enum):
    """What whoever wants to ask may do."""

    PASS = "pass"  # noqa: S105 - not a secret
    TRIAL = "trial"
    REFUSED = "refused"


class Breaker:
    """Counts failures in a row.

    Args:
        clock: seconds, never going back.
        failures: how many in a row open it.
        pause_s: how long nothing is asked after a trial that failed.
    """

    def __init__(
        self, clock: Callable[[], float], *, failures: int = FAILURES, pause_s: float = PAUSE_S
    ) -> None:
        self._clock = clock
        self._limit = failures
        self._pause_s = pause_s
        self._failed = 0
        self._trial_from: float | None = None
        self._trying = False

    @property
    def open(self) -> bool:
        return self._trial_from is not None

    def admit(self) -> Gate:
        """PASS while closed. TRIAL to one only, who then has to call `tried`; else REFUSED."""
        if self._trial_from is None:
            return Gate.PASS
        if self._trying or self._clock() < self._trial_from:
            return Gate.REFUSED
        self._trying = True
        return Gate.TRIAL

    def succeeded(self) -> None:
        """Something that was let pass was answered."""
        self._failed = 0

    def failed(self) -> None:
        """Something that was let pass was not. What comes in late, while open, changes nothing."""
        self._failed += 1
        if self._failed >= self._limit and self._trial_from is None:
            self._trial_from = self._clock()

    def tried(self, well: bool | None) -> None:
        """How the trial ended; None if it was given up before its end."""
        self._trying = False
        if well:
            self._trial_from = None
            self._failed = 0
        elif well is False:
            self._trial_from = self._clock() + self._pause_s
