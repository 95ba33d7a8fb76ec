"""Files read back from the job directory of a hostile run."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from remit.model import Ending
from remit.runners import beneath
from remit.runners.collected import MAX_BYTES, read_one
from remit.runners.sandbox import SandboxRunner
from tests.runners.support import contained, limited, python, shell

pytestmark = [pytest.mark.anyio, pytest.mark.needs("bwrap", "userns", "cgroup")]


async def test_files_come_back_byte_for_byte(runner: SandboxRunner) -> None:
    data = os.urandom(1_000_000)
    spec = shell("mkdir d; cp in d/out; : >empty", files=(("in", data),))
    result = await contained(runner, _asking(spec, "d/out", "empty", "in"))
    assert dict(result.files) == {"d/out": data, "empty": b"", "in": data}
    assert result.limits_hit == ()


def _asking(spec, *names):
    return replace(spec, collect=names)


async def test_files_come_back_from_a_run_that_failed(runner: SandboxRunner) -> None:
    result = await contained(runner, _asking(shell("echo part >out; kill -9 $$"), "out"))
    assert result.ending is Ending.SIGNAL
    assert dict(result.files) == {"out": b"part\n"}


@pytest.mark.threat("T-16")
async def test_a_link_in_the_place_of_a_file_is_not_followed(runner: SandboxRunner) -> None:
    script = """
ln -s /etc/passwd absolute; ln -s ../../etc/passwd relative; ln -s /proc/1/environ magic
ln -s /proc/self/fd/0 descriptor; echo kept >kept; ln -s kept same; ln -s . loop
mkdir real; echo x >real/x; ln -s real through; ln -s /usr usr
"""
    names = (
        "absolute",
        "relative",
        "magic",
        "descriptor",
        "same",
        "loop",
        "through/x",
        "usr/bin/sh",
    )
    result = await contained(runner, _asking(shell(script), *names, "kept"))
    assert dict(result.files) == {"kept": b"kept\n"}
    assert "collect" in result.limits_hit


@pytest.mark.threat("T-16")
async def test_what_is_no_regular_file_is_neither_read_nor_waited_for(
    runner: SandboxRunner,
) -> None:
    source = """
import os, socket
os.mkfifo("fifo")
s = socket.socket(socket.AF_UNIX); s.bind("socket"); s.listen()
os.mkdir("directory")
try:
    os.mknod("device", 0o666 | 0o020000, os.makedev(1, 3)); print("made a device")
except PermissionError:
    print("no device")
"""
    names = ("fifo", "socket", "directory", "device")
    result = await contained(runner, _asking(python(source), *names))
    assert result.stdout == b"no device\n"
    assert dict(result.files) == {}
    assert result.limits_hit == ("collect",)


@pytest.mark.threat("T-17")
async def test_a_huge_or_sparse_file_is_refused_unread(runner: SandboxRunner) -> None:
    spec = limited(shell("truncate -s 40M sparse; echo small >small"), tmp_mb=32)
    assert MAX_BYTES < 40 * 1024 * 1024
    result = await contained(runner, _asking(spec, "sparse", "small"))
    assert dict(result.files) == {"small": b"small\n"}
    assert result.limits_hit == ("collect",)


@pytest.mark.threat("T-17")
async def test_many_files_together_stay_within_one_bound(runner: SandboxRunner) -> None:
    spec = limited(shell("for n in 1 2 3; do truncate -s 7M f$n; done"), tmp_mb=32)
    result = await contained(runner, _asking(spec, "f1", "f2", "f3"))
    assert sorted(result.files) == ["f1", "f2"]
    assert result.limits_hit == ("collect",)


@pytest.mark.threat("T-16")
async def test_a_hidden_or_removed_job_directory_gives_nothing(runner: SandboxRunner) -> None:
    result = await contained(runner, _asking(shell("chmod 0 /job; echo x >/job/x"), "x"))
    assert dict(result.files) == {}
    result = await contained(
        runner, _asking(shell("echo x >x; chmod 0 x; mv x y; rmdir /job"), "y")
    )
    assert dict(result.files) == {}


@pytest.mark.threat("T-16")
async def test_a_collected_file_cannot_change_after_the_end(runner: SandboxRunner) -> None:
    """A daemon that rewrites the file for ever is dead before the file is looked at."""
    script = "(setsid sh -c 'while :; do echo evil >out; done' &) ; sleep 0.05; echo good >out"
    result = await contained(runner, _asking(shell(script), "out"))
    assert dict(result.files)["out"] in {b"good\n", b"evil\n", b""}
    assert result.ending is Ending.EXIT


@pytest.mark.threat("T-17")
async def test_a_file_that_is_longer_than_it_said_is_not_read_on() -> None:
    directory = beneath.directory(f"/proc/{os.getpid()}")
    target = os.memfd_create("target")
    assert os.stat("status", dir_fd=directory).st_size == 0
    assert read_one(directory, "status", target, 100) == ("too_large", 0)
    assert os.fstat(target).st_size == 0
    assert read_one(directory, "status", target, 1 << 20)[0] == "ok"
    os.close(target)
    os.close(directory)
