"""The gateway's ends of the pipes of a run that is spoken with: real pipes, no run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from remit.runners.speech import PIECE, PipeDialogue
from remit.runners.wire import close_all

pytestmark = pytest.mark.anyio


@dataclass(slots=True)
class Ends:
    """A dialogue, and the ends that its run would have."""

    dialogue: PipeDialogue
    reading: int
    writing: int


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    reading, feeding = os.pipe()
    hearing, writing = os.pipe()
    dialogue = PipeDialogue()
    dialogue.connect(feeding, hearing)
    yield Ends(dialogue, reading, writing)
    dialogue.abandon()
    close_all([reading, writing])


async def test_who_writes_later_waits_for_who_began(ends: Ends) -> None:
    first = asyncio.ensure_future(ends.dialogue.write(b"a" * (PIECE + 10)))
    await asyncio.sleep(0)
    assert os.read(ends.reading, PIECE) == b"a" * PIECE  # there is room, and nobody was told yet
    await ends.dialogue.write(b"b")
    assert os.read(ends.reading, PIECE) == b"a" * 10 + b"b"
    await first


async def test_a_reader_that_gives_up_leaves_what_comes_to_the_next(ends: Ends) -> None:
    os.write(ends.writing, b"said")
    assert await ends.dialogue.read() == b"said"
    waiting = asyncio.ensure_future(ends.dialogue.read())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    os.write(ends.writing, b"later")  # nobody watches it any more
    await asyncio.sleep(0)
    assert await ends.dialogue.read() == b"later"


async def test_several_may_wait_and_each_piece_is_one_reader_s(ends: Ends) -> None:
    readers = [asyncio.ensure_future(ends.dialogue.read()) for _ in range(3)]
    await asyncio.sleep(0)
    os.write(ends.writing, b"one")
    done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    assert [each.result() for each in done] == [b"one"]
    ends.dialogue.over()
    assert sorted([await each for each in readers]) == [b"", b"", b"one"]


async def test_at_the_end_what_was_written_is_kept_and_both_ends_are_closed(ends: Ends) -> None:
    os.write(ends.writing, b"x" * PIECE)
    ends.dialogue.over()
    with pytest.raises(BrokenPipeError):
        os.write(ends.writing, b"more")
    assert os.read(ends.reading, 1) == b""
    assert await ends.dialogue.read() == b"x" * PIECE
    assert await ends.dialogue.read() == b""


async def test_an_end_that_another_holds_open_is_an_end_all_the_same(ends: Ends) -> None:
    kept = os.dup(ends.writing)
    reading = asyncio.ensure_future(ends.dialogue.read())
    await asyncio.sleep(0)
    ends.dialogue.over()
    assert await reading == b""
    os.close(kept)


async def test_after_it_was_given_up_nothing_is_heard(ends: Ends) -> None:
    os.write(ends.writing, b"unheard")
    ends.dialogue.abandon()
    ends.dialogue.abandon()
    assert await ends.dialogue.read() == b""
    with pytest.raises(BrokenPipeError):
        await ends.dialogue.write(b"x")
