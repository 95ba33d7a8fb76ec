"""What a run writes, read as it comes into a buffer that cannot grow past the run's limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

from remit.model import Channel, Frame
from remit.runners.wire import close_all

PIECE = 65_536
_PIECES_A_TURN = 8
_FREE_FRAMES = 1_000
_SMALL = 1_024
_LET_GATHER_S = 0.05
"""A command that writes single bytes would make a frame of each: after so many frames, pieces this
small are let gather in the pipe for a moment, so that frames stay few."""


class Capture:
    """Both channels of one run. Each keeps at most `limit` bytes; more calls `on_flood` once.

    Beyond the limit nothing is read, so a flood meets a full pipe and then the kill. Whoever
    follows the frames reads what is kept anyway: any number may, each at its own speed.
    """

    channels: tuple[Channel, ...] = tuple(Channel)

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
        self._resting: dict[int, asyncio.TimerHandle] = {}
        self.finished = False

    @property
    def silent(self) -> bool:
        """Whether nothing was written yet."""
        return not self._frames

    def hand_over(self, limit: int, on_flood: Callable[[], None]) -> None:
        """From here on it is another's: its limit, and whom a flood is told."""
        self._limit, self._on_flood = limit, on_flood

    def open(self) -> tuple[int, ...]:
        """Make a pipe for each of `channels`; give their write ends, which the caller passes on
        and closes."""
        writers = []
        for channel in self.channels:
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._open[reader] = channel
            self._loop.add_reader(reader, self._on_readable, reader)
            writers.append(writer)
        return tuple(writers)

    def _on_readable(self, fd: int) -> None:
        for _ in range(_PIECES_A_TURN):  # one flood must not hold up everybody else
            if fd not in self._open or not self._read(fd):
                return
            small = self._frames and len(self._frames[-1].data) < _SMALL
            if small and len(self._frames) > _FREE_FRAMES and fd in self._open:
                self._rest(fd)
                return

    def _read(self, fd: int) -> bool:
        channel = self._open[fd]
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return False
        if not data:
            self._close(fd)
            return False
        room = self._limit - self._size[channel]
        if len(data) > room:
            data = self._overflow(fd, channel, data, room)
        if data:
            self._size[channel] += len(data)
            self._frames.append(Frame(seq=len(self._frames), channel=channel, data=data))
            self._more.set()
        return True

    def _overflow(self, fd: int, channel: Channel, data: bytes, room: int) -> bytes:
        """More came than there is room for; give what of it is kept."""
        self._truncated.add(channel)
        self._close(fd)
        self._on_flood()
        return data[:room]

    def _rest(self, fd: int, seconds: float = _LET_GATHER_S) -> None:
        """Leave a pipe alone for a moment."""
        self._loop.remove_reader(fd)
        self._resting[fd] = self._loop.call_later(seconds, self._resume, fd)

    def _resume(self, fd: int) -> None:
        del self._resting[fd]
        self._loop.add_reader(fd, self._on_readable, fd)

    def _close(self, fd: int) -> None:
        """Stop reading. A flooded pipe stays open: a writer must meet our kill, not SIGPIPE."""
        self._unwatch(fd)
        if self._open.pop(fd) in self._truncated:
            self._flooded.append(fd)
        else:
            os.close(fd)

    def _unwatch(self, fd: int) -> None:
        if (resting := self._resting.pop(fd, None)) is not None:
            resting.cancel()
        self._loop.remove_reader(fd)

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
            self._unwatch(fd)
        close_all([*self._open, *self._flooded])
        self._open.clear()
        self._flooded.clear()
        self.finished = True
        self._more.set()

    def data(self, channel: Channel) -> bytes:
        return b"".join(frame.data for frame in self._frames if frame.channel is channel)

    @property
    def flooded(self) -> bool:
        """Whether more was written than the run may write."""
        return bool(self._truncated)

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
