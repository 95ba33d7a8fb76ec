"""Following a run: every frame once, from anywhere, by several, and nothing that must not be seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from remit.errors import Conflict
from remit.model import Channel, Frame, Lease
from remit.stages import live as module
from remit.stages.live import Live
from remit.testing.scripted import ScriptedRunner

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-33")]

LEASE = Lease(id="run_1", gateway="gw", fence=1, deadline_ms=2**50)
FRAMES = [Frame(seq=n, channel=Channel.STDOUT, data=b"%d" % n) for n in range(4)]


class Writing(ScriptedRunner):
    """A run that writes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Frame] = []
        self.more = asyncio.Condition()
        self.ended = False

    async def write(self, *frames: Frame, end: bool = False) -> None:
        async with self.more:
            self.written += frames
            self.ended = end
            self.more.notify_all()

    async def stream(self, lease: Lease) -> AsyncIterator[Frame]:
        seen = 0
        while seen < len(self.written) or not self.ended:
            async with self.more:
                while seen == len(self.written) and not self.ended:
                    await self.more.wait()
            for frame in self.written[seen:]:
                yield frame
                seen += 1


@pytest.fixture
def runner() -> Writing:
    return Writing()


@pytest.fixture
def live(runner: Writing) -> Live:
    return Live(runner)


async def gather(live: Live, start: int = 0) -> list[Frame | str]:
    return [each async for each in live.follow("run_1", start) if each is not None]


async def test_reader_gets_every_frame_and_then_the_end(live: Live, runner: Writing) -> None:
    live.expect(LEASE)
    reading = asyncio.ensure_future(gather(live))
    live.began(LEASE, None)
    await runner.write(*FRAMES[:2])
    await runner.write(*FRAMES[2:], end=True)
    await asyncio.sleep(0)
    assert not reading.done()  # its outcome is not known yet
    live.ended("run_1")
    assert await reading == FRAMES
    assert [each async for each in live.follow("run_1", 0)] == []


async def test_several_readers_each_get_all_and_one_goes_on_where_it_broke_off(
    live: Live, runner: Writing
) -> None:
    live.began(LEASE, None)
    await runner.write(*FRAMES[:2])
    readers = [asyncio.ensure_future(gather(live, start)) for start in (0, 0, 3)]
    await runner.write(*FRAMES[2:], end=True)
    live_until_read = asyncio.gather(*readers)
    await asyncio.sleep(0.05)
    live.ended("run_1")
    assert await live_until_read == [FRAMES, FRAMES, FRAMES[3:]]


async def test_hidden_run_shows_why_and_not_a_byte(live: Live, runner: Writing) -> None:
    live.began(LEASE, "because")
    await runner.write(*FRAMES, end=True)
    reading = asyncio.ensure_future(gather(live))
    await asyncio.sleep(0)
    live.ended("run_1")
    assert await reading == ["because"]


async def test_run_that_is_over_or_never_was_ends_at_once(live: Live) -> None:
    assert await gather(live) == []
    live.began(LEASE, None)
    live.ended("run_1")
    assert await gather(live) == []


async def test_silence_is_told_so_that_a_connection_stays(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.01)
    live.expect(LEASE)
    frames = live.follow("run_1", 0)
    assert await anext(frames) is None
    live.began(LEASE, None)
    assert await anext(frames) is None
    live.ended("run_1")
    assert [each async for each in frames if each is not None] == []


async def test_readers_are_bounded_and_a_place_becomes_free(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READERS", 1)
    monkeypatch.setattr(module, "SILENCE_S", 0.01)
    live.began(LEASE, None)
    first = live.follow("run_1", 0)
    assert await anext(first) is None
    with pytest.raises(Conflict):
        live.follow("run_1", 0)
    await first.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert live.follow("run_1", 0) is not None


async def test_closing_lets_all_readers_go(live: Live) -> None:
    live.began(LEASE, None)
    reading = asyncio.ensure_future(gather(live))
    await asyncio.sleep(0)
    live.close()
    assert await reading == []
