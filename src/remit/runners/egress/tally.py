"""What goes into a run's record: connections, refusals and bytes; no path, no header, no body."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

MAX_CONNECTIONS = 100
"""Connections told one by one; further ones are counted."""

MAX_PLACES = 100
"""Of those further ones, so many are told all the same: the first to each destination of a rule.
A run cannot hide where it went behind a hundred connections that nobody minds."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True, kw_only=True)
class Entry:
    """One connection to one destination; see `remit.model.Connection`."""

    host: str = ""
    port: int = 0
    kind: str = "http"
    opened_ms: int = field(default_factory=now_ms)
    closed_ms: int = 0
    address: str | None = None
    refused: str | None = None
    requests: int = 0
    sent: int = 0
    received: int = 0
    injected: list[str] = field(default_factory=list)
    echoed: bool = False

    def facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Tally:
    """All of a run. `budget` is how many bytes it may still send and receive."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: list[Entry] = []
        self._places: set[tuple[str, int]] = set()
        self._more = 0
        self._refused = 0
        self._sent = 0
        self._received = 0
        self._echoed = False

    def open(
        self, host: str = "", port: int = 0, kind: str = "http", *, named: bool = False
    ) -> Entry:
        """A new entry; it is in the record from now on, if there is room.

        Args:
            named: a rule of the run is about this destination.
        """
        entry = Entry(host=host, port=port, kind=kind)
        first = named and (host, port) not in self._places and len(self._places) < MAX_PLACES
        if first:
            self._places.add((host, port))
        if first or len(self._entries) < MAX_CONNECTIONS:
            self._entries.append(entry)
        else:
            self._more += 1
        return entry

    def close(self, entry: Entry) -> None:
        entry.closed_ms = entry.closed_ms or now_ms()

    def refuse(self, entry: Entry, code: str) -> None:
        entry.refused = entry.refused or code
        self._refused += 1

    def echo(self, entry: Entry) -> None:
        entry.echoed = self._echoed = True

    def count(self, entry: Entry, sent: int, received: int) -> bool:
        """Count bytes of the run's side; false once it had more than it may."""
        entry.sent += sent
        entry.received += received
        self._sent += sent
        self._received += received
        return self._sent + self._received <= self.budget

    @property
    def spent(self) -> bool:
        return self._sent + self._received > self.budget

    def facts(self) -> dict[str, Any]:
        """The record, closed now."""
        now = now_ms()
        for entry in self._entries:
            entry.closed_ms = entry.closed_ms or now
        return {
            "connections": [entry.facts() for entry in self._entries],
            "more": self._more,
            "refused": self._refused,
            "sent": self._sent,
            "received": self._received,
            "echoed": self._echoed,
            "closed_ms": now,
        }
