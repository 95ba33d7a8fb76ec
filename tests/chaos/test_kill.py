"""kill -9 of the gateway at each step of the path, and at any moment.

Whatever the moment: no effect without its durable intent, every run closed as done or unknown,
no process, mount, control group or lease of a run left, and a log that verifies.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from remit.app import open_gateway
from remit.config import load
from remit.model import PlanKind, RunState
from remit.testing.tripwire import When
from tests.chaos.leftovers import children
from tests.chaos.world import adopt_orphans, groups, make_world, mounts, orphans

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("userns", "cgroup"),
    pytest.mark.timeout(3600),  # the rounds are many; each has a bound of its own
]

STEPS = [
    ("policy", "decide"),
    ("ledger", "commit_intent"),
    ("ledger", "plan_text"),
    ("runner", "provision"),
    ("ledger", "start"),
    ("runner", "start"),
    ("runner", "collect"),
    ("runner", "destroy"),
    ("ledger", "settle"),
    ("ledger", "receipt"),
]
"""Each port and method on the path, in the order in which a call passes them."""

ROUNDS = 200
START_S = 60
ENDS_S = 10.0
"""What outlives its gateway ends what it holds first: within 5 s the spawner, 8 s the keeper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where the gateway dies: at the nth time of a step, or so long after it was ready."""

    port: str = "none"
    method: str = "-"
    when: When = When.BEFORE
    nth: int = 1
    after_s: float | None = None


def deaths(seed: int, rounds: int) -> list[Death]:
    """Every step before and after first, in turn; every third at a moment of its own."""
    dice = random.Random(seed)
    steps = [(port, method, when) for port, method in STEPS for when in When]
    dice.shuffle(steps)
    found = []
    for number in range(rounds):
        if number % 3 == 2:
            found.append(Death(after_s=dice.uniform(0, 0.25)))
        else:
            port, method, when = steps[number % len(steps)]
            found.append(Death(port=port, method=method, when=when, nth=dice.randint(1, 4)))
    return found


def kill(config: Path, death: Death) -> str:
    """Run the gateway to its death, or to its end where it did not come that far."""
    words = [str(config), death.port, death.method, death.when.value, str(death.nth)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.victim", *words],
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        if death.after_s is not None:
            assert victim.stdout.readline() == "ready\n"
            try:
                victim.wait(death.after_s)
            except subprocess.TimeoutExpired:
                victim.kill()
        said, _ = victim.communicate(timeout=START_S)
    assert victim.returncode in (0, -9), said
    return said


@pytest.mark.threat("T-14", "T-15", "T-18")
async def test_kill_at_any_step_leaves_no_unrecorded_effect_and_nothing_behind(
    tmp_path: Path, seed: int, chaos_count: Callable[[int], int]
) -> None:
    adopt_orphans()
    ours = children()
    tmp_path.parent.chmod(0o755)
    config = make_world(tmp_path)
    killed = 0
    for number, death in enumerate(deaths(seed, chaos_count(ROUNDS))):
        said = kill(config, death)
        killed += "done" not in said
        told = f"seed {seed}, round {number}: {death}"
        assert orphans(ours, within_s=ENDS_S) == [], told
        await look(config, tmp_path, told)
        assert orphans(ours, within_s=ENDS_S) == [], told
    assert killed > 0
    print(f"seed {seed}: {killed} gateways killed")


async def look(config: Path, root: Path, told: str) -> None:
    """Open the gateway again, as an operator would, and hold the world against the log."""
    async with open_gateway(load(config)) as gateway:
        ledger = gateway.ledger
        runs = await ledger.runs(limit=100_000)
        assert not [run for run in runs if run.state.open], told
        entries = [json.loads(entry.text) for entry in await ledger.entries(0, 1_000_000)]
        intended = {entry["run"] for entry in entries if entry["event"] == "call.intent"}
        assert intended == {run.id for run in runs}, told
        marks = root / "marks" / "marks"
        effects = marks.read_text().split() if marks.exists() else []
        may_have_run = [
            json.loads(await ledger.plan_text(run.plan_hash) or b"")["arguments"]["number"]
            for run in runs
            if run.kind is PlanKind.MAIN
            and run.tool_name != "look"
            and run.state in (RunState.SUCCEEDED, RunState.UNKNOWN, RunState.FAILED)
        ]
        for number in set(effects):
            # At most once for each grant: never more marks than grants that may have run.
            assert effects.count(number) <= may_have_run.count(int(number)), told
        for run in [run for run in runs if run.state is RunState.UNKNOWN and not run.resolved_as]:
            await ledger.resolve(run.id, operator="test", succeeded=False, note="looked", now_ms=0)
        name, key = gateway.settings.gateway, ledger.verifier_key
    assert groups(name) == [], told
    assert mounts(str(root)) == [], told
    assert list((root / "data" / "runners" / "leases").iterdir()) == [], told
    verified = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "remit", "audit", "verify", str(root / "data" / "ledger.db"),
        "--key", key,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    output, _ = await verified.communicate()
    assert verified.returncode == 0, (told, output.decode())
