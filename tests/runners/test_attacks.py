"""What a run does to the spawner's own doing: its descriptors, its messages, its limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.machine import CGROUPS
from tests.runners.attacks_script import beginnings
from tests.runners.test_unprivileged import as_user, delegated, source
from tests.runners.wired import Wired, wired

__all__ = ["source"]

pytestmark = pytest.mark.needs("bwrap", "userns", "cgroup")
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
@pytest.mark.threat("T-15")
def test_nor_can_a_run_that_acts_as_the_gateways_own_user(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    with delegated("memory", "pids", "cpu", "unified") as groups:
        said = as_user(source, groups, module="tests.runners.attacks_script")
    assert said == {"uids": "one", "began": ALL_BEGAN}
