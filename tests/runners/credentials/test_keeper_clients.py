"""A whole keeper lends tokens for Remit itself: one for each run, or shared where that is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remit.errors import RunnerFault
from remit.model import Grant, Lease
from remit.runners.credentials.client_credentials import SHARED
from remit.runners.wire import close_all
from tests.runners.credentials.keeping import FILE, World, keeping, lease
from tests.runners.credentials.oauth import KEYS, Place, pem, placed
from tests.runners.credentials.world import section

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as made:
        yield made


def written(place: Place, directory: Path, **more: Any) -> dict[str, dict[str, Any]]:
    key = directory / "client.pem"
    key.write_text(pem(KEYS["EdDSA"]))
    words: dict[str, Any] = {
        "broker": "client_credentials",
        "resource": f"{place.resource.url}/mcp",
        "issuer": place.server.url,
        "token_url": f"{place.server.url}/token",
        "revocation_url": f"{place.server.url}/revoke",
        "client_id": "remit",
        "client_auth": "private_key_jwt",
        "private_key": f"file:{key}",
        "file": FILE,
        **more,
    }
    return {"crm": {**section(**words), "private_key": words["private_key"]}}


async def lent_text(world: World, grant: Grant) -> str:
    lent = await world.keeper.lend(lease(grant))
    try:
        return os.pread(lent.files[0].fd, 4_096, 0).decode()
    finally:
        close_all([each.fd for each in lent.files])


@pytest.mark.threat("T-34")
async def test_each_run_has_a_token_of_its_own_that_is_dead_after_it(
    place: Place, tmp_path: Path
) -> None:
    async with keeping(tmp_path, written(place, tmp_path)) as world:
        grant = await world.granted("crm")
        token = await lent_text(world, grant)
        assert place.server.live[token]["resource"] == f"{place.resource.url}/mcp"
        cleaned, found = await world.keeper.scrub(lease(grant), f"it is {token}".encode())
        assert (found, token.encode() in cleaned) == (1, False)
        [loan] = await world.keeper.take_back(lease(grant))
        assert (loan.broker, loan.delivered, loan.revoked) == ("client_credentials", "file", True)
        assert place.server.live == {}
        assert os.listdir(tmp_path / "keeper/loans") == []


@pytest.mark.threat("T-34")
async def test_what_runs_share_is_said_in_each_loan_and_policy_can_have_it_otherwise(
    place: Place, tmp_path: Path
) -> None:
    place.server.lives_s = 600
    async with keeping(tmp_path, written(place, tmp_path, unsafe_keep_s=300)) as world:
        first, second = await world.granted("crm"), await world.granted("crm", service="db")
        token = await lent_text(world, first)
        [loan] = await world.keeper.take_back(lease(first))
        assert (loan.note, loan.revoked) == (SHARED, False)
        assert loan.expires_ms is not None
        assert loan.expires_ms > first.deadline_ms + 60_000
        assert await lent_text(world, second) == token
        rule = {"ref": "crm", "scopes": [], "ttl_s": 20, "digest": world.keeper.digest("crm")}
        third = await world.granted(service="queue", credentials=[rule])
        own = await lent_text(world, third)
        assert own != token
        [loan] = await world.keeper.take_back(lease(third))
        assert (loan.note, loan.revoked) == (None, True)
        assert list(place.server.live) == [token]


@pytest.mark.threat("T-38")
async def test_outside_of_runs_only_what_the_operator_wrote_is_lent_and_under_no_runs_name(
    place: Place, tmp_path: Path
) -> None:
    async with keeping(tmp_path, written(place, tmp_path)) as world:
        assert "to runs alone" in await refused(world, LOOK, "crm")
        assert "to runs alone" in await refused(world, LOOK, "nothing")
    async with keeping(tmp_path, written(place, tmp_path, unsafe_look=True)) as world:
        grant = await world.granted("crm")
        assert "no name of a look" in await refused(world, lease(grant), "crm")
    assert place.server.given == []


@pytest.mark.threat("T-34")
async def test_what_was_lent_to_look_is_searched_for_and_revoked_and_no_sweep_ends_it_before(
    place: Place, tmp_path: Path
) -> None:
    async with keeping(tmp_path, written(place, tmp_path, unsafe_look=True)) as world:
        lent = await world.keeper.look(LOOK, "crm")
        token = os.pread(lent.files[0].fd, 4_096, 0).decode()
        close_all([each.fd for each in lent.files])
        assert await world.keeper.sweep(frozenset()) == ()
        assert token in place.server.live
        _, traces = await world.keeper.scrub(LOOK, f"it is {token}".encode())
        assert traces == 1
        assert "already" in await refused(world, LOOK, "crm")
        [loan] = await world.keeper.take_back(LOOK)
        assert loan.revoked
        assert place.server.live == {}
        assert os.listdir(tmp_path / "keeper/loans") == []


LOOK = Lease(id="look_" + "a" * 26, gateway="gw-1", fence=0, deadline_ms=0)


async def refused(world: World, look: Lease, ref: str) -> str:
    with pytest.raises(RunnerFault) as caught:
        await world.keeper.look(look, ref)
    return caught.value.message
