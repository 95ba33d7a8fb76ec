"""What a run writes, read as it comes into a buffer that cannot grow past the run's limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

from remit.model import Channel, Frame
from remit.runners.wire import close_all

_PIECE = 65_536
_PIECES_A_TURN = 8


class Capture:
    """Both channels of one run. Each keeps at most `limit` bytes; more calls `on_flood` once.

    Beyond the limit nothing is read, so a flood meets a full pipe and then the kill.
    """

    def __init__(
        self, limit: int, on_flood: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._limit = limit
        self._on_flood = on_flood
        self._loop = loop
        self._open: dict[int, Channel] = {}
        self._flooded: list[int] = []
        self._frames: list[Frame] = []
        self._size = dict.fromkeys(Channel, 0)
        self._truncated: set[Channel] = set()
        self._more = asyncio.Event()
        self.finished = False

    def open(self) -> tuple[int, int]:
        """Make the two pipes; give their write ends, which the caller passes on and closes."""
        writers = []
        for channel in Channel:
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._open[reader] = channel
            self._loop.add_reader(reader, self._on_readable, reader)
            writers.append(writer)
        return writers[0], writers[1]

    def _on_readable(self, fd: int) -> None:
        for _ in range(_PIECES_A_TURN):  # one flood must not hold up everybody else
            if fd not in self._open or not self._read(fd):
                return

    def _read(self, fd: int) -> bool:
        channel = self._open[fd]
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        if not data:
            self._close(fd)
            return False
        room = self._limit - self._size[channel]
        if len(data) > room:
            self._truncated.add(channel)
            self._close(fd)
            data = data[:room]
            self._on_flood()
        if data:
            self._size[channel] += len(data)
            self._frames.append(Frame(seq=len(self._frames), channel=channel, data=data))
            self._more.set()
        return True

    def _close(self, fd: int) -> None:
        """Stop reading. A flooded pipe stays open: a writer must meet our kill, not SIGPIPE."""
        self._loop.remove_reader(fd)
        if self._open.pop(fd) in self._truncated:
            self._flooded.append(fd)
        else:
            os.close(fd)

    def finish(self) -> None:
        """All writers are dead: take what is still in the pipes and close them.

        Does not wait for end of file, which a descriptor passed out of the sandbox could withhold.
        """
        for fd in list(self._open):
            while fd in self._open and self._read(fd):
                pass
        self.abandon()

    def abandon(self) -> None:
        """Close everything; what was read stays."""
        for fd in self._open:
            self._loop.remove_reader(fd)
        close_all([*self._open, *self._flooded])
        self._open.clear()
        self._flooded.clear()
        self.finished = True
        self._more.set()

    def data(self, channel: Channel) -> bytes:
        return b"".join(frame.data for frame in self._frames if frame.channel is channel)

    def truncated(self, channel: Channel) -> bool:
        return channel in self._truncated

    async def frames(self) -> AsyncIterator[Frame]:
        """Every frame from the first, as they come, until the end."""
        seq = 0
        while True:
            while seq < len(self._frames):
                yield self._frames[seq]
                seq += 1
            if self.finished:
                return
            self._more.clear()
            await self._more.wait()
