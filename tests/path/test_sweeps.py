"""What sweeps find is in the log: each thing once, bounded, and never a run that goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.app import sweep
from remit.errors import Code, LedgerFault
from remit.model import Destruction, RunState
from remit.recovery import MAX_SWEPT, Sweeps, recover
from tests.path.broken import assert_the_log_holds
from tests.path.conftest import HEAD, MakePath, Path_, tool
from tests.path.test_path import code

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-18")]

KEY = {"ref": "ci"}
GIVE = HEAD + 'decision := answer("allow", {"constraints": {"credentials": [{"ref": "ci"}]}})\n'
GONE = Destruction(
    lease_id="run_old",
    processes_left=0,
    cgroup_removed=True,
    directory_removed=True,
    mounts_left=0,
    destroyed_ms=1,
    took_us=1,
)


async def swept(path: Path_) -> list[dict[str, Any]]:
    return [each for each in await path.entries() if each["event"] == "runner.swept"]


async def test_leftover_is_written_down_and_a_sweep_that_finds_nothing_is_not(
    make_path: MakePath,
) -> None:
    path = await make_path()
    sweeps = Sweeps(path.ledger)
    await sweep(path.pipeline.backends, sweeps)
    assert await swept(path) == []
    path.runner.swept = [GONE]
    await sweep(path.pipeline.backends, sweeps)
    (entry,) = await swept(path)
    assert (entry["run"], entry["when"], entry["destruction"]["complete"]) == (
        "run_old",
        "sweep",
        True,
    )
    await assert_the_log_holds(path)


async def test_what_cannot_be_removed_is_written_again_only_when_it_changed(
    make_path: MakePath,
) -> None:
    path = await make_path()
    sweeps = Sweeps(path.ledger)
    for number in range(5):
        left = replace(GONE, cgroup_removed=False, destroyed_ms=number, took_us=number)
        await sweeps.write([left], [], when="sweep")
    assert len(await swept(path)) == 1
    await sweeps.write([replace(GONE, cgroup_removed=False, mounts_left=1)], [], when="sweep")
    await sweeps.write([GONE], [], when="sweep")
    assert [each["destruction"]["complete"] for each in await swept(path)] == [False, False, True]


async def test_thousand_leftovers_are_named_as_far_as_that_is_bounded_and_counted_beyond(
    make_path: MakePath,
) -> None:
    path = await make_path()
    found = [replace(GONE, lease_id=f"run_{number}") for number in range(1_000)]
    await Sweeps(path.ledger).write(found, [], when="sweep")
    entries = await swept(path)
    assert len(entries) == MAX_SWEPT + 1
    assert (entries[-1]["run"], entries[-1]["more"]) == (None, 1_000 - MAX_SWEPT)


async def a_lost_run(path: Path_, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose outcome was never written and whose credential was not taken back."""

    async def fail(*_: Any) -> int:
        raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the test broke the ledger")

    with monkeypatch.context() as broken:
        broken.setattr(path.ledger, "settle", fail)
        path.credentials.broken = ["take_back"]
        reply = await path.call("deploy")
    path.credentials.broken = []
    return str(reply.decision["run_id"])


@pytest.mark.threat("T-34")
async def test_next_start_ends_loans_and_writes_down_what_it_found(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path_ = await make_path(
        GIVE, tools=[tool("deploy", credentials=[KEY])], secrets={"ci": "hunter2-hunter2"}
    )
    lost = await a_lost_run(path, monkeypatch)
    path.runner.swept = [replace(GONE, lease_id=lost), GONE]
    (closed,) = await recover(path.ledger, path.runner, path.clock, path.credentials)
    assert closed.id == lost
    outcome = [each for each in await path.entries() if each["event"] == "call.outcome"][-1]
    assert (outcome["run"], outcome["recovered"]) == (lost, True)
    assert outcome["destruction"]["complete"] is True
    entries = await swept(path)
    assert [each["run"] for each in entries] == ["run_old", None]
    (loan,) = entries[-1]["loans"]
    assert (loan["ref"], loan["revoked"], entries[-1]["when"]) == ("ci", True, "recovery")
    run = await path.ledger.run(lost)
    assert run is not None
    assert run.state is RunState.UNKNOWN
    await assert_the_log_holds(path)
    assert code(await path.call("deploy")) == "outcome_unknown"
