"""Nothing that died stays on the kernel's table: its number, user namespace and pid namespace go too."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from remit.runners.life import children_of
from tests.runners.support import eventually, groups_naming, processes_of
from tests.runners.wired import Wired, wired

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-18"),
]


def _answers(spawner: Wired) -> None:
    """A round trip: all that had happened before was seen by the spawner."""
    spawner.tell(op="destroy", lease="nobody")
    spawner.hear("destroyed")


def test_a_first_process_that_dies_before_its_monitor_is_reaped_with_it(tmp_path: Path) -> None:
    with wired(tmp_path) as spawner:
        lease, _ = spawner.provision("/bin/true")
        spawner.hear("provisioned", lease=lease)
        [monitor] = children_of(spawner.process.pid)
        [first] = children_of(monitor)
        os.kill(monitor, signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: _state(first) == "Z", seconds=5)
        _answers(spawner)
        os.kill(monitor, signal.SIGKILL)
        spawner.hear("ended", lease=lease)
        assert children_of(spawner.process.pid) == []
        assert _state(first) is None


CARELESS = """#!/usr/bin/python3 -IS
import os, signal, time
ready, done = os.pipe()
if os.fork() == 0:
    {close}
    os.write(done, b"1")
    time.sleep(100)
os.read(ready, 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("close", ["pass", "os.closerange(3, done), os.closerange(done + 1, 99)"])
def test_a_sandbox_whose_monitor_dies_before_it_told_of_it_is_reaped(
    tmp_path: Path, reachable: Path, close: str
) -> None:
    """Whether or not what it leaves has closed the pipe on which it would have told."""
    careless = reachable / "bwrap"
    careless.write_text(CARELESS.format(close=close))
    careless.chmod(0o755)
    with wired(tmp_path, bwrap=str(careless)) as spawner:
        lease, _ = spawner.provision("/bin/true")
        report, _ = spawner.hear("ended", "provisioned", lease=lease)
        assert (report["ev"], report["why"], report["began"]) == ("ended", "setup", False)
        assert report["evidence"]["processes_left"] == 0
        assert processes_of(lease) == []
        assert children_of(spawner.process.pid) == []


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def test_a_spawner_without_gateway_waits_for_what_is_dying_and_does_not_spin(
    tmp_path: Path,
) -> None:
    """A stranger in a group of the run, whom nobody may kill, keeps it from being removed."""
    with subprocess.Popen(["sleep", "60"]) as stranger, wired(tmp_path) as spawner:
        slot, _, _ = spawner.park("shell")
        groups = [Path(each) for each in groups_naming(slot) if "unified" not in each]
        (groups[0] / "cgroup.procs").write_text(str(stranger.pid))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        spawner.close()
        took = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        stranger.kill()
        stranger.wait()
        assert eventually(lambda: all(map(_removed, groups)), seconds=5)
    with wired(tmp_path):
        pass  # ends with nothing left, and takes the directories of all with it
    worked = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert worked < took / 4, f"{worked:.2f} s of {took:.2f} s"


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
