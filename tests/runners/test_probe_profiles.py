"""Whole examinations of profiles, by the spawner alone: with a way out, slow disks, gVisor, bases."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from remit.model import RunResult, RunSpec, Tier
from remit.profile import Profile, RunnerKind
from remit.runners import gvisor, probe
from remit.runners.bubblewrap import find
from remit.runners.verdict import judge
from remit.runners.wire import close_all, sealed_file
from tests.runners.wired import LIMITS, Wired, wired

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.threat("T-16"),
    pytest.mark.needs("bwrap", "userns", "cgroup"),
]

GVISOR = Profile(name="strong", runner=RunnerKind.GVISOR)
SLOW = Profile(name="slow", io_mb_per_s=50)


def _tools() -> probe.Tools:
    others = os.geteuid() == 0
    return probe.Tools(bwrap=find(None, for_others=others), runsc=gvisor.find(for_others=others))


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    runsc = _tools().runsc
    with wired(tmp_path, None if runsc is None else gvisor.told(runsc)) as made:
        yield made


def _run(spawner: Wired, spec: RunSpec, profile: Profile, *, egress: bool) -> RunResult | None:
    """What the gateway's runner does for a probe job, one after another."""
    limits = {name: getattr(spec.limits, name) for name in LIMITS}
    told = {
        "runner": profile.runner.value,
        "base": {"kind": "host"},
        "mounts": [[m.name, m.source, m.writable] for m in profile.mounts],
        "io_mb_per_s": profile.io_mb_per_s,
    }
    fds = [sealed_file("trust", b"")] if egress else []
    lease, out = spawner.provision(*spec.argv, profile=told, limits=limits, egress=egress, fds=fds)
    report, given = spawner.hear("provisioned", "refused", "ended", lease=lease)
    if report["ev"] != "provisioned":
        return None
    spawner.start(lease)
    said = out.read()
    end = spawner.hear("ended", lease=lease)[0]
    close_all(given)
    found = judge(end)
    return RunResult(
        ending=found.ending, exit_code=found.exit_code, stdout=said,
        limits_hit=found.limits_hit, wall_ms=end["wall_us"] // 1000,
    )  # fmt: skip


async def _examined(spawner: Wired, profile: Profile, *, egress: bool = False):
    async def run(spec: RunSpec, name: str, inside: Profile) -> RunResult | None:
        await asyncio.sleep(0)
        return _run(spawner, spec, inside, egress=egress and name == "look")

    return await probe.examine(run, spawner.hello, _tools(), profile, egress=egress)


@pytest.mark.parametrize("egress", [False, True])
async def test_everything_holds_in_a_sandbox(spawner: Wired, egress: bool) -> None:
    found = await _examined(spawner, Profile(), egress=egress)
    assert (found.tier, found.missing, found.hint) == (Tier.SANDBOX, (), None)
    assert found.holds["egress"] is egress
    assert {found.holds[name] for name in probe.ISOLATION} == {True}


@pytest.mark.needs("runsc")
@pytest.mark.parametrize("egress", [False, True])
async def test_everything_holds_under_gvisor(spawner: Wired, egress: bool) -> None:
    found = await _examined(spawner, GVISOR, egress=egress)
    assert (found.tier, found.missing) == (Tier.GVISOR, ())
    assert found.holds["egress"] is egress
    assert found.name == "gvisor"
    assert "ptrace" in found.version or "systrap" in found.version


@pytest.mark.needs("runsc")
async def test_what_is_no_gvisor_is_found_out(spawner: Wired) -> None:
    """The job of gVisor's profile in a plain sandbox: the kernel is the host's."""

    async def run(spec: RunSpec, name: str, inside: Profile) -> RunResult | None:
        return _run(spawner, spec, replace(inside, runner=RunnerKind.SANDBOX), egress=False)

    found = await probe.examine(run, spawner.hello, _tools(), GVISOR)
    assert found.tier is Tier.NONE
    assert "own_kernel" in found.missing


async def test_a_profile_of_gvisor_without_it_is_refused_with_what_mends_it() -> None:
    async def run(*_: object) -> RunResult | None:
        raise AssertionError("nothing is to be run")

    tools = replace(_tools(), runsc=None)
    found = await probe.examine(run, {"mode": "hybrid"}, tools, GVISOR)
    assert (found.tier, found.missing) == (Tier.NONE, ("runsc",))
    assert "runsc" in (found.hint or "")


@pytest.mark.threat("T-17")
async def test_slow_disks_are_seen_to_be_slow(spawner: Wired) -> None:
    if not spawner.hello["io"]:
        pytest.skip("no control group limits disks here")
    found = await _examined(spawner, SLOW)
    assert (found.tier, found.holds["io_limit"]) == (Tier.SANDBOX, True)
