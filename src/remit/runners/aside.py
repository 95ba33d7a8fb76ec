"""Standard error of a run that is spoken with: a server's log, which may go on for days.

It can neither fill the gateway nor end the run: of what goes beyond the limit the beginning and
the end are kept. It is taken from the pipe all the same, slowly, so that a server which floods it
is slowed down and not stuck, and costs this process next to nothing.
"""

from __future__ import annotations

import asyncio

from remit.model import Channel
from remit.runners.capture import Capture

_MARK_BYTES = 64
_PAUSE_S = 0.01
"""Between two pieces of a flood: 6 MB/s at most are thrown away."""

_LAST_PIECES = 32
"""Of what is left in the pipe at the end: more than one can hold."""


class Aside(Capture):
    """Standard error alone: half the limit for its beginning, half for its end, and a mark between."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._half = max(1, (limit - _MARK_BYTES) // 2)
        super().__init__(self._half, _nothing, loop)
        self._tail = bytearray()
        self._left_out = 0

    channels = (Channel.STDERR,)

    @property
    def flooded(self) -> bool:
        """Never a reason to end it."""
        return False

    def _overflow(self, fd: int, channel: Channel, data: bytes, room: int) -> bytes:
        """Keep the beginning as frames, and of the rest the newest bytes."""
        self._add(data[room:])
        return data[:room]

    def _add(self, data: bytes) -> None:
        self._tail += data
        over = max(0, len(self._tail) - self._half)
        del self._tail[:over]
        self._left_out += over

    def _on_readable(self, fd: int) -> None:
        if not self._tail:
            super()._on_readable(fd)
        elif self._read(fd):
            self._rest(fd, _PAUSE_S)

    def finish(self) -> None:
        for fd in list(self._open):
            for _ in range(_LAST_PIECES):
                if fd not in self._open or not self._read(fd):
                    break
        self.abandon()

    def data(self, channel: Channel) -> bytes:
        begin = super().data(channel)
        if channel is not Channel.STDERR or not self._tail:
            return begin
        mark = f"\n[{self._left_out} bytes left out]\n".encode() if self._left_out else b""
        return begin + mark + bytes(self._tail)

    def truncated(self, channel: Channel) -> bool:
        return channel is Channel.STDERR and self._left_out > 0


def _nothing() -> None:
    """No flood of it is anybody's business."""
