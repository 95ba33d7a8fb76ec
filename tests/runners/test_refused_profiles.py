"""A profile in which nothing can run says why, in the words of what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.model import Mount, Tier
from remit.profile import BaseKind, BaseSystem, Profile, RunnerKind
from remit.runners.doctor import machine_checks
from remit.runners.sandbox import SandboxRunner, SandboxSettings

pytestmark = [pytest.mark.anyio, pytest.mark.needs("bwrap", "userns", "cgroup")]


def _profiles(tmp_path: Path) -> dict[str, Profile]:
    base = tmp_path / "base"
    base.mkdir(mode=0o755)
    other = BaseSystem(kind=BaseKind.DIRECTORY, path=str(base), digest="sha256:" + "0" * 64)
    gone = BaseSystem(kind=BaseKind.DIRECTORY, path=str(tmp_path / "gone"), digest=other.digest)
    mount = Mount(name="data", source=str(tmp_path / "nowhere"), writable=False)
    return {
        "sandbox": Profile(),
        "other": Profile(name="other", base=other),
        "gone": Profile(name="gone", base=gone),
        "mount": Profile(name="mount", mounts=(mount,)),
    }


async def test_profile_that_cannot_be_made_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    settings = SandboxSettings(state_dir=tmp_path, gateway="told", profiles=_profiles(tmp_path))
    runner = await SandboxRunner.open(settings)
    try:
        found = {name: runner.profile(name) for name in settings.profiles}
    finally:
        await runner.aclose()
    faults, hints = {}, {}
    for name, each in found.items():
        assert each is not None
        faults[name], hints[name] = each.fault, each.hint or ""
        assert each.tier is (Tier.SANDBOX if name == "sandbox" else Tier.NONE)
    assert faults["sandbox"] is None
    assert "the base " in str(faults["other"])
    assert "the base " in str(faults["gone"])
    assert "the mount data " in str(faults["mount"])
    assert "base" in hints["other"]
    assert "mounts" in hints["mount"]
    assert not any("docker" in hint for hint in hints.values())


async def test_doctor_says_of_a_refused_profile_what_the_runner_said(tmp_path: Path) -> None:
    profiles = {name: p for name, p in _profiles(tmp_path).items() if name in {"gone", "mount"}}
    lines = {each.name: each for each in await machine_checks(tmp_path, profiles=profiles)}
    assert lines["profile gone"].status == "fail"
    assert "refused: the base " in lines["profile gone"].found
    assert "refused: the mount data " in lines["profile mount"].found
    assert all(lines[f"profile {name}"].fix for name in profiles)


async def test_program_that_the_configuration_names_and_is_not_there_is_not_installed_anew(
    tmp_path: Path,
) -> None:
    nowhere = tmp_path / "nowhere"
    strong = {"strong": Profile(name="strong", runner=RunnerKind.GVISOR)}
    lines = {
        each.name: each
        for each in await machine_checks(tmp_path, profiles=strong, bwrap=nowhere, runsc=nowhere)
    }
    assert "runners.sandbox.bwrap" in str(lines["bubblewrap"].fix)
    assert "runners.gvisor.runsc" in str(lines["gvisor"].fix)
    assert "runners.sandbox.bwrap" in str(lines["sandbox"].fix)
