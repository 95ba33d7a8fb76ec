"""Runs that are spoken with, played by a coroutine of this process: no sandbox, no descriptor.

from remit.testing.runner import NoopRunner
from remit.testing.spoken import SpeakerInput, SpeakerOutput

async def shout(spec: RunSpec, given: SpeakerInput, told: SpeakerOutput) -> int:
    while line := await given.readline():
        await told.write(line.upper())
    return 0

runner = NoopRunner(speaker=shout)             # for runs whose spec says `dialogue`
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from remit.model import Ending, RunResult, RunSpec

ROOM = 65_536
"""What either way holds that nobody has read, in bytes: as much as a pipe."""


class Flow:
    """Bytes one way, `ROOM` of them at most. Any number may wait at either end."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._closed = False
        self._broken = False
        self._waiting: list[asyncio.Future[None]] = []

    def close(self) -> None:
        """Nothing more comes; what is held is still read."""
        self._closed = True
        self._wake()

    def abandon(self) -> None:
        """Nobody reads any more: what is held is lost, and writing fails."""
        self._closed = self._broken = True
        self._held.clear()
        self._wake()

    async def write(self, data: bytes) -> None:
        """All of it, as there is room.

        Raises:
            BrokenPipeError: nobody reads any more, or it was closed at this end.
        """
        rest = memoryview(bytes(data))
        while True:
            if self._broken or self._closed:
                raise BrokenPipeError
            room = ROOM - len(self._held)
            self._held += rest[:room]
            rest = rest[room:]
            self._wake()
            if not rest:
                return
            await self._change()

    async def read(self, most: int) -> bytes:
        """What is held, once there is any; none at the end."""
        while not self._held and not self._closed:
            await self._change()
        return self._take(most)

    async def readline(self) -> bytes:
        """One line with its end; what is left of one at the end, or where a line has no room."""
        while (end := self._held.find(b"\n")) < 0 and len(self._held) < ROOM and not self._closed:
            await self._change()
        return self._take(end + 1 if end >= 0 else ROOM)

    def _take(self, most: int) -> bytes:
        data = bytes(self._held[:most])
        del self._held[:most]
        self._wake()
        return data

    async def _change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)


class SpeakerInput:
    """The standard input of a run that is played."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    async def read(self, most: int = ROOM) -> bytes:
        """The next bytes, at most so many; none at the end."""
        return await self._flow.read(most)

    async def readline(self) -> bytes:
        """The next line with its end; none at the end. A line beyond `ROOM` comes in pieces."""
        return await self._flow.readline()

    def close(self) -> None:
        """Take no more: whoever writes to the run is told that its pipe broke."""
        self._flow.abandon()


class SpeakerOutput:
    """The standard output and error of a run that is played."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.complaints = bytearray()

    async def write(self, data: bytes) -> None:
        """All of it on standard output; waits while nobody reads.

        Raises:
            BrokenPipeError: nobody will read it.
        """
        await self._flow.write(data)

    def complain(self, data: bytes) -> None:
        """On standard error, which is in the run's result."""
        self.complaints += data

    def close(self) -> None:
        """End standard output; the run goes on."""
        self._flow.close()


Speaker = Callable[[RunSpec, SpeakerInput, SpeakerOutput], Awaitable[int | None]]
"""Plays a run: gives its exit code, None for 0. One that raises exits with 1."""


async def cat(_: RunSpec, given: SpeakerInput, told: SpeakerOutput) -> int:
    """What `/bin/cat` does."""
    while data := await given.read():
        await told.write(data)
    return 0


class PlayedDialogue:
    """A `Dialogue` over two flows."""

    def __init__(self, given: Flow, told: Flow) -> None:
        self._given = given
        self._told = told

    async def read(self) -> bytes:
        return await self._told.read(ROOM)

    async def write(self, data: bytes, /) -> None:
        await self._given.write(data)

    def close_input(self) -> None:
        self._given.close()


class Spoken:
    """One run that is played: held until `start`, then a task until it ends or is stopped."""

    def __init__(self, speaker: Speaker, spec: RunSpec) -> None:
        self._speaker = speaker
        self._spec = spec
        self._ended = asyncio.Event()
        self._result = RunResult(ending=Ending.NOT_STARTED)
        self._given, self._told = Flow(), Flow()
        self._output = SpeakerOutput(self._told)
        self._task: asyncio.Task[int] | None = None
        self.dialogue = PlayedDialogue(self._given, self._told)

    def start(self) -> None:
        """Let it go."""
        self._task = asyncio.get_running_loop().create_task(self._play())
        self._task.add_done_callback(self._over)

    async def _play(self) -> int:
        try:
            return await self._speaker(self._spec, SpeakerInput(self._given), self._output) or 0
        except Exception as exc:  # noqa: BLE001 - a program that dies of whatever it likes
            self._output.complain(f"{type(exc).__name__}: {exc}\n".encode())
            return 1

    def _over(self, task: asyncio.Task[int]) -> None:
        """Also where it was stopped before its first step."""
        self._given.abandon()
        self._told.close()
        code = None if task.cancelled() else task.result()
        ending = Ending.CANCELLED if code is None else Ending.EXIT
        stderr = bytes(self._output.complaints)
        self._result = RunResult(ending=ending, exit_code=code, stderr=stderr)
        self._ended.set()

    async def result(self) -> RunResult:
        """How it ended, once it has; there is no standard output in it."""
        await self._ended.wait()
        return self._result

    async def stop(self) -> None:
        """End it, if it goes; what it said before can still be read."""
        if self._task is None:
            self._given.abandon()
            self._told.close()
            self._ended.set()
        elif not self._task.done():
            self._task.cancel()
            await self._ended.wait()

    async def destroy(self) -> None:
        """End it and lose what nobody read."""
        await self.stop()
        self._given.abandon()
        self._told.abandon()
