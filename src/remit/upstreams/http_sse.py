"""Server-sent events, as the WHATWG's HTML standard §9.2 reads them, from bytes, bounded."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from remit.upstreams.messages import invalid

BURST = 10_000
PER_S = 1_000.0
"""How many lines that give no message a stream may have at once, and each second after that: so
many that no sign of life is refused, and so few that reading them holds up nobody."""

_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `data` has its lines joined by newlines."""

    name: bytes
    data: bytes


class Events:
    """Reads one stream.

    Args:
        most: bytes that one event may have, its names and comments included.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        self._searched = 0
        self._first = True
        self._after_return = False
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._lines = 0
        self._idle_left = float(BURST)
        self._counted = time.monotonic()
        self.last_id = b""
        self.retry_ms: int | None = None

    def again(self) -> Events:
        """A reader for the same stream after it was taken up again."""
        found = Events(self._most)
        found.last_id, found.retry_ms = self.last_id, self.retry_ms
        return found

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are whole with these bytes.

        Raises:
            UpstreamFault: `upstream_invalid`: an event is too long, or nothing comes but lines that
                say nothing.
        """
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        if chunk:
            self._after_return = chunk.endswith(b"\r")
        self._held += chunk
        begin = 0
        for end in _END.finditer(self._held, self._searched):
            event = self._line(bytes(self._held[begin : end.start()]))
            begin = end.end()
            if event is not None:
                yield event
        del self._held[:begin]
        self._searched = len(self._held)
        self._check(len(self._held))

    def _check(self, more: int) -> None:
        if self._size + more > self._most:
            raise invalid(f"the MCP server sent an event longer than {self._most} bytes")

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        self._lines += 1
        if not line:
            return self._whole()
        self._check(len(line) + 1)
        self._size += len(line) + 1
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif field == b"id" and b"\0" not in value and len(value) <= 1024:
            self.last_id = value
        elif field == b"retry" and value.isdigit() and len(value) <= 9:
            self.retry_ms = int(value)
        return None

    def _whole(self) -> Event | None:
        event = Event(self._name or b"message", b"\n".join(self._data)) if self._data else None
        if event is None or event.name != b"message" or not event.data.strip():
            self._spend(self._lines)
        self._name, self._data, self._size, self._lines = b"", [], 0, 0
        return event

    def _spend(self, lines: int) -> None:
        now = time.monotonic()
        gained = (now - self._counted) * PER_S
        self._counted = now
        self._idle_left = min(float(BURST), self._idle_left + gained) - lines
        if self._idle_left < 0:
            raise invalid("the MCP server sends more lines that say nothing than is borne")
