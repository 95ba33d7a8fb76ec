"""Host users of runs without root: from a range of subordinate numbers, where there is one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remit.runners.users import Users, find_users, others_of
from tests.plugins.machine import CGROUPS
from tests.runners.test_unprivileged import USER, as_user, delegated, source

__all__ = ["source"]
_LIBC = ctypes.CDLL(None, use_errno=True)


def _with_range(directory: Path) -> Callable[[], None]:
    """Give the user a name and a range, in a mount namespace of the child's own: the host keeps
    its files."""
    lines = {
        "passwd": f"ranged:x:{USER}:{USER}::/:/bin/false\n",
        "group": f"ranged:x:{USER}:\n",
        "subuid": "ranged:400000:65536\n",
        "subgid": "ranged:400000:65536\n",
    }
    for name, line in lines.items():
        old = Path("/etc", name)
        (directory / name).write_text((old.read_text() if old.exists() else "") + line)
        (directory / name).chmod(0o644)
        old.touch()

    def enter() -> None:
        assert _LIBC.unshare(0x20000) == 0  # CLONE_NEWNS
        assert _LIBC.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
        for name in lines:
            given = os.fsencode(directory / name)
            assert _LIBC.mount(given, f"/etc/{name}".encode(), None, 0x1000, None) == 0  # MS_BIND

    return enter


@pytest.mark.threat("T-16")
@pytest.mark.needs("bwrap", "userns", "cgroup", "newuidmap")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a user a range; to run it: be root")
def test_a_range_of_subordinate_numbers_gives_each_run_its_own_user(
    source: Path, tmp_path: Path
) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups, before=_with_range(tmp_path))
    assert (said["tier"], said["missing"], said["own_uid"]) == ("sandbox", [], True)
    assert (said["code"], said["complete"], said["file"]) == (4, True, "out\n")
    assert (said["bomb"], said["slow"]) == ("out_of_memory", "timed_out")
    assert (said["stopped"], said["left"]) == (6, 0)


def test_each_place_is_another_user_and_mounts_are_one_users() -> None:
    host = Users(kind="host", base=1000, privileged=True)
    assert len({host.of(place, mounted=False) for place in range(1, 9)}) == 8
    assert {host.of(place, mounted=True) for place in range(1, 9)} == {host.mounting} == {1000}
    ranged = Users(kind="subuid", base=1, privileged=True)
    assert ranged.of(3, mounted=False) == 4
    assert ranged.of(3, mounted=True) is None
    assert Users().of(3, mounted=False) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at root's users; to run it: be root")
def test_numbers_that_do_not_exist_here_are_never_acted_as() -> None:
    assert find_users(300_000, 32).kind == "host"
    assert find_users((1 << 32) - 4, 32).kind == "one"


@pytest.mark.threat("T-16")
@pytest.mark.needs("bwrap", "userns", "cgroup", "newuidmap")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a user a range; to run it: be root")
def test_the_way_out_handed_files_and_slots_work_with_a_range(source: Path, tmp_path: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    enter = _with_range(tmp_path)
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups, before=enter, module="tests.runners.wired_script")
    assert (said["uids"], said["images"], said["left"]) == ("subuid", False, 0)
    assert said["cold"] == "trust token served\n"
    assert (said["shell"], said["python"]) == ("given input 32\n", "1\n")


@pytest.mark.threat("T-16")
def test_numbers_that_another_user_may_act_as_are_told(tmp_path: Path) -> None:
    ranges = tmp_path / "subuid"
    ranges.write_text("a:100000:65536\n\n# words: here\nb:296608:65536\n")
    files = (str(tmp_path / "none"), str(ranges))
    assert others_of(299_998, 301_000, files) == "b"
    assert others_of(362_143, 362_143, files) == "b"
    assert others_of(362_144, 400_000, files) is None
    assert others_of(200_000, 296_607, files) is None
