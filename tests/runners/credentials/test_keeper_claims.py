"""What the keeper says of a run, and which rules it holds it to, stands in what it signed: rows of
the ledger beside the log convince nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.errors import RunnerFault
from remit.model import Effect, Grant
from remit.runners.wire import close_all
from remit.testing import ledger_samples as sample
from tests.runners.credentials.issuing import verified
from tests.runners.credentials.keeping import (
    CALLER,
    ISSUER,
    World,
    clock,
    keeping,
    lease,
    oidc,
)
from tests.runners.credentials.test_keeper import by_hand

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.threat("T-38")]


async def approved(world: World) -> Grant:
    """A run that olga approved, let go."""
    plan = world.plan("there", service="web", effect=Effect.WRITE, wall_s=30)
    at = sample.SetClock(clock.now_ms())
    asked = sample.require(at)
    draft = sample.approval_draft(
        at, plan, caller=CALLER, environment="staging", decision_id=asked.evaluation.decision_id
    )
    opened = await world.store.open_approval(draft, [sample.decision_entry(plan, asked)])
    await world.store.vote(opened.id, opened.plan_hash, sample.vote(at))
    again = sample.require(at)
    intent = sample.intent(at, plan=plan, caller=CALLER, decision=again, approval_id=opened.id)
    grant = await world.store.commit_intent(intent, [sample.decision_entry(plan, again)])
    await world.store.start(grant, clock.now_ms())
    return grant


async def claims(world: World, grant: Grant) -> dict[str, object]:
    lent = await world.keeper.lend(lease(grant))
    try:
        text = os.pread(lent.files[0].fd, 4_096, 0).decode()
    finally:
        close_all([each.fd for each in lent.files])
    return verified(text, dict(await world.keeper.keys()))


async def test_a_token_names_those_who_approved(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"there": oidc()}, issuer=ISSUER) as world:
        grant = await approved(world)
        found = await claims(world, grant)
        assert (found["approval"], found["approvers"]) == (grant.approval_id, ["olga"])


async def test_votes_that_are_no_part_of_the_log_are_in_no_token(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"there": oidc()}, issuer=ISSUER) as world:
        grant = await approved(world)
        await by_hand(
            world,
            "INSERT INTO vote SELECT approval_id, 'mallory', verdict, voted_ms, groups, reason"
            " FROM vote WHERE approval_id = ?",
            grant.approval_id,
        )
        assert (await claims(world, grant))["approvers"] == ["olga"]


async def test_a_run_that_claims_the_approval_of_another_is_lent_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"there": oidc()}, issuer=ISSUER) as world:
        first = await approved(world)
        other = await world.granted("there", service="db")
        await by_hand(
            world,
            "UPDATE run SET approval_id = ? WHERE id = ?",
            first.approval_id,
            other.run_id,
        )
        with pytest.raises(RunnerFault, match="no such run"):
            await world.keeper.lend(lease(other))


@pytest.mark.threat("T-35")
async def test_an_older_run_that_is_called_a_read_by_its_row_alone_is_lent_nothing(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path, {"there": oidc()}, issuer=ISSUER) as world:
        older = await world.granted("there")
        await by_hand(world, "UPDATE run SET state = 'failed' WHERE id = ?", older.run_id)
        await world.granted("there")
        await by_hand(
            world, "UPDATE run SET state = NULL, effect = 'read' WHERE id = ?", older.run_id
        )
        with pytest.raises(RunnerFault, match="no such run"):
            await world.keeper.lend(lease(older))


async def test_a_keeper_takes_no_second_ledger(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"there": oidc()}, issuer=ISSUER) as world:
        grant = await world.granted("there")
        path = tmp_path / "ledger.db"
        with pytest.raises(RunnerFault, match="has its ledger"):
            await world.keeper.ledger(path, world.store)
        assert (await claims(world, grant))["run"] == grant.run_id
