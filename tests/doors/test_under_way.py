"""Of two requests with one id in a session, neither is left without its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import httpx2
import pytest

from remit.errors import Code
from tests.doors.fake import FakeGateway
from tests.doors.test_mcp_sessions import Session, result, session

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-02")]

ECHO = {"name": "echo", "arguments": {"text": "other"}}


async def _slow(s: Session, gateway: FakeGateway, id_: Any) -> asyncio.Future[httpx2.Response]:
    """A call that is under way."""
    sending = asyncio.ensure_future(s.send("tools/call", {"name": "slow"}, id_=id_))
    with anyio.fail_after(20):
        await gateway.started.wait()
    return sending


@pytest.mark.parametrize("again", [7, "7", "07"])
async def test_an_id_that_is_under_way_is_refused_and_the_first_gets_its_own(again: Any) -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        first = await _slow(s, gateway, 7)
        with anyio.fail_after(20):
            refused = await s.send("tools/call", ECHO, id_=again)
        assert refused.status_code == 400
        assert (refused.json()["id"], refused.json()["error"]["code"]) == (again, -32600)
        assert gateway.refusals == [(Code.NOT_SERVED, "127.0.0.1")]
        gateway.release.set()
        assert result(await first)["result"]["content"][0]["text"] == "released"
        assert result(await s.send("tools/call", ECHO, id_=again))["id"] == again


async def test_an_id_whose_connection_was_lost_never_gets_the_answer_to_what_was_asked_before() -> (
    None
):
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        lost = await _slow(s, gateway, 7)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        assert (await s.send("tools/call", ECHO, id_=7)).status_code == 400
        gateway.release.set()
        with anyio.fail_after(20):
            await gateway.finished.wait()
        assert (await s.send("tools/call", ECHO, id_=7)).status_code == 400
        assert result(await s.send("tools/call", ECHO, id_=8))["id"] == 8


async def test_an_id_is_taken_in_its_own_session_only() -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        first = await _slow(s, gateway, 7)
        url = s.url.removesuffix("/mcp")
        for other in (Session(url, s.client), Session(url, s.client, "key-ann-2")):
            await other.open()
            assert (await other.send("ping", id_=7)).status_code == 200
        thief = Session(url, s.client, "key-bob")
        thief.id = s.id
        assert (await thief.send("ping", id_=7)).status_code == 404
        gateway.release.set()
        await first


async def test_no_id_stands_for_the_stream_on_which_a_session_is_told_of_changes() -> None:
    async with session(FakeGateway()) as s:
        await s.open()
        assert (await s.send("ping", id_="_GET_stream")).status_code == 400
        assert (await s.send("ping", id_="another")).status_code == 200
