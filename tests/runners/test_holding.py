"""A command that closed its output and goes on is seen, and one that only seems to is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from remit.runners import holding
from remit.runners.holding import let_go, next_s, pipe_of

WAITS = "import os, sys; sys.stderr.write('there\\n'); sys.stderr.flush(); sys.stdin.read()"
CLOSES = f"import os; os.close(1); {WAITS}"
ELSEWHERE = f"import os; os.dup2(os.dup(1), 17); os.close(1); {WAITS}"


@contextmanager
def started(program: str) -> Iterator[tuple[int, holding.Pipe]]:
    """A process that does this and then waits; with the pipe that its output is."""
    reading, writing = os.pipe()
    argv = [sys.executable, "-I", "-S", "-c", program]
    try:
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == b"there\n"
            yield process.pid, pipe_of(writing)
            process.kill()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("program", "gone"),
    [(WAITS, False), (CLOSES, True), (ELSEWHERE, False)],
    ids=["has it", "closed it", "has it under another number"],
)
def test_a_command_has_let_go_of_its_output_once_no_process_of_it_has_it(
    program: str, gone: bool
) -> None:
    with started(program) as (pid, pipe):
        assert let_go([pid], pipe) is gone


def test_one_process_that_has_it_is_enough_and_one_that_is_gone_says_nothing() -> None:
    with started(CLOSES) as (one, pipe):
        assert let_go([one, os.getpid()], pipe) is False
        gone = subprocess.Popen(["/bin/true"])
        gone.wait()
        assert let_go([gone.pid, one], pipe) is True


def test_nothing_is_said_where_nobody_is_there_or_nothing_can_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert let_go([], (0, 0)) is False
    with started(CLOSES) as (pid, pipe):
        monkeypatch.setattr(holding, "MOST_FILES", 1)
        assert let_go([pid], pipe) is False

        def refused(_: str) -> os.stat_result:
            raise PermissionError

        monkeypatch.setattr(os, "stat", refused)
        assert let_go([pid], pipe) is False


def test_of_what_a_command_has_open_only_pipes_are_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    path = os.path.join(tmp_path, "pipe:[1]")
    opens = f"import os; open({path!r}, 'w').close(); os.open({path!r}, os.O_RDONLY); {CLOSES}"
    asked, stat = [], os.stat

    def watched(path: str) -> os.stat_result:
        asked.append(os.readlink(path))
        return stat(path)

    with started(opens) as (pid, pipe), monkeypatch.context() as patched:
        patched.setattr(os, "stat", watched)
        gone = let_go([pid], pipe)
    assert gone
    assert asked
    assert all(each.startswith("pipe:[") for each in asked)


def test_a_command_that_is_long_to_look_at_is_looked_at_less_often() -> None:
    assert next_s(1.0, 0.001) == 1.0
    assert next_s(1.0, 0.05) == 5.0
