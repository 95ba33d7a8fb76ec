"""Whether what the log says of the tools of MCP servers can follow what it said of them before.

A tool in quarantine is accepted by an operator, who is named, and for the definition that was seen:
a pin of any other would be one that nobody was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from remit.ledger.fields import lacks, text, wrong

Document = Mapping[str, Any]


class ToolStory:
    """What stands of each tool; `steps` take its entries, in order."""

    def __init__(self) -> None:
        self._quarantined: dict[tuple[str, str], str | None] = {}
        self._pinning: tuple[tuple[str, str], str, bool] | None = None
        self.steps: Mapping[str, Callable[[int, Document], None]] = {
            "tool.quarantined": self._held,
            "tool.released": self._released,
            "tool.pinned": self._pinned,
            "tool.pin_failed": self._failed,
        }

    def _held(self, index: int, entry: Document) -> None:
        digest = entry.get("digest")
        if digest is not None and not isinstance(digest, str):
            raise lacks(index, "digest")
        text(index, entry, "state")
        self._quarantined[_name(index, entry)] = digest
        self._pinning = None

    def _released(self, index: int, entry: Document) -> None:
        self._quarantined.pop(_name(index, entry), None)
        self._pinning = None

    def _pinned(self, index: int, entry: Document) -> None:
        name, digest = _name(index, entry), text(index, entry, "digest")
        text(index, entry, "operator")
        held = name in self._quarantined
        if self._quarantined.pop(name, digest) != digest:
            raise wrong(index, "the definition that was accepted is not the one that was seen")
        self._pinning = (name, digest, held)

    def _failed(self, index: int, entry: Document) -> None:
        name, digest = _name(index, entry), text(index, entry, "digest")
        if self._pinning is None or self._pinning[:2] != (name, digest):
            raise wrong(index, "what failed was not about to be accepted")
        if self._pinning[2]:
            self._quarantined[name] = digest
        self._pinning = None


def _name(index: int, entry: Document) -> tuple[str, str]:
    return text(index, entry, "server"), text(index, entry, "tool")
