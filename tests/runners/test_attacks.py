"""What a run does to the spawner's own doing: its descriptors, its messages, its limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.errors import RunnerFault
from remit.model import RunSpec
from remit.runners.sandbox import SandboxRunner
from tests.plugins.machine import CGROUPS
from tests.runners.attacks_script import beginnings
from tests.runners.support import (
    LIMITS,
    alive,
    begin,
    first_line,
    new_lease,
    processes_of,
    run,
    shell,
)
from tests.runners.test_unprivileged import as_user, delegated, source
from tests.runners.wired import Wired, wired

__all__ = ["source"]

pytestmark = [pytest.mark.slow, pytest.mark.needs("bwrap", "userns", "cgroup")]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user; be root")
ALL_BEGAN = {"cold": True, "shell": True, "python": True}


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path) as made:
        yield made


@pytest.mark.threat("T-15")
def test_a_run_cannot_make_itself_one_that_never_began(spawner: Wired) -> None:
    assert beginnings(spawner) == ALL_BEGAN


@ROOT_ONLY
@pytest.mark.threat("T-15", "T-17")
def test_nor_does_one_that_acts_as_the_gateways_own_user_or_stop_the_others(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups, module="tests.runners.attacks_script")
    assert said == {"uids": "one", "began": ALL_BEGAN, "hoard": "went on"}


@pytest.mark.anyio
@pytest.mark.threat("T-17")
async def test_a_call_that_is_too_long_to_be_told_ends_no_other_run(runner: SandboxRunner) -> None:
    other = await begin(runner, shell("echo on; sleep 60"))
    assert await first_line(runner, other) == b"on"
    long = RunSpec(argv=("/bin/true", *("\u00e9" * 60_000,) * 30), limits=LIMITS)
    with pytest.raises(RunnerFault, match="could not be asked for"):
        await runner.provision(new_lease(), long)
    assert alive(processes_of(other.id)) != []
    assert (await run(runner, shell("exit 3")))[0].exit_code == 3
    assert (await runner.destroy(other)).complete


@pytest.mark.threat("T-37", "T-16")
def test_no_mount_holds_the_gateways_own_state_or_leads_through_a_link(
    spawner: Wired, tmp_path: Path, reachable: Path
) -> None:
    (reachable / "there/deep").mkdir(parents=True)
    (reachable / "link").symlink_to("there")
    (tmp_path / "leases").mkdir()
    wrong = {
        tmp_path: "the gateway's own state",
        tmp_path.parent: "the gateway's own state",
        tmp_path / "leases": "the gateway's own state",
        reachable / "link": "symbolic link",
        reachable / "link/deep": "symbolic link",
    }
    for place, why in wrong.items():
        lease, _ = spawner.provision("/bin/true", mounts=[["data", str(place), False]])
        report = spawner.hear("refused", "provisioned", lease=lease)[0]
        assert report["ev"] == "refused"
        assert why in report["fault"]


@pytest.mark.threat("T-36")
@pytest.mark.parametrize("memory_mb", [32, 512])
def test_a_slot_takes_on_the_memory_of_its_run_be_it_more_or_less(
    spawner: Wired, memory_mb: int
) -> None:
    slot, out, _ = spawner.park("shell")
    said, end = spawner.become(slot, out, "/bin/echo", "yes", limits={"memory_mb": memory_mb})
    assert (said, end["code"]) == (b"yes\n", 0)
