"""The issuer's public pages on the MCP door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from remit.doors.issuer import CONFIGURATION, KEYS, PublicIssuer
from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.errors import Code, RunnerFault
from tests.doors.fake import FakeGateway
from tests.doors.serving import http, served

pytestmark = pytest.mark.anyio


class Keeper:
    """Gives one key set, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = False

    async def keys(self) -> Mapping[str, Any]:
        self.asked += 1
        if self.gone:
            raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "the keeper is not there")
        return {"keys": [{"kid": "k1"}]}


def app(keeper: Keeper, **settings: Any) -> Any:
    issuer = PublicIssuer(url="https://remit.example/", algorithm="RS256", keys=keeper.keys)
    return mcp_app(FakeGateway(), DoorSettings(**settings), issuer=issuer)


async def test_a_verifier_finds_the_keys_through_the_discovery_document() -> None:
    async with served(app(Keeper())) as url, http() as client:
        found = (await client.get(url + CONFIGURATION)).json()
        assert found["issuer"] == "https://remit.example"
        assert found["jwks_uri"] == "https://remit.example" + KEYS
        assert found["id_token_signing_alg_values_supported"] == ["RS256"]
        answer = await client.get(url + KEYS)
        assert answer.json() == {"keys": [{"kid": "k1"}]}
        assert answer.headers["cache-control"] == "public, max-age=300"
        again = await client.get(url + KEYS, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304


async def test_the_pages_are_there_only_where_there_is_an_issuer() -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, http() as client:
        assert (await client.get(url + KEYS)).status_code == 404


async def test_many_who_ask_cost_the_keeper_one_question() -> None:
    keeper = Keeper()
    async with served(app(keeper)) as url, http() as client:
        for _ in range(20):
            await client.get(url + KEYS)
    assert keeper.asked == 1


async def test_without_its_keeper_a_door_that_never_knew_the_keys_says_so() -> None:
    keeper = Keeper()
    keeper.gone = True
    async with served(app(keeper)) as url, http() as client:
        for _ in range(20):
            assert (await client.get(url + KEYS)).status_code == 503
    assert keeper.asked < 10  # strangers cannot make a failing keeper busy


async def test_it_answers_under_its_own_name_and_no_foreign_one() -> None:
    async with served(app(Keeper(), allowed_hosts=())) as url, http() as client:
        own = await client.get(url + KEYS, headers={"host": "remit.example"})
        foreign = await client.get(url + KEYS, headers={"host": "evil.example"})
    assert (own.status_code, foreign.status_code) == (200, 421)


async def test_nothing_but_reading_is_served_there() -> None:
    async with served(app(Keeper())) as url, http() as client:
        assert (await client.post(url + KEYS, content=b"{}")).status_code == 405
