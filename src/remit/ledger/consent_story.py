"""What the log says of people's consents: each names whose it is, and who ended it.

Nothing can run on them: whether a run could be lent what was consented to, its own entries say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from remit.ledger.fields import lacks, text

Document = Mapping[str, Any]


class ConsentStory:
    """Takes the entries of consents; `steps` by event."""

    def __init__(self) -> None:
        self.steps: Mapping[str, Callable[[int, Document], None]] = {
            "consent.given": self._given,
            "consent.revoked": self._revoked,
        }

    def _given(self, index: int, entry: Document) -> None:
        for name in ("credential", "tenant", "subject", "server", "authorization_server", "key"):
            text(index, entry, name)

    def _revoked(self, index: int, entry: Document) -> None:
        for name in ("credential", "tenant", "subject", "operator"):
            text(index, entry, name)
        if not isinstance(entry.get("confirmed"), bool):
            raise lacks(index, "confirmed")
