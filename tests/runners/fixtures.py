"""The real sandbox runner of this machine, for tests of it and of what hostile commands meet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import GATEWAY


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[SandboxRunner]:
    settings = SandboxSettings(state_dir=tmp_path / "state", gateway=GATEWAY)
    runner = await SandboxRunner.open(settings)
    try:
        yield runner
    finally:
        await runner.aclose()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user of this host can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="remit-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def limited_runner(runner: SandboxRunner) -> SandboxRunner:
    """The runner, where its limits were found to hold: only then may a bomb be set off."""
    holds = runner.capabilities.holds
    if not (holds["memory_limit"] and holds["pids_limit"]):
        pytest.skip(f"limits do not hold here; to run it: {runner.capabilities.hint}")
    return runner
