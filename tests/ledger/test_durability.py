"""What was acknowledged survives kill -9 at any moment, and the log still verifies."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from remit.ledger.checkpoint import VerifierKey
from remit.ledger.records import read_store
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.ledger.verify import verify
from remit.model import RunState
from remit.testing.ledger_samples import SetClock
from tests.plugins.machine import ROOT

pytestmark = pytest.mark.anyio


def killed_after(directory: Path, turn: int, seconds: float) -> list[str]:
    """The lines that a writing process acknowledged before it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.appender_process", str(directory), str(turn)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == b"ready\n"
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        lines = child.stdout.read().decode().splitlines()
        timer.join()
    assert child.returncode == -9
    return lines


@pytest.mark.slow
@pytest.mark.threat("T-14")
async def test_what_was_acknowledged_survives_kill_9(
    tmp_path: Path,
    signer: FileSigner,
    key: VerifierKey,
    seed: int,
    chaos_count: Callable[[int], int],
) -> None:
    chance = random.Random(seed)
    acknowledged: list[str] = []
    for turn in range(chaos_count(50)):
        acknowledged += killed_after(tmp_path, turn, chance.uniform(0.005, 0.4))
    report = verify(read_store(tmp_path / "ledger.db"), key)
    assert report.problem is None
    ledger = SqliteLedger.open(
        tmp_path / "ledger.db", signer=signer, gateway="gw-1", clock=SetClock()
    )
    entries = {each.index: each for each in await ledger.entries(0, 10**9)}
    assert len(acknowledged) > 10
    assert len(entries) == report.entries
    runs = {run.id: run for run in await ledger.runs(limit=10**9)}
    for line in acknowledged:
        what, run, index, leaf, size = line.split()
        assert entries[int(index)].leaf_hash.hex() == leaf
        assert runs[run].intent_index <= int(index) < int(size) <= len(entries)
        if what == "started":
            assert runs[run].started_ms is not None
        if what == "outcome":
            assert runs[run].state is RunState.SUCCEEDED
    open_states = frozenset({RunState.INTENDED, RunState.STARTED})
    still_open = await ledger.runs(states=open_states, limit=10**9)
    assert {run.id for run in still_open} == {run for run, _ in report.open_runs}
    await ledger.aclose()
