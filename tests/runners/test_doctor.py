"""The machine, line by line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from remit.model import Tier
from remit.profile import Profile
from remit.runners import probe
from remit.runners.doctor import machine_checks
from remit.runners.sandbox import SandboxRunner
from tests.runners.support import groups_naming

pytestmark = pytest.mark.anyio


@pytest.mark.needs("bwrap", "userns", "cgroup")
async def test_a_machine_with_everything_fails_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    checks = await machine_checks(tmp_path)
    assert [check.name for check in checks] == [
        "bubblewrap",
        "user namespaces",
        "cgroups",
        "sandbox",
        "user of runs",
        "disk",
    ]
    assert "fail" not in {check.status for check in checks}
    assert groups_naming(f"remit-doctor-{os.getpid()}") == []
    assert list((tmp_path / "leases").iterdir()) == []


@pytest.mark.slow
@pytest.mark.needs("bwrap", "userns", "cgroup")
async def test_a_profile_that_is_looked_at_has_a_line_for_each_check(tmp_path: Path) -> None:
    checks = {
        check.name: check
        for check in await machine_checks(tmp_path, profiles={"sandbox": Profile()})
    }
    assert checks["profile sandbox"].status == "ok"
    assert (
        "25 of 25" in checks["profile sandbox"].found
        or "24 of 24" in checks["profile sandbox"].found
    )
    assert len([name for name in checks if name.startswith("sandbox: ")]) > 25
    assert "fail" not in {check.status for check in checks.values()}
    assert groups_naming(f"remit-doctor-{os.getpid()}") == []


async def test_each_line_that_fails_says_what_mends_it(tmp_path: Path) -> None:
    nothing = probe.nothing(probe.Tools(bwrap=None))
    checks = await machine_checks(tmp_path, capabilities=nothing)
    failed = [check for check in checks if check.status == "fail"]
    assert {"user namespaces", "sandbox"} <= {check.name for check in failed}
    assert all(check.fix for check in failed)
    assert [check.status for check in checks if check.name == "cgroups"] == ["unknown"]


@pytest.mark.needs("bwrap", "userns", "cgroup")
async def test_limits_that_do_not_hold_fail_though_the_walls_stand(
    runner: SandboxRunner, tmp_path: Path
) -> None:
    holds = {**runner.capabilities.holds, "memory_limit": False}
    degraded = replace(
        runner.capabilities, tier=Tier.DEGRADED, holds=holds, missing=("memory_limit",), hint="x"
    )
    checks = {c.name: c for c in await machine_checks(tmp_path, capabilities=degraded)}
    assert checks["user namespaces"].status == "ok"
    assert checks["cgroups"].status == checks["sandbox"].status == "fail"
    allowed = await machine_checks(tmp_path, capabilities=degraded, unsafe_degraded=True)
    assert [c.status for c in allowed if c.name in {"cgroups", "sandbox"}] == ["warn", "warn"]
