"""Nothing that died stays on the kernel's table: its number, user namespace and pid namespace go too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from remit.runners.life import children_of
from tests.runners.support import eventually, processes_of
from tests.runners.wired import Wired, wired

pytestmark = [pytest.mark.needs("bwrap", "userns", "cgroup"), pytest.mark.threat("T-18")]


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


def test_a_sandbox_whose_monitor_dies_before_it_was_heard_of_is_reaped(
    tmp_path: Path, reachable: Path
) -> None:
    careless = reachable / "bwrap"
    careless.write_text("#!/bin/sh\nsleep 100 &\nkill -9 $$\n")
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
