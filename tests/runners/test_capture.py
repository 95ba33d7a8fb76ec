"""What a run writes, as it is kept and followed: real pipes, no run."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from remit.model import Channel, Frame
from remit.runners.capture import Capture

pytestmark = pytest.mark.anyio


class Writer:
    """Both ends of a capture, and how often it said that it was flooded."""

    def __init__(self, limit: int) -> None:
        self.floods = 0
        self.capture = Capture(limit, self._flooded, asyncio.get_running_loop())
        self.stdout, self.stderr = self.capture.open()

    def _flooded(self) -> None:
        self.floods += 1

    async def write(self, data: bytes, fd: int | None = None) -> None:
        await asyncio.to_thread(os.write, self.stdout if fd is None else fd, data)

    def close(self) -> None:
        for fd in (self.stdout, self.stderr):
            os.close(fd)


@contextlib.asynccontextmanager
async def written(limit: int = 1 << 20) -> AsyncIterator[Writer]:
    writer = Writer(limit)
    try:
        yield writer
    finally:
        writer.capture.finish()
        writer.close()


async def _all(capture: Capture) -> list[Frame]:
    return [frame async for frame in capture.frames()]


async def test_any_number_may_follow_and_each_sees_everything_from_the_first() -> None:
    async with written() as writer:
        early = [asyncio.ensure_future(_all(writer.capture)) for _ in range(20)]
        for number in range(25):
            await writer.write(b"%d\n" % number)
        midway = asyncio.ensure_future(_all(writer.capture))
        for number in range(25, 50):
            await writer.write(b"%d\n" % number)
        writer.capture.finish()
        late = await _all(writer.capture)
        whole = b"".join(b"%d\n" % number for number in range(50))
        for frames in [*await asyncio.gather(*early), await midway, late]:
            assert b"".join(frame.data for frame in frames) == whole
            assert [frame.seq for frame in frames] == list(range(len(frames)))


async def test_a_follower_that_never_comes_back_holds_nobody_up() -> None:
    async with written() as writer:
        stuck = writer.capture.frames()
        await writer.write(b"one")
        assert (await anext(stuck)).data == b"one"
        follower = asyncio.ensure_future(_all(writer.capture))
        for _ in range(20):
            await writer.write(b"x" * 30_000)
        writer.capture.finish()
        assert sum(len(frame.data) for frame in await follower) == 600_003


async def test_single_bytes_do_not_make_a_frame_each_for_ever() -> None:
    async with written() as writer:
        for _ in range(3_000):
            await writer.write(b".")
        writer.capture.finish()
        frames = await _all(writer.capture)
        assert sum(len(frame.data) for frame in frames) == 3_000
        assert len(frames) <= 1_500


async def test_what_rests_is_still_read_to_its_end() -> None:
    async with written() as writer:
        for _ in range(1_100):
            os.write(writer.stdout, b".")
            await asyncio.sleep(0)
        assert len(writer.capture.data(Channel.STDOUT)) <= 1_100
        writer.capture.finish()
        assert writer.capture.data(Channel.STDOUT) == b"." * 1_100


async def test_what_is_handed_over_has_its_new_owners_limit() -> None:
    async with written(limit=1 << 20) as writer:
        silent = writer.capture.silent
        floods: list[int] = []
        writer.capture.hand_over(10, lambda: floods.append(1))
        await writer.write(b"x" * 11)
        async with asyncio.timeout(5):
            while not floods:
                await asyncio.sleep(0)
        assert (writer.floods, floods) == (0, [1])
        assert (silent, writer.capture.silent) == (True, False)
        assert writer.capture.data(Channel.STDOUT) == b"x" * 10


async def test_nothing_stays_open_after_the_end() -> None:
    before = _pipes()
    async with written(limit=10) as writer:
        await writer.write(b"x" * 100)
        for _ in range(10):
            await asyncio.sleep(0)
    assert _pipes() == before


def _pipes() -> int:
    """How many ends of pipes this process holds."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return found
