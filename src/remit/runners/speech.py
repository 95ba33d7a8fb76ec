"""Standard input and output of a run that is spoken with, from the gateway's side: two pipes.

Nothing is read before it is asked for, so that a run which writes what nobody reads meets a full
pipe; nothing is written beyond what the pipe holds, so that one which does not read costs no
memory here. The pipes were made by the spawner for this run alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable

PIECE = 65_536


class Readiness:
    """One end of a pipe, and who waits until something can be done with it.

    It is watched only while somebody waits.
    """

    def __init__(
        self, watch: Callable[[int, Callable[[], None]], None], ignore: Callable[[int], object]
    ) -> None:
        self._watch = watch
        self._ignore = ignore
        self._waiting: list[asyncio.Future[None]] = []
        self.fd = -1

    async def wait(self) -> None:
        """Until it is ready, or closed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._watch(self.fd, self._wake)
        try:
            await waiter
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._rest()

    def _rest(self) -> None:
        if not self._waiting and self.fd >= 0:
            self._ignore(self.fd)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._rest()
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def close(self) -> None:
        """Close it; whoever waits goes on. Idempotent."""
        if self.fd < 0:
            return
        waiting = bool(self._waiting)
        fd = self.fd
        if waiting:
            self._ignore(fd)
        self.fd = -1
        self._wake()
        os.close(fd)


class PipeDialogue:
    """Implements `Dialogue`. Both ends are closed at the run's end at the latest.

    What the run had written by then is kept for whoever reads later, until `abandon`: at most what
    a pipe holds. Of several that write at once, each goes out whole before the next.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._input = Readiness(loop.add_writer, loop.remove_writer)
        self._output = Readiness(loop.add_reader, loop.remove_reader)
        self._turn = asyncio.Lock()
        self._rest = bytearray()
        self.connected = False

    def connect(self, feeding: int, hearing: int) -> None:
        """Take the two ends; they are this object's from here on."""
        for fd in (feeding, hearing):
            os.set_blocking(fd, False)
        self._input.fd, self._output.fd = feeding, hearing
        self.connected = True

    async def read(self) -> bytes:
        while self._output.fd >= 0:
            try:
                data = os.read(self._output.fd, PIECE)
            except BlockingIOError:
                await self._output.wait()
                continue
            if not data:
                self._output.close()
            return data
        data = bytes(self._rest[:PIECE])
        del self._rest[:PIECE]
        return data

    async def write(self, data: bytes, /) -> None:
        async with self._turn:
            left = memoryview(bytes(data))
            while left:
                if self._input.fd < 0:
                    raise BrokenPipeError("its standard input is closed")
                try:
                    left = left[os.write(self._input.fd, left[:PIECE]) :]
                except BlockingIOError:
                    await self._input.wait()

    def close_input(self) -> None:
        self._input.close()

    def over(self) -> None:
        """The run is dead: keep what it had written, and close both ends.

        Does not wait for end of file, which a descriptor passed out of the sandbox could withhold.
        """
        self._input.close()
        self.ended()

    def ended(self) -> None:
        """The run writes no more: keep what it had written, and close its output."""
        if self._output.fd >= 0:
            with contextlib.suppress(BlockingIOError):
                for _ in range(_waiting(self._output.fd) // PIECE + 1):
                    self._rest += os.read(self._output.fd, PIECE)
            self._output.close()

    def abandon(self) -> None:
        """Close both ends and lose what nobody read."""
        self._input.close()
        self._output.close()
        self._rest.clear()


def _waiting(pipe: int) -> int:
    """How many bytes wait in a pipe."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))
    return int(waiting)
