"""Programs that mean to live on: whichever way their run ends, nothing of them is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator

import pytest

from remit.model import Ending, Lease, RunSpec
from remit.runners.sandbox import SandboxRunner
from tests.adversarial.conftest import Box
from tests.adversarial.hostile import Hostile
from tests.adversarial.programs.outliving import PROGRAMS
from tests.runners.support import (
    LIMITS,
    alive,
    begin,
    eventually,
    first_line,
    groups_naming,
    limited,
    processes_of,
    python,
)

pytestmark = [pytest.mark.needs("bwrap", "userns", "cgroup"), pytest.mark.threat("T-18")]

_LIBC = ctypes.CDLL(None)
_PR_SET_CHILD_SUBREAPER = 36
PARTS = ("cmdline", "environ")

EACH = pytest.mark.parametrize(
    "program", [pytest.param(each, id=each.name.replace(" ", "-")) for each in PROGRAMS]
)


def marked(word: str) -> list[int]:
    """Processes of this machine that live and have the word in a command line or environment.

    Each thread is looked at: where the first one has ended, only the others still say anything.
    """
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{name}/task"):
                if any(_holds(f"/proc/{name}/task/{thread}/{part}", word) for part in PARTS):
                    found.append(int(name))
                    break
    return alive(found)


def _holds(path: str, word: str) -> bool:
    try:
        with open(path, "rb") as file:
            return word.encode() in file.read()
    except OSError:
        return False


@pytest.fixture
def word() -> Iterator[str]:
    """A word by which everything that a program starts is known; whatever has it ends with the
    test."""
    word = f"outlive-{secrets.token_hex(8)}"
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # not every init reaps what it inherits
    yield word
    end_all(word)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _spec(program: Hostile, word: str) -> RunSpec:
    return RunSpec(argv=program.argv(), limits=LIMITS, stdin=b"{}", env=(("WORD", word),))


@EACH
@pytest.mark.parametrize(
    "end", ["destroyed", "stopped", pytest.param("out of time", marks=pytest.mark.slow)]
)
def test_nothing_outlives_its_run(program: Hostile, box: Box, word: str, end: str) -> None:
    async def lived(runner: SandboxRunner) -> tuple[Lease, list[int]]:
        spec = _spec(program, word)
        lease = await begin(runner, limited(spec, wall_s=1) if end == "out of time" else spec)
        assert (await first_line(runner, lease)).endswith(b"READY")
        seen = processes_of(lease.id)
        if end == "stopped":
            await runner.stop(lease, grace_s=0.05)
        elif end == "out of time":
            ending = (await runner.collect(lease)).ending
            assert ending in {Ending.TIMED_OUT, Ending.EXIT}
        evidence = await runner.destroy(lease)
        assert evidence.complete, evidence
        return lease, seen

    lease, seen = box.wait(lived)
    assert eventually(lambda: alive(seen) == [], seconds=0.5)
    assert marked(word) == []
    assert groups_naming(lease.id) == []


@EACH
def test_on_the_host_it_does_outlive_its_parent(program: Hostile, word: str) -> None:
    """The runner is needed: a kill of the command, as any time limit does it, ends nothing."""
    with subprocess.Popen(
        program.argv(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"WORD": word, "PATH": "/usr/bin:/bin"},
        start_new_session=True,
    ) as parent:
        try:
            assert parent.stdin is not None
            assert parent.stdout is not None
            parent.stdin.write(b'{"seconds": 1.5}')  # what nobody can catch must end by itself
            parent.stdin.close()
            assert parent.stdout.readline() == b"READY\n"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
            parent.wait()
            assert eventually(lambda: marked(word) != [], seconds=2)
        finally:
            parent.kill()
            parent.wait()
            end_all(word)


def end_all(word: str) -> None:
    """End what has the word, so that its pipes close, and reap it."""
    quiet = 0  # what is another process at each moment can be missed by one look
    for _ in range(2_000):
        left = marked(word)
        quiet = 0 if left else quiet + 1
        if quiet == 3:
            break
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    else:
        raise AssertionError("it could not be ended")
    for pid in _dead_children():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _dead_children() -> list[int]:
    """Children of this process that ended and that nobody in it waits for."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(int(name))
    return found


HANG = """
import os, struct
text = open("/proc/1/syscall").read().split()
memory = os.open("/proc/1/mem", os.O_RDWR)
at = int(text[-1], 16)
machine = os.uname().machine
os.pwrite(memory, b"\\xeb\\xfe" if machine == "x86_64" else b"\\x00\\x00\\x00\\x14", at)
print("READY", flush=True)
"""


def test_a_run_whose_pid_1_was_made_to_hang_ends_at_its_time(box: Box) -> None:
    """PID 1 is the run's own: its memory can be written, and that gains nothing but its time."""

    async def lived(runner: SandboxRunner) -> Ending:
        lease = await begin(runner, limited(python(HANG), wall_s=1))
        line = await first_line(runner, lease)
        seen = processes_of(lease.id)
        ending = (await runner.collect(lease)).ending
        assert (await runner.destroy(lease)).complete
        assert eventually(lambda: alive(seen) == [], seconds=0.5)
        assert line == b"READY"
        return ending

    assert box.wait(lived) is Ending.TIMED_OUT
