"""`remit consents`: what people consented to is listed, and ended on an operator's word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from remit.doors.admin import admin_app
from remit.doors.settings import DoorSettings
from remit.model import Principal
from remit.testing.consents import ALICE, BOB, ELSEWHERE, REDIRECT, MemoryConsents
from tests.cli.conftest import Ended, Remit
from tests.doors.fake_admin import FakeAdmin
from tests.doors.serving import served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def give(consents: MemoryConsents, principal: Principal, *scopes: str) -> None:
    page = await consents.begin("crm", principal, scopes, REDIRECT, None)
    await consents.finish(page.state, {"state": page.state, "code": "abc"})


@pytest.fixture
async def house(
    tmp_path: Path, remit: Remit, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[MemoryConsents, Any]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMIT_OPERATOR_TOKEN", "op-olga")
    admin = FakeAdmin()
    async with served(admin_app(admin, DoorSettings())) as url:

        async def run(*words: str) -> Ended:
            return await to_thread.run_sync(partial(remit, "consents", *words, "--url", url))

        yield admin.consents_held, run


async def test_consents_are_listed_without_anything_that_moves_the_terminal(house: Any) -> None:
    consents, remit = house
    await give(consents, ALICE, "read", "wri\x1bte")
    ended = await remit("list")
    assert ended.code == 0
    head, row = ended.out.splitlines()
    assert head.split() == ["CREDENTIAL", "SUBJECT", "TENANT", "GIVEN", "ENDS", "SCOPES"]
    assert row.split()[:3] == ["crm", "alice", "acme"]
    assert "renewed" in row
    assert "\x1b" not in ended.out
    (found,) = json.loads((await remit("list", "-o", "json")).out)["consents"]
    assert (found["subject"], found["renewable"], found["scopes"][0]) == ("alice", True, "read")


async def test_a_consent_is_ended_and_what_the_server_did_not_confirm_is_told(house: Any) -> None:
    consents, remit = house
    for who in (ALICE, BOB):
        await give(consents, who, "read")
    ended = await remit("revoke", "crm", "alice")
    assert (ended.code, ended.err) == (0, "")
    assert "crm of alice revoked" in ended.out
    consents.revokes = False
    ended = await remit("revoke", "crm", "bob")
    assert ended.code == 0
    assert "did not confirm" in ended.err
    assert consents.held == {}
    ended = await remit("revoke", "crm", "bob")
    assert ended.code == 1
    assert "not_found" in ended.err


async def test_one_subject_in_several_tenants_has_to_be_told_apart(house: Any) -> None:
    consents, remit = house
    for who in (ALICE, ELSEWHERE):
        await give(consents, who, "read")
    ended = await remit("revoke", "crm", "alice")
    assert ended.code == 2
    assert "--tenant" in ended.err
    assert (await remit("revoke", "crm", "alice", "--tenant", "other")).code == 0
    assert [principal for _, principal in consents.held] == [ALICE]


async def test_a_link_is_given_for_one_person_and_nothing_is_given_by_it(house: Any) -> None:
    consents, remit = house
    ended = await remit("ask", "crm", "alice", "--tenant", "acme")
    assert (ended.code, ended.out.strip()) == (0, "http://127.0.0.1:8700/consents/x")
    assert "for alice" in ended.err
    assert "login.example.com" in ended.err
    assert consents.held == {}


async def test_who_may_only_read_ends_nothing(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consents, remit = house
    await give(consents, ALICE, "read")
    monkeypatch.setenv("REMIT_OPERATOR_TOKEN", "op-ray")
    assert (await remit("list")).code == 0
    ended = await remit("revoke", "crm", "alice")
    assert ended.code == 1
    assert "may not consent" in ended.err
    assert (await remit("ask", "crm", "alice")).code == 1
    assert len(consents.held) == 1
