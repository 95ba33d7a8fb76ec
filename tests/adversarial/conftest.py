"""One runner for all programs, on an event loop of its own, and what is planted on the host."""

from __future__ import annotations

import asyncio
import platform
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from remit.model import RunResult, RunSpec
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.adversarial.planted import planted
from tests.runners.fixtures import limited_runner, reachable, runner
from tests.runners.support import GATEWAY, contained

__all__ = ["Box", "box", "facts", "limited_runner", "reachable", "runner"]


T = TypeVar("T")


class Box:
    """A sandbox runner whose runs are made one after another."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: SandboxRunner) -> None:
        self._loop = loop
        self.runner = runner

    def run(self, spec: RunSpec) -> RunResult:
        """Run it to its end; nothing of it may be left."""
        return self.wait(lambda runner: contained(runner, spec))

    def wait(self, work: Callable[[SandboxRunner], Coroutine[Any, Any, T]]) -> T:
        """What the work with the runner comes to."""
        return self._loop.run_until_complete(work(self.runner))


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    with tempfile.TemporaryDirectory(prefix="remit-box-") as state, asyncio.Runner() as loop:
        settings = SandboxSettings(state_dir=Path(state), gateway=f"{GATEWAY}-box")
        runner = loop.run(SandboxRunner.open(settings))
        yield Box(loop.get_loop(), runner)
        loop.run(runner.aclose())


@pytest.fixture(scope="session")
def facts(box: Box) -> Iterator[dict[str, Any]]:
    with planted() as known:
        yield known | {"spawner": box.runner.spawner_pid, "machine": platform.machine()}
