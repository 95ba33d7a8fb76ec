"""Every runner keeps the contract: the sandbox, cold and from slots, and the one that runs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.ports import Runner
from remit.profile import Profile, Warm
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.runners.slots import classes_of
from remit.testing.runner import CAT, NoopRunner, RunnerContract
from tests.runners.support import GATEWAY

pytestmark = pytest.mark.anyio


@pytest.mark.needs("bwrap", "userns", "cgroup")
class TestSandboxRunner(RunnerContract):
    @pytest.fixture
    def runner(self, runner: SandboxRunner) -> Runner:
        return runner


@pytest.mark.needs("bwrap", "userns", "cgroup")
class TestSandboxRunnerWithSlots(RunnerContract):
    @pytest.fixture
    async def runner(self, tmp_path: Path) -> AsyncIterator[Runner]:
        profile = Profile(warm=Warm(shell=3))
        settings = SandboxSettings(
            state_dir=tmp_path,
            gateway=f"{GATEWAY}-slots",
            profiles={"sandbox": profile},
            classes=classes_of(CAT, profile, out=False),
        )
        runner = await SandboxRunner.open(settings)
        async with asyncio.timeout(10):
            while runner.waiting["shell"] < 3:
                await asyncio.sleep(0.002)
        yield runner
        await runner.aclose()


class TestNoopRunner(RunnerContract):
    @pytest.fixture
    def runner(self) -> Runner:
        return NoopRunner()
