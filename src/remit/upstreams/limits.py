"""How much of a server is borne."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one conversation; times in seconds, sizes in bytes.

    A message that nobody asked for (a notification, a request, an empty line, a late answer)
    costs one token and one more for each 4 KiB; `burst` tokens are there at first, and `per_s`
    come back each second.
    """

    line_bytes: int = 4 * 1024 * 1024
    depth: int = 64
    values: int = 250_000
    """Values of one message: those of a longer one would hold up everybody while they are read."""
    open_s: float = 30.0
    unanswered_s: float = 5.0
    """How long `server/discover` may stay without an answer before the handshake is tried."""
    call_s: float = 60.0
    list_s: float = 30.0
    write_s: float = 10.0
    in_flight: int = 128
    unwritten: int = 256
    late: int = 256
    """How many requests may stay without an answer after they were given up."""
    burst: int = 10_000
    per_s: float = 1_000.0
    pages: int = 100
    tools: int = 10_000
    list_bytes: int = 16 * 1024 * 1024
    cursor_chars: int = 4096
