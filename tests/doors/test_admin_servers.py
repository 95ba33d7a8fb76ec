"""MCP servers through the admin door: what they list, what differs, and what is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import Code, Conflict, NotFound, Refused
from remit.testing.servers import ODD, item
from tests.doors.fake_admin import FakeAdmin
from tests.doors.serving import http
from tests.doors.test_admin import admin, ask

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def gateway() -> FakeAdmin:
    made = FakeAdmin()
    made.behind.lists("files", item("read"), item("write", ODD))
    made.behind.silent("mail", "it could not be started")
    return made


async def test_servers_are_listed_with_health_and_the_states_of_their_tools() -> None:
    async with admin(gateway()) as (_, client):
        looked = await ask(lambda: client.look("files"))
        await ask(lambda: client.look("mail"))
        files, mail = await ask(client.servers)
    assert looked == files
    assert (files["health"], mail["health"], mail["why"]) == (
        "ready",
        "unreachable",
        "it could not be started",
    )
    assert files["claimed"] == {"name": None, "version": None}
    states = {each["name"]: (each["state"], each["waits"]) for each in files["tools"]}
    assert states == {"read": ("offered", False), "write": ("new", True)}


async def test_differences_are_shown_with_the_digest_that_accepts_them() -> None:
    house = gateway()
    async with admin(house) as (_, client):
        await ask(lambda: client.look("files"))
        seen = await ask(lambda: client.differences("files", "write"))
        digest = seen["tool"]["digest"]
        after = await ask(lambda: client.pin("files", "write", digest))
    assert {each["part"] for each in seen["differences"]} == {"name", "description", "inputSchema"}
    assert {each["sign"] for each in seen["tool"]["suspicions"]} >= {"instruction", "zero_width"}
    assert (after["state"], after["accepted"]) == ("offered", digest)
    assert house.behind.accepted_by == {("files", "write"): "olga"}


@pytest.mark.threat("T-43")
async def test_another_digest_than_the_one_seen_is_a_conflict() -> None:
    house = gateway()
    async with admin(house) as (_, client):
        await ask(lambda: client.look("files"))
        with pytest.raises(Conflict) as refused:
            await ask(lambda: client.pin("files", "write", "sha256:0"))
    assert refused.value.code is Code.WRONG_STATE
    assert house.behind.accepted_by == {}


async def test_server_or_tool_that_is_not_there_is_not_found() -> None:
    async with admin(gateway()) as (_, client):
        await ask(lambda: client.look("files"))
        for server, tool in (("other", "read"), ("files", "other"), ("files/../x", "é\u202e")):
            with pytest.raises(NotFound):
                await ask(lambda named=(server, tool): client.differences(*named))  # type: ignore[misc]  # mypy sees no default
        with pytest.raises(NotFound):
            await ask(lambda: client.look("other"))


@pytest.mark.threat("T-43")
async def test_operator_who_may_only_read_neither_asks_nor_accepts() -> None:
    house = gateway()
    async with admin(house, "op-ray") as (_, client):
        for act in (lambda: client.look("files"), lambda: client.pin("files", "read", "sha256:0")):
            with pytest.raises(Refused) as refused:
                await ask(act)
            assert refused.value.code is Code.APPROVAL_NOT_ELIGIBLE
        assert [each["name"] for each in await ask(client.servers)] == ["files", "mail"]


@pytest.mark.parametrize(
    "body",
    [{}, {"tool": "read"}, {"tool": "", "digest": "x"}, {"tool": "a", "digest": "x", "b": 1}],
)
async def test_pin_that_means_nothing_is_refused_and_echoed_nowhere(body: dict[str, Any]) -> None:
    async with admin(gateway()) as (url, _), http() as session:
        headers = {"authorization": "Bearer op-olga"}
        answer = await session.post(f"{url}/v1/servers/files/pin", json=body, headers=headers)
        two = await session.get(
            f"{url}/v1/servers/files/differences?tool=a&tool=b", headers=headers
        )
    assert (answer.status_code, two.status_code) == (400, 400)
