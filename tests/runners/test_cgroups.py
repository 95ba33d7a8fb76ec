"""Which control groups are found, on hosts that are only described."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from remit.runners import cgroups, group
from remit.runners.cgroups import hierarchies
from remit.runners.disks import disks_behind
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


def test_a_group_with_the_disk_controller_can_limit_disks_and_one_without_cannot(
    delegated: Path,
) -> None:
    assert not cgroups._second("remit-gw", str(delegated), os.getppid()).io
    (delegated / "cgroup.controllers").write_text("cpu memory pids io\n")
    assert cgroups._second("remit-gw", str(delegated), os.getppid()).io


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


DISK = "254:0"


def _limits(**more: object) -> GroupLimits:
    return GroupLimits(
        **{"memory_bytes": 64 << 20, "pids": 10, "cpu_percent": 100, "io_bytes_per_s": 9000, **more}  # type: ignore[arg-type] # as the caller says
    )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path is on one disk, whatever this machine has."""
    monkeypatch.setattr(group, "disks_behind", lambda paths: (DISK,) if paths else ())


def test_disks_are_limited_in_both_directions_as_cgroup2_reads_it(
    tmp_path: Path, disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        made(path, mode)
        FilesOnly.fill(Path(path))
        (Path(path) / "io.max").write_text("")

    monkeypatch.setattr(os, "mkdir", mkdir)
    Group({"unified": str(tmp_path)}, "run").create(_limits(io_paths=("/usr",), io_writes=True))
    assert (tmp_path / "run/io.max").read_text() == "254:0 rbps=9000 wbps=9000"


def test_version_1_refuses_what_it_cannot_slow_down(tmp_path: Path, disk: None) -> None:
    roots = {each: str(tmp_path / each) for each in ("memory", "pids", "cpu")}
    for root in roots.values():
        Path(root).mkdir()
    with pytest.raises(ValueError, match="no control group"):
        Group(roots, "run").create(_limits(io_paths=("/usr",)))
    (tmp_path / "blkio").mkdir()
    with pytest.raises(ValueError, match="page cache"):
        Group({**roots, "blkio": str(tmp_path / "blkio")}, "other").create(
            _limits(io_paths=("/usr",), io_writes=True)
        )


def test_a_run_without_a_limit_of_disks_enters_no_hierarchy_of_them(tmp_path: Path) -> None:
    roots = {each: str(tmp_path / each) for each in ("memory", "pids", "cpu", "blkio")}
    made = Group(roots, "run")
    assert len(made.entrances()) == 4
    with contextlib.suppress(OSError):
        made.create(_limits(io_bytes_per_s=None))
    assert not any("blkio" in each for each in made.entrances())


def _system(tmp_path: Path, device: int, *, partition: bool) -> str:
    name = f"{os.major(device)}:{os.minor(device)}"
    own = tmp_path / "devices/disk" / ("part" if partition else "")
    own.mkdir(parents=True)
    (tmp_path / "devices/disk/dev").write_text("8:0\n")
    if partition:
        (own / "partition").write_text("1\n")
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / name).symlink_to(own)
    return str(tmp_path / "block")


def test_a_partition_is_limited_by_its_disk(tmp_path: Path) -> None:
    device = os.stat("/usr").st_dev
    if os.major(device) == 0:
        pytest.skip("the system's own file system hides its disk here")
    whole = _system(tmp_path / "whole", device, partition=False)
    assert disks_behind(["/usr", "/usr/bin"], whole) == (f"{os.major(device)}:{os.minor(device)}",)
    part = _system(tmp_path / "part", device, partition=True)
    assert disks_behind(["/usr"], part) == ("8:0",)


def test_memory_has_no_disk_and_what_hides_its_disk_is_refused() -> None:
    with open("/proc/self/mountinfo") as file:
        points = [line.split(" - ")[0].split()[4] for line in file if " - tmpfs " in line]
    assert disks_behind(points[:1]) == ()
    with pytest.raises(ValueError, match="cannot be told"):
        disks_behind(["/proc"])


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
