"""Every runner keeps the contract: the sandbox, cold and from slots, and the one that runs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.errors import Code, RunnerFault
from remit.ports import KeepingRunner, Runner
from remit.profile import Profile, Warm
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.runners.slots import classes_of
from remit.testing.dialogue_contract import SPOKEN, DialogueContract
from remit.testing.keeping_contract import KeepingContract
from remit.testing.runner import CAT, NoopRunner, RunnerContract, lease
from remit.testing.scripted import ScriptedRunner
from remit.testing.spoken import cat
from tests.runners.support import GATEWAY

pytestmark = pytest.mark.anyio


@pytest.mark.needs("bwrap", "userns", "cgroup")
class TestSandboxRunner(RunnerContract, DialogueContract, KeepingContract):
    @pytest.fixture
    def runner(self, runner: SandboxRunner) -> Runner:
        return runner

    @pytest.fixture
    def keeper(self, runner: SandboxRunner) -> KeepingRunner:
        return runner


@pytest.mark.needs("bwrap", "userns", "cgroup")
class TestSandboxRunnerWithSlots(RunnerContract, DialogueContract):
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

    async def test_it_speaks_with_no_run(self, runner: Runner) -> None:
        own = lease("contract-mute")
        await runner.provision(own, SPOKEN)
        with pytest.raises(RunnerFault) as refused:
            runner.dialogue(own)
        assert refused.value.code is Code.RUNNER_LACKS
        await runner.destroy(own)


class TestNoopRunnerWithASpeaker(RunnerContract, DialogueContract, KeepingContract):
    @pytest.fixture
    def runner(self) -> Runner:
        return NoopRunner(speaker=cat)

    @pytest.fixture
    def keeper(self) -> KeepingRunner:
        return NoopRunner(speaker=cat)


async def test_a_scripted_run_can_be_spoken_with_too() -> None:
    runner, own = ScriptedRunner(speaker=cat), lease("scripted-spoken")
    await runner.provision(own, SPOKEN)
    await runner.start(own)
    dialogue = runner.dialogue(own)
    await dialogue.write(b"word\n")
    assert await dialogue.read() == b"word\n"
    dialogue.close_input()
    assert (await runner.collect(own)).exit_code == 0
    await runner.destroy(own)
