"""Runs that are spoken with, in real sandboxes: what goes over their pipes, and what is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from remit.errors import RunnerFault
from remit.model import Channel, Ending, Lease, RunResult, RunSpec
from remit.ports import Dialogue
from remit.runners.channel import Report
from remit.runners.sandbox import SandboxRunner
from remit.runners.wire import close_all
from remit.testing.dialogue_contract import heard
from tests.runners.support import begin, groups_naming, limited, new_lease, python, shell

pytestmark = [pytest.mark.anyio, pytest.mark.needs("bwrap", "userns", "cgroup")]

ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"answer": json.loads(line)}), flush=True)
"""


def speaks(spec: RunSpec) -> RunSpec:
    """The same command, spoken with."""
    return RunSpec(argv=spec.argv, limits=spec.limits, env=spec.env, dialogue=True)


@asynccontextmanager
async def spoken(
    runner: SandboxRunner, spec: RunSpec, lease: Lease | None = None
) -> AsyncIterator[tuple[Lease, Dialogue]]:
    """A run that is spoken with; nothing of it is left afterwards."""
    own = await begin(runner, speaks(spec), lease)
    try:
        yield own, runner.dialogue(own)
    finally:
        evidence = await runner.destroy(own)
        assert evidence.complete, evidence
        assert groups_naming(own.id) == []


async def line(dialogue: Dialogue) -> bytes:
    """All up to the end of a line; the run must not have written more."""
    said = b""
    while not said.endswith(b"\n"):
        piece = await dialogue.read()
        assert piece, said
        said += piece
    return said


def descriptors() -> dict[str, str]:
    """What this process has open."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


async def test_a_server_answers_question_by_question(runner: SandboxRunner) -> None:
    async with spoken(runner, python(ECHO)) as (own, dialogue):
        for number in range(50):
            await dialogue.write(json.dumps({"n": number}).encode() + b"\n")
            assert json.loads(await line(dialogue)) == {"answer": {"n": number}}
        dialogue.close_input()
        assert await dialogue.read() == b""
        result = await runner.collect(own)
    assert (result.ending, result.exit_code, result.stdout) == (Ending.EXIT, 0, b"")
    assert result.runner["slot"] == "cold"


@pytest.mark.threat("T-16")
async def test_it_has_three_descriptors_and_they_are_its_own(runner: SandboxRunner) -> None:
    source = (
        "import os\n"
        "fds = sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1]\n"
        "print([(n, os.readlink(f'/proc/self/fd/{n}')) for n in fds], flush=True)\n"
        "input()"
    )
    async with (
        spoken(runner, python(source)) as (_, first),
        spoken(runner, python(source)) as (_, second),
    ):
        seen = [eval(await line(each)) for each in (first, second)]
    assert [[number for number, _ in each] for each in seen] == [[0, 1, 2], [0, 1, 2]]
    pipes = [what for each in seen for _, what in each]
    assert all(what.startswith("pipe:") for what in pipes)
    assert len(set(pipes)) == 6


async def test_the_gateway_has_no_descriptor_left_afterwards(runner: SandboxRunner) -> None:
    async with spoken(runner, shell("cat")) as (_, dialogue):  # what is made once is made by now
        await dialogue.write(b"x")
        await dialogue.read()
    before = descriptors()
    spawner = len(os.listdir(f"/proc/{runner.spawner_pid}/fd"))
    for script in ("cat", "exit 3", "exec 0<&-; sleep 60", "exec 1>&-; sleep 60"):
        async with spoken(runner, shell(script)) as (_, dialogue):
            reading = asyncio.ensure_future(dialogue.read())
            writing = asyncio.ensure_future(dialogue.write(bytes(1 << 20)))
            await asyncio.sleep(0)
            for each in (reading, writing):
                each.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
    assert descriptors().items() <= before.items()
    assert len(os.listdir(f"/proc/{runner.spawner_pid}/fd")) <= spawner


async def test_a_megabyte_goes_each_way_as_one_line(runner: SandboxRunner) -> None:
    text = "x" * (1 << 20)
    async with spoken(runner, python(ECHO)) as (_, dialogue):
        for _ in range(2):
            writing = asyncio.ensure_future(dialogue.write(json.dumps(text).encode() + b"\n"))
            assert json.loads(await line(dialogue)) == {"answer": text}
            await writing


async def test_twenty_are_spoken_with_at_once_and_each_has_its_own_words(
    runner: SandboxRunner,
) -> None:
    async def one(number: int) -> bytes:
        async with spoken(runner, shell("cat")) as (_, dialogue):
            word = f"{number} ".encode() * 20_000
            writing = asyncio.ensure_future(dialogue.write(word))
            said = await heard(dialogue, len(word))
            await writing
            return said if said != word else b"its own"

    assert await asyncio.gather(*map(one, range(20))) == [b"its own"] * 20


async def test_several_that_write_at_once_do_not_mix(runner: SandboxRunner) -> None:
    words = [bytes([letter]) * 200_000 for letter in b"abc"]
    async with spoken(runner, shell("cat")) as (_, dialogue):
        writing = [asyncio.ensure_future(dialogue.write(word)) for word in words]
        assert await heard(dialogue, 600_000) == b"".join(words)
        await asyncio.gather(*writing)


# ---------------------------------------------------------------------------------- how it ends


async def test_one_that_closes_its_output_is_heard_to_end_when_it_ends(
    runner: SandboxRunner,
) -> None:
    """Not before: bubblewrap's own processes have the pipe open as long as it lives."""
    async with spoken(runner, shell("echo last; exec 1>&-; cat >/dev/null")) as (own, dialogue):
        assert await line(dialogue) == b"last\n"
        await dialogue.write(b"it still reads")
        dialogue.close_input()
        assert await dialogue.read() == b""
        assert (await runner.collect(own)).ending is Ending.EXIT


async def test_a_write_that_nobody_reads_waits_and_fails_when_it_ends(
    runner: SandboxRunner,
) -> None:
    async with spoken(runner, shell("exec 0<&-; echo ready; sleep 60")) as (own, dialogue):
        assert await line(dialogue) == b"ready\n"
        writing = asyncio.ensure_future(dialogue.write(bytes(1 << 20)))
        await asyncio.sleep(0)
        assert not writing.done()
        await runner.stop(own, grace_s=0)
        with pytest.raises(BrokenPipeError):
            await writing


async def test_closing_the_input_gives_up_a_write_that_waits(runner: SandboxRunner) -> None:
    async with spoken(runner, shell("sleep 60")) as (_, dialogue):
        writing = asyncio.ensure_future(dialogue.write(bytes(1 << 20)))
        await asyncio.sleep(0)
        dialogue.close_input()
        with pytest.raises(BrokenPipeError):
            await writing


async def test_a_child_that_keeps_the_output_open_cannot_outlive_the_server(
    runner: SandboxRunner,
) -> None:
    async with spoken(runner, shell("sleep 600 & echo gone; exit 3")) as (own, dialogue):
        assert await heard(dialogue) == b"gone\n"
        result = await runner.collect(own)
    assert (result.ending, result.exit_code) == (Ending.EXIT, 3)


async def test_what_was_written_before_a_stop_is_read_after_it(runner: SandboxRunner) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    async with spoken(runner, shell(script)) as (own, dialogue):
        assert await line(dialogue) == b"ready\n"
        await runner.stop(own, grace_s=10)
        assert await heard(dialogue) == b"bye\n"
        assert (await runner.collect(own)).ending is Ending.CANCELLED


async def test_the_wall_limit_ends_a_dialogue(runner: SandboxRunner) -> None:
    async with spoken(runner, limited(shell("echo ready; cat"), wall_s=2)) as (own, dialogue):
        assert await line(dialogue) == b"ready\n"
        assert await dialogue.read() == b""
        result = await runner.collect(own)
    assert (result.ending, result.limits_hit) == (Ending.TIMED_OUT, ("wall",))


@pytest.mark.threat("T-18")
async def test_a_killed_spawner_ends_both_ways_and_the_run(runner: SandboxRunner) -> None:
    async with spoken(runner, shell("echo ready; cat")) as (own, dialogue):
        assert await line(dialogue) == b"ready\n"
        reading = asyncio.ensure_future(dialogue.read())
        await asyncio.sleep(0)
        assert runner.spawner_pid is not None
        os.kill(runner.spawner_pid, signal.SIGKILL)
        assert await reading == b""
        with pytest.raises(BrokenPipeError):
            await dialogue.write(b"anybody?")
        assert (await runner.collect(own)).ending is Ending.LOST


# ------------------------------------------------------------------------------------- floods


async def test_output_that_nobody_reads_stays_with_the_run(runner: SandboxRunner) -> None:
    source = (
        "import os, fcntl\n"
        "os.set_blocking(1, False)\n"
        "n = 0\n"
        "try:\n"
        "    while True: n += os.write(1, b'x' * 4096)\n"
        "except BlockingIOError: pass\n"
        "os.write(2, b'%d' % n)"
    )
    async with spoken(runner, python(source)) as (own, dialogue):
        result = await runner.collect(own)
        written = int(result.stderr)
        assert written <= 1 << 16
        assert len(await heard(dialogue)) == written


async def test_more_output_than_a_result_may_have_is_read_all_the_same(
    runner: SandboxRunner,
) -> None:
    spec = limited(shell("head -c 3000000 /dev/zero"), output_bytes=1_000)
    async with spoken(runner, spec) as (own, dialogue):
        assert await heard(dialogue) == bytes(3_000_000)
        result = await runner.collect(own)
    assert (result.ending, result.limits_hit) == (Ending.EXIT, ())


async def _flooded(runner: SandboxRunner, source: str) -> RunResult:
    async with spoken(runner, limited(python(source), output_bytes=4_000)) as (own, dialogue):
        assert await line(dialogue) == b"answer\n"
        dialogue.close_input()
        return await runner.collect(own)


async def test_a_flood_on_standard_error_neither_ends_nor_stalls_the_server(
    runner: SandboxRunner,
) -> None:
    source = (
        "import os, sys\n"
        "os.write(2, b'first\\n' + b'x' * 1_000_000 + b'\\nlast')\n"
        "print('answer', flush=True)\n"
        "sys.stdin.read()"
    )
    result = await _flooded(runner, source)
    assert (result.ending, result.limits_hit) == (Ending.EXIT, ())
    assert result.stderr_truncated
    assert result.stderr.startswith(b"first\nxxx")
    assert result.stderr.endswith(b"xxx\nlast")
    assert b"bytes left out]" in result.stderr
    assert len(result.stderr) <= 4_000


async def test_standard_error_within_its_limit_is_kept_whole(runner: SandboxRunner) -> None:
    source = (
        "import os, sys\n"
        "for n in range(100): os.write(2, b'%038d\\n' % n)\n"
        "print('answer', flush=True)\n"
        "sys.stdin.read()"
    )
    result = await _flooded(runner, source)
    assert result.stderr == b"".join(b"%038d\n" % n for n in range(100))
    assert not result.stderr_truncated


async def test_standard_error_is_followed_while_it_runs(runner: SandboxRunner) -> None:
    async with spoken(runner, shell("echo aloud; echo aside >&2; cat")) as (own, dialogue):
        assert await line(dialogue) == b"aloud\n"
        async for frame in runner.stream(own):
            assert (frame.channel, frame.data) == (Channel.STDERR, b"aside\n")
            break


async def test_a_provision_that_is_given_up_leaves_nothing(runner: SandboxRunner) -> None:
    async with spoken(runner, shell("cat")) as (_, dialogue):
        await dialogue.write(b"x")
        await dialogue.read()
    before = descriptors()
    for turns in range(8):
        own = new_lease("given-up")
        making = asyncio.ensure_future(runner.provision(own, speaks(shell("cat"))))
        for _ in range(turns):
            await asyncio.sleep(0)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        await runner.destroy(own)
        assert groups_naming(own.id) == []
    assert descriptors().items() <= before.items()


@pytest.mark.threat("T-16")
async def test_one_whose_pipes_did_not_arrive_is_not_made(runner: SandboxRunner) -> None:
    link = runner.attempts.link
    take = link._on_report

    def lossy(report: Report) -> None:
        if report.message["ev"] == "piped":
            close_all(report.fds)
            report.fds.clear()
        take(report)

    link._on_report = lossy
    own = new_lease()
    with pytest.raises(RunnerFault) as refused:
        await runner.provision(own, speaks(shell("cat")))
    assert refused.value.started is False
    assert groups_naming(own.id) == []
