"""Clients that asked hear when their own list of tools has changed, and no longer than they may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.subscriptions import Subscription
from mcp.server.subscriptions import ToolsListChanged
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette

from remit.doors.mcp import end_streams, mcp_app
from remit.doors.settings import DoorSettings
from remit.model import Caller, Tool
from tests.doors.fake import FakeGateway, tool
from tests.doors.serving import LEGACY, client, http, modern_headers, modern_meta, served
from tests.doors.test_mcp_edge import post
from tests.doors.test_mcp_sessions import Session

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-03")]

QUICK = DoorSettings(recheck_s=0.01)
MODERN = "2026-07-28"


class House:
    """A gateway, its door, and where that is."""

    def __init__(self, gateway: FakeGateway, app: Starlette, url: str) -> None:
        self.gateway = gateway
        self.app = app
        self.url = url

    async def hide(self, subject: str, name: str) -> None:
        self.gateway.hidden.setdefault(subject, set()).add(name)
        self.gateway.change()

    async def until_watched(self, by: int) -> None:
        """Until so many streams wait and have seen their list."""
        with anyio.fail_after(10):
            while self.gateway.watching != by or self.gateway.listed < by:
                await anyio.sleep(0.005)


@asynccontextmanager
async def house(settings: DoorSettings | None = None) -> AsyncIterator[House]:
    gateway = FakeGateway()
    app = mcp_app(gateway, settings or DoorSettings())
    async with served(app) as url:
        yield House(gateway, app, url)


async def all_of(subscription: Subscription) -> list[Any]:
    """Every event until the stream is ended as it should be."""
    with anyio.fail_after(10):
        return [event async for event in subscription]


def listen_body(**wanted: Any) -> dict[str, Any]:
    params = {"notifications": wanted, "_meta": modern_meta()}
    return {"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params}


def frames(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


# ---------------------------------------------------------------------------------------- modern


async def test_client_hears_of_a_change_and_lists_the_new_tools() -> None:
    async with house() as at, client(at.url, MODERN) as ann:
        before = [each.name for each in (await ann.list_tools()).tools]
        async with ann.listen(tools_list_changed=True) as heard:
            at.gateway.tools.append(tool("zeta"))
            at.gateway.change()
            with anyio.fail_after(10):
                assert await anext(heard) == ToolsListChanged()
            after = [each.name for each in (await ann.list_tools()).tools]
    assert set(after) - set(before) == {"zeta"}


async def test_only_those_hear_whose_own_list_has_changed() -> None:
    async with (
        house() as at,
        client(at.url, MODERN) as ann,
        ann.listen(tools_list_changed=True) as to_ann,
        http() as session,
        session.stream(
            "POST", f"{at.url}/mcp", json=listen_body(toolsListChanged=True),
            headers=modern_headers("subscriptions/listen", key="key-bob"),
        ) as to_bob,
    ):  # fmt: skip
        lines = to_bob.aiter_lines()
        seen = [await anext(lines) for _ in range(3)]
        for name in ("slow", "fails"):
            await at.hide("ann", name)
            with anyio.fail_after(10):
                assert await anext(to_ann) == ToolsListChanged()
        at.gateway.change()  # of nothing that either of them sees
        await at.hide("bob", "slow")
        seen += [await anext(lines) for _ in range(3)]
        end_streams(at.app)
        assert await all_of(to_ann) == []
        seen += [line async for line in lines]
    methods = [each.get("method") for each in frames("\n".join(seen))]
    changed = "notifications/tools/list_changed"
    assert methods == ["notifications/subscriptions/acknowledged", changed, None]


class Slow(FakeGateway):
    async def visible(self, caller: Caller, **asked: Any) -> Sequence[Tool]:
        await asyncio.sleep(0.2)
        return await super().visible(caller, **asked)


async def test_list_that_takes_long_to_make_breaks_no_stream() -> None:
    app = mcp_app(Slow(), DoorSettings(keepalive_s=0.01))
    async with served(app) as url, client(url, MODERN) as ann:
        with anyio.fail_after(10):
            async with ann.listen(tools_list_changed=True) as heard:
                end_streams(app)
                assert await all_of(heard) == []


async def test_changes_of_prompts_and_resources_are_neither_promised_nor_sent() -> None:
    async with house() as at, http() as session:
        wanted: dict[str, Any] = {"toolsListChanged": True, "resourcesListChanged": True, "x": 1,
                  "promptsListChanged": True, "resourceSubscriptions": ["file:///x"]}  # fmt: skip
        headers = modern_headers("subscriptions/listen")
        asking = session.stream(
            "POST", f"{at.url}/mcp", json=listen_body(**wanted), headers=headers
        )
        async with asking as answer:
            lines = answer.aiter_lines()
            seen = [await anext(lines) for _ in range(3)]
            await at.hide("ann", "slow")
            seen += [await anext(lines) for _ in range(3)]
            end_streams(at.app)
            seen += [line async for line in lines]
    acknowledged, told, ended = frames("\n".join(seen))
    meta = {"io.modelcontextprotocol/subscriptionId": 7}
    assert acknowledged["params"] == {"notifications": {"toolsListChanged": True}, "_meta": meta}
    assert told["method"] == "notifications/tools/list_changed"
    assert told["params"] == {"_meta": meta}
    assert ended["id"] == 7
    assert meta.items() <= ended["result"]["_meta"].items()


async def test_subscription_that_wants_nothing_served_here_hears_nothing() -> None:
    async with (
        house() as at,
        client(at.url, MODERN) as ann,
        ann.listen(resources_list_changed=True) as heard,
    ):
        await at.hide("ann", "slow")
        end_streams(at.app)
        assert await all_of(heard) == []


@pytest.mark.threat("T-02")
async def test_stream_ends_when_its_credential_is_no_longer_valid() -> None:
    async with (
        house(QUICK) as at,
        client(at.url, MODERN) as ann,
        client(at.url, MODERN, "key-ann-2") as same_person,
        ann.listen(tools_list_changed=True) as heard,
        same_person.listen(tools_list_changed=True) as still,
    ):
        at.gateway.revoked.add("key-ann")
        await at.hide("ann", "slow")
        assert await all_of(heard) == []
        with anyio.fail_after(10):
            assert await anext(still) == ToolsListChanged()


async def test_caller_has_only_so_many_streams_and_others_have_theirs() -> None:
    settings = DoorSettings(max_subscriptions_per_caller=2, max_subscriptions=3)
    async with (
        house(settings) as at,
        client(at.url, MODERN) as ann,
        client(at.url, MODERN, "key-bob") as bob,
    ):
        async with ann.listen(tools_list_changed=True), ann.listen(tools_list_changed=True):
            await _refused(ann)
            async with bob.listen(tools_list_changed=True):
                await _refused(bob)
        await at.until_watched(0)
        async with ann.listen(tools_list_changed=True) as heard:
            await at.hide("ann", "slow")
            with anyio.fail_after(10):
                assert await anext(heard) == ToolsListChanged()


async def _refused(of: Client) -> None:
    with pytest.raises(MCPError) as refused:
        async with of.listen(tools_list_changed=True):
            raise AssertionError("one more than there may be")
    assert refused.value.error.data == {"code": "rate_limited"}


async def test_client_that_takes_no_stream_is_told_so_before_anything_is_listed() -> None:
    async with house() as at:
        headers = {"accept": "application/json"}
        answer = await post(at.url, listen_body(toolsListChanged=True), headers)
        assert answer.status_code == 406
        assert (at.gateway.listed, at.gateway.watching) == (0, 0)


async def test_closed_connection_gives_its_place_back() -> None:
    async with house() as at, http() as session:
        headers = modern_headers("subscriptions/listen")
        body = listen_body(toolsListChanged=True)
        async with session.stream("POST", f"{at.url}/mcp", json=body, headers=headers) as answer:
            await anext(answer.aiter_lines())
            assert at.gateway.watching == 1
        await at.until_watched(0)


# ------------------------------------------------------------------------------ earlier revisions


async def test_both_eras_are_told_that_the_list_may_change() -> None:
    async with house() as at, client(at.url, "auto") as modern, client(at.url, "legacy") as legacy:
        assert (modern.protocol_version, legacy.protocol_version) == (MODERN, LEGACY)
        for each in (modern, legacy):
            tools = each.server_capabilities.tools
            assert tools is not None
            assert tools.list_changed is True


async def test_client_with_a_handshake_hears_it_on_the_stream_of_its_session() -> None:
    told = asyncio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            told.set()

    async with house() as at, client(at.url, "legacy", message_handler=hear) as ann:
        await at.until_watched(1)
        await at.hide("bob", "slow")
        await at.hide("ann", "slow")
        with anyio.fail_after(10):
            await told.wait()
        names = [each.name for each in (await ann.list_tools()).tools]
    assert "slow" not in names


@pytest.mark.threat("T-02")
async def test_stream_of_a_session_ends_with_its_credential_and_the_session_hears_nothing() -> None:
    async with house(QUICK) as at, http() as session:
        s = Session(at.url, session)
        await s.open()
        async with session.stream("GET", s.url, headers=s.headers()) as stream:
            await at.until_watched(1)
            at.gateway.revoked.add("key-ann")
            await at.hide("ann", "slow")
            with anyio.fail_after(10):
                assert frames("\n".join([line async for line in stream.aiter_lines()])) == []


@pytest.mark.threat("T-02")
async def test_stream_of_anothers_session_is_not_opened_and_its_owner_hears_only_its_own() -> None:
    async with house() as at, http() as session:
        s = Session(at.url, session)
        await s.open()
        async with session.stream("GET", s.url, headers=s.headers()) as stream:
            await at.until_watched(1)
            stolen = s.headers() | {"authorization": "Bearer key-bob"}
            assert (await session.get(s.url, headers=stolen)).status_code == 404
            await at.hide("bob", "slow")
            await at.hide("ann", "slow")
            lines = stream.aiter_lines()
            seen = ""
            with anyio.fail_after(10):
                while "list_changed" not in seen:
                    seen += await anext(lines) + "\n"
            end_streams(at.app)
            seen += "\n".join([line async for line in lines])
    assert [each["method"] for each in frames(seen)] == ["notifications/tools/list_changed"]


async def test_ended_session_is_not_kept_for_telling() -> None:
    async with house() as at, http() as session:
        s = Session(at.url, session)
        await s.open()
        await s.send("tools/list", id_=2)
        opened = at.app.state.door._protocol.opened
        assert list(opened) == [s.id]
        assert (await session.delete(s.url, headers=s.headers())).status_code == 200
        assert not opened


async def test_revision_with_a_handshake_has_no_subscriptions() -> None:
    async with house() as at, http() as session:
        s = Session(at.url, session)
        await s.open(LEGACY)
        answer = await s.send(
            "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id_=3
        )
        (said,) = frames(answer.text)
    assert said["error"]["code"] == -32601
