"""The starts that were written with their intents, until each is handed over: once.

What is in the store then says already that the run may have been let go. That it is let go once is
held here, in the only process that has its grant; after a crash nobody has it.
"""

from __future__ import annotations

from remit.ledger import rules
from remit.model import Grant


class Starts:
    """Those of one ledger; used by the event loop's thread only."""

    def __init__(self) -> None:
        self._written: dict[str, Grant] = {}

    def written(self, grant: Grant) -> Grant:
        """The grant; remembered, if its start is durable."""
        if grant.started:
            self._written[grant.run_id] = grant
        return grant

    def hand_over(self, grant: Grant, frozen: str | None, now_ms: int) -> None:
        """Let go of the start of this very grant. One that is refused is not handed over later.

        Raises:
            Refused: as `Ledger.start` says.
        """
        rules.check_handed(self._written.pop(grant.run_id, None), grant, frozen, now_ms)

    def over(self, run_id: str) -> None:
        """The run has its outcome: nobody starts it any more."""
        self._written.pop(run_id, None)
