"""Which control groups are found, on hosts that are only described."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.runners import cgroups
from remit.runners.cgroups import hierarchies
from remit.runners.group import Group, GroupLimits

HYBRID_MOUNTS = """\
24 1 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
25 24 0:23 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
26 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
27 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 24 0:26 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory
29 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""
HYBRID_OWN = """\
4:memory:/user/1000
3:pids:/user/1000
2:cpu,cpuacct:/
1:name=systemd:/x
0::/user/1000
"""


def test_each_controller_of_a_hybrid_host_is_found_at_the_own_group() -> None:
    found = {
        n: each.own for each in hierarchies(HYBRID_MOUNTS, HYBRID_OWN) for n in each.controllers
    }
    assert found["memory"] == "/sys/fs/cgroup/memory/user/1000"
    assert found["cpu"] == found["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found["unified"] == "/sys/fs/cgroup/unified/user/1000"


def test_the_own_group_of_a_container_is_where_its_mount_is() -> None:
    mounts = "30 29 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    (inside,) = hierarchies(mounts, "0::/docker/abc/child\n")
    assert inside.own == "/sys/fs/cgroup/child"
    (outside,) = hierarchies(mounts, "0::/elsewhere\n")
    assert outside.own == "/sys/fs/cgroup"
    (similar,) = hierarchies(mounts, "0::/docker/abcdef\n")
    assert similar.own == "/sys/fs/cgroup"


@pytest.fixture
def delegated(tmp_path: Path) -> Path:
    """A directory that looks like a delegated cgroup2 group with this process in it."""
    own = tmp_path / "app.scope"
    (own / "remit-gw").mkdir(parents=True)
    (own / "remit-gateway").mkdir()
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    (own / "cgroup.type").write_text("domain\n")
    for directory in (own, own / "remit-gw"):
        (directory / "cgroup.subtree_control").write_text("")
    (own / "remit-gateway/cgroup.procs").write_text("")
    return own


def test_a_delegated_group_is_divided_and_the_gateway_moved_to_a_leaf(delegated: Path) -> None:
    layout = cgroups._second("remit-gw", str(delegated), os.getppid())
    assert (layout.mode, dict(layout.roots)) == ("v2", {"unified": f"{delegated}/remit-gw"})
    assert (delegated / "remit-gateway/cgroup.procs").read_text() == str(os.getpid())
    for directory in (delegated, delegated / "remit-gw"):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_a_second_spawner_finds_the_group_above_the_leaf(delegated: Path) -> None:
    (delegated / "cgroup.procs").write_text("")
    layout = cgroups._second("remit-gw", str(delegated / "remit-gateway"), os.getppid())
    assert dict(layout.roots) == {"unified": f"{delegated}/remit-gw"}


def test_nobody_elses_process_is_ever_moved(delegated: Path) -> None:
    (delegated / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    layout = cgroups._second("remit-gw", str(delegated), os.getppid())
    assert (layout.mode, layout.roots) == ("none", {})
    assert "others" in (layout.missing or "")
    assert (delegated / "remit-gateway/cgroup.procs").read_text() == ""


def test_a_group_without_the_controllers_holds_nothing(delegated: Path) -> None:
    (delegated / "cgroup.controllers").write_text("cpu pids\n")
    layout = cgroups._second("remit-gw", str(delegated), os.getppid())
    assert (layout.mode, layout.missing) == ("none", "cgroup2 delegates no memory")


class FilesOnly:
    """cgroup2's files appear with the directory; here a directory is filled to look like one."""

    NAMES = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max")

    @classmethod
    def fill(cls, path: Path) -> None:
        for name in cls.NAMES:
            (path / name).write_text("")


def test_limits_are_written_as_cgroup2_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        made(path, mode)
        FilesOnly.fill(Path(path))

    monkeypatch.setattr(os, "mkdir", mkdir)
    Group({"unified": str(tmp_path)}, "run").create(
        GroupLimits(memory_bytes=64 << 20, pids=10, cpu_percent=150)
    )
    written = {name: (tmp_path / "run" / name).read_text() for name in FilesOnly.NAMES}
    assert written == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "12",
        "cpu.max": "150000 100000",
    }


def test_cgroup2_counters_are_read(tmp_path: Path) -> None:
    own = tmp_path / "run"
    own.mkdir()
    (own / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n")
    (own / "pids.events").write_text("max 3\n")
    (own / "cpu.stat").write_text("usage_usec 1234\nnr_throttled 5\n")
    (own / "memory.peak").write_text("999\n")
    counters = Group({"unified": str(tmp_path)}, "run").counters()
    assert (counters.oom_kills, counters.pids_refused, counters.throttled) == (1, 3, 5)
    assert (counters.cpu_us, counters.peak_bytes) == (1234, 999)
