"""Every runner keeps the contract: the sandbox, and the one that runs nothing."""

from __future__ import annotations

import pytest

from remit.ports import Runner
from remit.runners.sandbox import SandboxRunner
from remit.testing.runner import NoopRunner, RunnerContract

pytestmark = pytest.mark.anyio


@pytest.mark.needs("bwrap", "userns", "cgroup")
class TestSandboxRunner(RunnerContract):
    @pytest.fixture
    def runner(self, runner: SandboxRunner) -> Runner:
        return runner


class TestNoopRunner(RunnerContract):
    @pytest.fixture
    def runner(self) -> Runner:
        return NoopRunner()
