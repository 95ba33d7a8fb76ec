"""The contract of runs that are spoken with, for a `Runner` that has them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from remit.errors import Code, RunnerFault
from remit.model import Ending, Limits, RunSpec
from remit.ports import Dialogue, Runner
from remit.testing.runner import lease

SPOKEN = RunSpec(argv=("/bin/cat",), limits=Limits(wall_s=20), dialogue=True)
MOST_AT_ONCE = 65_536


async def heard(dialogue: Dialogue, size: int | None = None) -> bytes:
    """What is said next, up to this many bytes; without a size until the end."""
    pieces, got = [], 0
    while size is None or got < size:
        piece = await dialogue.read()
        if not piece:
            break
        assert len(piece) <= MOST_AT_ONCE
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)


class DialogueContract:
    """What a `Runner` must do for `RunSpec.dialogue`: override the `runner` fixture.

    The runner has to run `/bin/cat`, or to play it.
    """

    @pytest.fixture
    def runner(self) -> Runner:
        raise NotImplementedError

    async def test_what_is_said_is_answered_while_it_runs(self, runner: Runner) -> None:
        own = lease("spoken-answer")
        await runner.provision(own, SPOKEN)
        dialogue = runner.dialogue(own)
        await runner.start(own)
        for word in (b"one\n", b"two\n"):
            await dialogue.write(word)
            assert await heard(dialogue, len(word)) == word
        dialogue.close_input()
        assert await heard(dialogue) == b""
        result = await runner.collect(own)
        assert (result.ending, result.exit_code) == (Ending.EXIT, 0)
        assert (await runner.destroy(own)).complete

    async def test_what_is_read_is_not_in_the_result(self, runner: Runner) -> None:
        own = lease("spoken-result")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        await runner.dialogue(own).write(b"word\n")
        runner.dialogue(own).close_input()
        result = await runner.collect(own)
        assert (result.stdout, result.stdout_truncated) == (b"", False)
        assert [frame async for frame in runner.stream(own)] == []
        await runner.destroy(own)

    async def test_the_dialogue_is_the_same_object_each_time(self, runner: Runner) -> None:
        own = lease("spoken-same")
        await runner.provision(own, SPOKEN)
        dialogue = runner.dialogue(own)
        await runner.start(own)
        assert runner.dialogue(own) is dialogue
        await runner.destroy(own)

    async def test_what_it_said_before_its_end_is_still_read(self, runner: Runner) -> None:
        own = lease("spoken-late")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        dialogue = runner.dialogue(own)
        await dialogue.write(b"last words\n")
        dialogue.close_input()
        dialogue.close_input()
        await runner.collect(own)
        assert await heard(dialogue) == b"last words\n"
        assert await dialogue.read() == b""
        await runner.destroy(own)

    async def test_what_is_written_before_its_start_waits_for_it(self, runner: Runner) -> None:
        own = lease("spoken-early")
        await runner.provision(own, SPOKEN)
        dialogue = runner.dialogue(own)
        await dialogue.write(b"early\n")
        await runner.start(own)
        assert await heard(dialogue, 6) == b"early\n"
        await runner.destroy(own)

    async def test_a_megabyte_goes_each_way_at_once(self, runner: Runner) -> None:
        own = lease("spoken-large")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        dialogue = runner.dialogue(own)
        data = bytes(range(256)) * 4096
        writing = asyncio.ensure_future(dialogue.write(data))
        assert await heard(dialogue, len(data)) == data
        await writing
        await runner.destroy(own)

    async def test_a_write_waits_for_room_and_can_be_given_up(self, runner: Runner) -> None:
        own = lease("spoken-full")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        dialogue = runner.dialogue(own)
        writing = asyncio.ensure_future(dialogue.write(bytes(1 << 20)))
        await dialogue.read()  # it goes, and nobody reads on: neither way has room for all of it
        assert not writing.done()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await runner.stop(own, grace_s=0)
        assert (await runner.destroy(own)).complete

    async def test_a_read_that_is_given_up_loses_nothing(self, runner: Runner) -> None:
        own = lease("spoken-given-up")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        dialogue = runner.dialogue(own)
        reading = asyncio.ensure_future(dialogue.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await dialogue.write(b"there\n")
        assert await heard(dialogue, 6) == b"there\n"
        await runner.destroy(own)

    async def test_a_stop_ends_what_is_read_and_takes_no_more(self, runner: Runner) -> None:
        own = lease("spoken-stopped")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        dialogue = runner.dialogue(own)
        reading = asyncio.ensure_future(dialogue.read())
        await runner.stop(own, grace_s=5)
        assert await reading == b""
        with pytest.raises(OSError, match=r".*"):
            await dialogue.write(b"more")
        assert (await runner.collect(own)).ending is Ending.CANCELLED
        await runner.destroy(own)

    async def test_a_destruction_ends_both_ways(self, runner: Runner) -> None:
        own = lease("spoken-destroyed")
        await runner.provision(own, SPOKEN)
        await runner.start(own)
        dialogue = runner.dialogue(own)
        reading = asyncio.ensure_future(dialogue.read())
        assert (await runner.destroy(own)).complete
        assert await reading == b""
        assert await dialogue.read() == b""
        with pytest.raises(OSError, match=r".*"):
            await dialogue.write(b"more")
        dialogue.close_input()
        with pytest.raises(RunnerFault):
            runner.dialogue(own)

    async def test_one_that_never_started_says_nothing(self, runner: Runner) -> None:
        own = lease("spoken-never")
        await runner.provision(own, SPOKEN)
        dialogue = runner.dialogue(own)
        await runner.stop(own, grace_s=0)
        assert await dialogue.read() == b""
        assert (await runner.collect(own)).ending is Ending.NOT_STARTED
        await runner.destroy(own)

    async def test_it_has_no_other_standard_input(self, runner: Runner) -> None:
        with pytest.raises(RunnerFault) as refused:
            await runner.provision(lease("spoken-stdin"), replace(SPOKEN, stdin=b"data"))
        assert refused.value.code is Code.RUNNER_UNAVAILABLE
        assert refused.value.started is False

    async def test_without_a_sandbox_there_is_nobody_to_speak_with(self, runner: Runner) -> None:
        with pytest.raises(RunnerFault):
            runner.dialogue(lease("spoken-absent"))
