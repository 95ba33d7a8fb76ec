"""Revisions with a handshake: sessions, to whom they answer, and what ends a call in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest

from remit.doors.mcp import end_streams, mcp_app
from remit.doors.settings import DoorSettings
from remit.model import Method
from tests.doors.fake import FakeGateway, NoOffers
from tests.doors.serving import LEGACY, http, served

pytestmark = pytest.mark.anyio

REVISIONS = pytest.mark.parametrize(
    "revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
)


class Session:
    """A session spoken to by hand, one POST at a time."""

    def __init__(self, url: str, client: httpx2.AsyncClient, key: str = "key-ann") -> None:
        self.url = f"{url}/mcp"
        self.client = client
        self.key = key
        self.id: str | None = None
        self.revision = LEGACY

    def headers(self) -> dict[str, str]:
        found = {
            "authorization": f"Bearer {self.key}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-protocol-version": self.revision,
        }
        return found if self.id is None else {**found, "mcp-session-id": self.id}

    async def send(self, method: str, params: Any = None, id_: Any = None) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if id_ is not None:
            body["id"] = id_
        return await self.client.post(self.url, json=body, headers=self.headers())

    async def open(self, revision: str = LEGACY) -> httpx2.Response:
        self.revision = revision
        params = {
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": {"name": "tests", "version": "1"},
        }
        answer = await self.send("initialize", params, id_=1)
        self.id = answer.headers.get("mcp-session-id")
        if answer.status_code == 200:
            await self.send("notifications/initialized")
        return answer


def result(answer: httpx2.Response) -> Any:
    """The one response on a stream of server-sent events."""
    (data,) = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return json.loads(data)


@REVISIONS
async def test_logging_sampling_and_roots_are_no_methods_and_a_change_of_roots_is_left_alone(
    revision: str,
) -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, http() as client:
        own = Session(url, client)
        offered = result(await own.open(revision))["result"]["capabilities"]
        assert "logging" not in offered
        asked = [
            ("logging/setLevel", {"level": "debug"}),
            ("sampling/createMessage", {"messages": [], "maxTokens": 1}),
            ("roots/list", {}),
        ]
        for number, (method, params) in enumerate(asked, start=7):
            answer = await own.send(method, params, id_=number)
            assert answer.status_code == 200
            error = result(answer)
            assert (error["id"], error["error"]["code"]) == (number, -32601)
        assert (await own.send("notifications/roots/list_changed")).status_code == 202
        assert "result" in result(await own.send("ping", id_=99))


@asynccontextmanager
async def session(
    gateway: FakeGateway, settings: DoorSettings | None = None
) -> AsyncIterator[Session]:
    async with served(mcp_app(gateway, settings or DoorSettings())) as url, http() as client:
        yield Session(url, client)


@REVISIONS
async def test_each_revision_with_a_handshake_is_served(revision: str) -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        opened = result(await s.open(revision))["result"]
        called = await s.send("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id_=2)
    assert opened["protocolVersion"] == revision
    assert opened["capabilities"] == {"tools": {"listChanged": True}}
    assert opened["serverInfo"]["name"] == "remit"
    answer = result(called)["result"]
    assert answer["content"] == [{"type": "text", "text": "x"}]
    assert answer["_meta"]["dev.remit/decision"] == {"code": "ok"}
    assert gateway.calls[0].claims.client_name == "tests"
    assert gateway.calls[0].claims.session_id not in (None, s.id)


@pytest.mark.threat("T-02")
@pytest.mark.parametrize("key", ["key-bob", "key-ann-2"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_of_another_credential_does_not_exist(method: str, key: str) -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        mine = s.headers()
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"} if method == "POST" else None
        stolen = mine | {"authorization": f"Bearer {key}"}
        unknown = stolen | {"mcp-session-id": "0" * 32}
        theirs = await s.client.request(method, s.url, headers=stolen, json=body)
        nobodys = await s.client.request(method, s.url, headers=unknown, json=body)
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.content == nobodys.content
        assert (await s.send("tools/list", id_=3)).status_code == 200


async def test_each_call_of_a_session_is_made_by_whoever_sent_it() -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        s.key = "nobody"
        assert (await s.send("tools/list", id_=2)).status_code == 401
    assert gateway.calls == []


async def test_a_lost_connection_leaves_the_call_of_a_session_alone() -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        async with httpx2.AsyncClient() as lost:
            sending = asyncio.ensure_future(
                lost.post(
                    s.url,
                    headers=s.headers(),
                    json={
                        "jsonrpc": "2.0",
                        "id": 2,
                        "method": "tools/call",
                        "params": {"name": "slow"},
                    },
                )
            )
            with anyio.fail_after(5):
                await gateway.started.wait()
            sending.cancel()
        assert (await s.send("tools/list", id_=3)).status_code == 200
        gateway.release.set()
        with anyio.fail_after(5):
            await gateway.finished.wait()
    assert not gateway.cancelled.is_set()


async def test_a_cancel_notification_ends_the_call_it_names() -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        sending = asyncio.ensure_future(s.send("tools/call", {"name": "slow"}, id_=2))
        with anyio.fail_after(5):
            await gateway.started.wait()
        await s.send("notifications/cancelled", {"requestId": 99})
        assert not gateway.cancelled.is_set()
        await s.send("notifications/cancelled", {"requestId": 2})
        with anyio.fail_after(5):
            await gateway.cancelled.wait()
            await sending


@pytest.mark.threat("T-03")
async def test_a_cancel_of_another_callers_session_ends_nothing() -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        await s.open()
        sending = asyncio.ensure_future(s.send("tools/call", {"name": "slow"}, id_=2))
        with anyio.fail_after(5):
            await gateway.started.wait()
        other = Session(s.url.removesuffix("/mcp"), s.client, "key-bob")
        await other.open()
        await other.send("notifications/cancelled", {"requestId": 2})
        other.id = s.id
        assert (await other.send("notifications/cancelled", {"requestId": 2})).status_code == 404
        gateway.release.set()
        assert result(await sending)["result"]["content"][0]["text"] == "released"


async def test_a_session_that_was_ended_is_gone() -> None:
    async with session(FakeGateway()) as s:
        await s.open()
        assert (await s.client.delete(s.url, headers=s.headers())).status_code == 200
        assert (await s.send("tools/list", id_=2)).status_code == 404


@pytest.mark.threat("T-05")
async def test_a_caller_with_many_sessions_loses_its_oldest_idle_one_and_no_other_callers() -> None:
    gateway = FakeGateway()
    settings = DoorSettings(max_sessions_per_caller=2)
    async with session(gateway, settings) as s:
        url = s.url.removesuffix("/mcp")
        other = Session(url, s.client, "key-bob")
        await other.open()
        mine = [Session(url, s.client) for _ in range(3)]
        for each in mine:
            assert (await each.open()).status_code == 200
        assert [(await each.send("tools/list", id_=9)).status_code for each in mine] == [
            404,
            200,
            200,
        ]
        assert (await other.send("tools/list", id_=9)).status_code == 200


@pytest.mark.threat("T-05")
async def test_a_caller_whose_sessions_are_all_busy_gets_no_more() -> None:
    gateway = FakeGateway()
    async with session(gateway, DoorSettings(max_sessions_per_caller=1)) as s:
        await s.open()
        sending = asyncio.ensure_future(s.send("tools/call", {"name": "slow"}, id_=2))
        with anyio.fail_after(5):
            await gateway.started.wait()
        more = Session(s.url.removesuffix("/mcp"), s.client)
        assert (await more.open()).status_code == 503
        gateway.release.set()
        await sending


async def test_a_request_outside_any_session_opens_none() -> None:
    async with session(FakeGateway()) as s:
        answer = await s.send("tools/list", id_=1)
        assert answer.status_code == 400
        assert (await s.client.get(s.url, headers=s.headers())).status_code == 405


async def test_a_hidden_tool_is_as_unknown_in_a_session() -> None:
    async with session(FakeGateway()) as s:
        await s.open()
        hidden = await s.send("tools/call", {"name": "secret_tool", "arguments": {"a": 1}}, id_=2)
        missing = await s.send("tools/call", {"name": "absent_tool", "arguments": {"a": 1}}, id_=2)
    assert result(hidden)["error"]["message"] == "Unknown tool: secret_tool"
    assert hidden.content.replace(b"secret_tool", b"absent_tool") == missing.content


async def test_a_stream_that_is_resumed_begins_anew() -> None:
    async with session(FakeGateway()) as s:
        await s.open()
        headers = s.headers() | {"last-event-id": "7"}
        async with s.client.stream("GET", s.url, headers=headers) as stream:
            assert stream.status_code == 200
            assert stream.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    "broken",
    [{"id": 1, "result": []}, {"result": {}}, {"id": 1, "error": {"code": "1", "message": ""}},
     {"id": 1, "error": []}, {"id": 1}],
)  # fmt: skip
async def test_an_answer_that_is_none_is_refused_in_our_own_words(broken: dict[str, Any]) -> None:
    async with session(FakeGateway()) as s:
        await s.open()
        body = {"jsonrpc": "2.0", **broken}
        refused = await s.client.post(s.url, json=body, headers=s.headers())
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32600)
        assert "validation" not in refused.text.lower()
        answers: list[dict[str, Any]] = [{"result": {}}, {"error": {"code": 1, "message": "no"}}]
        for fine in answers:
            body = {"jsonrpc": "2.0", "id": 1, **fine}
            taken = await s.client.post(s.url, json=body, headers=s.headers())
            assert taken.status_code == 202


class _Offering(NoOffers):
    """Offers some prompt and some resource, whichever they are."""

    def methods(self) -> frozenset[Method]:
        return frozenset({Method.RESOURCES_READ, Method.PROMPTS_GET})


@REVISIONS
@pytest.mark.parametrize(
    "method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]
)
async def test_a_list_that_is_asked_for_without_parameters_is_given(
    method: str, revision: str
) -> None:
    gateway = FakeGateway()
    gateway.offers = _Offering()
    async with session(gateway) as s:
        await s.open(revision)
        bare = {"jsonrpc": "2.0", "id": 2, "method": method}
        answer = await s.client.post(s.url, headers=s.headers(), json=bare)
    assert "result" in result(answer)


async def test_ping_is_answered() -> None:
    async with session(FakeGateway()) as s:
        await s.open()
        assert result(await s.send("ping", id_=2))["result"] == {}


async def test_a_server_that_stops_ends_the_streams_on_which_nothing_comes() -> None:
    gateway = FakeGateway()
    app = mcp_app(gateway, DoorSettings())
    async with served(app) as url, http() as client:
        s = Session(url, client)
        await s.open()
        called = asyncio.ensure_future(s.send("tools/call", {"name": "slow"}, id_=2))
        with anyio.fail_after(5):
            await gateway.started.wait()
        async with client.stream("GET", s.url, headers=s.headers()) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            with anyio.fail_after(5):
                reading = asyncio.ensure_future(stream.aread())
                while not reading.done():
                    end_streams(app)  # the stream may not have been registered yet
                    await asyncio.wait((reading,), timeout=0.05)
        assert not called.done()
        gateway.release.set()
        assert result(await called)["result"]["content"][0]["text"] == "released"
        assert (await s.send("tools/list", id_=3)).status_code == 200
