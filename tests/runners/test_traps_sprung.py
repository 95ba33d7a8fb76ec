"""The traps of `test_traps` are there: bubblewrap, used as it invites to be, falls into each.

Where one of these fails, bubblewrap or the kernel has changed, and the runner may be too careful.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.runners.bubblewrap import find
from tests.runners.support import alive, eventually

pytestmark = [pytest.mark.needs("bwrap", "userns"), pytest.mark.threat("T-16")]

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root falls into it; to run it: be root")


@pytest.fixture
def bwrap() -> str:
    found = find(None, for_others=False)
    assert found is not None
    return found.path


@pytest.fixture
def word() -> Iterator[str]:
    """In the command line of what a test starts; whatever has it ends with the test."""
    word = f"trap-{secrets.token_hex(6)}"
    yield word
    for pid in naming(word):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: naming(word) == [], seconds=5)


def naming(word: str) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return alive(found)


def plain(bwrap: str, *options: str) -> list[str]:
    return [
        bwrap,
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--unshare-pid",
        *options,
        "--",
    ]


def test_trap_1_is_there_clearenv_does_not_hide_the_environment(bwrap: str) -> None:
    argv = [*plain(bwrap, "--clearenv", "--setenv", "PATH", "/bin"), "cat", "/proc/1/environ"]
    done = subprocess.run(argv, env={"TRAP": "hunter2"}, capture_output=True)
    assert b"TRAP=hunter2" in done.stdout


@ROOT
def test_trap_2_is_there_root_keeps_its_capabilities_without_a_user_namespace(bwrap: str) -> None:
    argv = [*plain(bwrap), "grep", "CapEff", "/proc/self/status"]
    done = subprocess.run(argv, env={}, capture_output=True, text=True)
    assert int(done.stdout.split()[1], 16) != 0


@ROOT
def test_trap_2_is_there_another_number_inside_is_still_root_outside(bwrap: str, word: str) -> None:
    argv = [*plain(bwrap, "--unshare-user", "--uid", "65534"), "sh", "-c", f": {word}; read x"]
    with subprocess.Popen(argv, env={}, stdin=subprocess.PIPE) as job:
        assert eventually(lambda: len(naming(word)) >= 3, seconds=5)
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in naming(word)}
        job.communicate(b"\n")
    assert owners == {0}


@pytest.mark.parametrize("call", ["unshare", "userfaultfd", "keyctl"])
def test_trap_3_is_there_a_plain_sandbox_makes_namespaces_and_more(bwrap: str, call: str) -> None:
    x86 = os.uname().machine == "x86_64"
    number, arguments = {
        "unshare": (272 if x86 else 97, "0x10000000"),
        "userfaultfd": (323 if x86 else 282, "1"),
        "keyctl": (250 if x86 else 219, "0, -3, 1"),
    }[call]
    source = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall({number}, {arguments}))
"""
    argv = [*plain(bwrap, "--unshare-user"), sys.executable, "-c", source]
    done = subprocess.run(argv, env={}, capture_output=True, text=True)
    assert int(done.stdout) >= 0


def test_trap_4_is_there_a_job_dies_with_the_thread_that_made_it(bwrap: str, word: str) -> None:
    jobs: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        argv = [*plain(bwrap, "--die-with-parent"), "sh", "-c", f"echo; : {word}; sleep 60"]
        jobs.append(subprocess.Popen(argv, env={"PATH": "/bin"}, stdout=subprocess.PIPE))
        assert jobs[0].stdout is not None
        jobs[0].stdout.readline()

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert jobs[0].wait(5) == -signal.SIGKILL
    jobs[0].communicate()
    assert eventually(lambda: naming(word) == [], seconds=5)


def test_trap_5_is_there_without_die_with_parent_a_supervisors_death_ends_nothing(
    bwrap: str, word: str
) -> None:
    job = [*plain(bwrap), "sh", "-c", f": {word}; sleep 60 & wait"]
    source = f"import subprocess\nsubprocess.Popen({job!r}, env={{'PATH': '/bin'}}).wait()"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.DEVNULL) as supervisor:
        assert eventually(lambda: len(naming(word)) >= 4, seconds=5)
        supervisor.kill()
    left = [pid for pid in naming(word) if pid != supervisor.pid]
    assert len(left) >= 3  # bubblewrap, PID 1 and the shell


def test_trap_6_is_there_a_start_that_failed_can_leave_a_sandbox(bwrap: str, word: str) -> None:
    """Who asked has given up and says that it failed; what it asked for lives."""
    argv = [*plain(bwrap), "sh", "-c", f": {word}; sleep 60 & wait"]
    engine = ["/bin/sh", "-c", '"$@" >/dev/null 2>&1 & sleep 0.3; exit 1', "engine", *argv]
    failed = subprocess.run(engine, env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=30)
    assert failed.returncode == 1
    assert naming(word) != []


def test_trap_7_is_there_a_set_up_follows_a_link_below_what_a_job_wrote(
    bwrap: str, tmp_path: Path
) -> None:
    """A job left a link; the next sandbox gets a mount there, and a file is made on the host."""
    written, host = tmp_path / "written", tmp_path / "host"
    written.mkdir()
    host.mkdir()
    (written / "link").symlink_to(f"/oldroot{host}")  # where the host is while it is set up
    options = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]
    options += ["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
    options += ["--bind", str(written), "/job"]
    options += ["--ro-bind", "/dev/null", "/job/link/made"]
    done = subprocess.run([bwrap, *options, "--", "true"], env={}, capture_output=True, text=True)
    if done.returncode != 0 and not (host / "made").exists():
        pytest.skip(
            f"this bubblewrap refuses: {done.stderr.strip()}; to run it: use one before 0.12"
        )
    assert (host / "made").exists()
