"""Servers with the handshake over HTTP: sessions, and the same clear faults."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from remit.canonical import encode
from remit.errors import Code, UpstreamFault
from remit.model import SessionMode
from remit.upstreams.http_limits import HttpLimits
from tests.upstreams.http_asked import ITEM, TOKEN, Answer, Asked, asking, call, hostile, spec_of

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-40")]

SHARED = SessionMode.SHARED
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class Handshaking:
    """A server of 2025-11-25 that keeps sessions; `on_call` answers the calls."""

    def __init__(self, on_call: Answer | None = None) -> None:
        self._on_call = on_call
        self.sessions: list[str] = []
        self.ended: list[str] = []
        self.broken = False

    async def __call__(self, asked: Asked) -> None:
        session = asked.headers.get("mcp-session-id")
        if asked.verb == "DELETE":
            self.ended.append(str(session))
            await asked.json(b"")
        elif asked.headers.get("mcp-protocol-version") == "2026-07-28":
            await asked.json(b"", status="400 Bad Request")
        elif self.broken:
            await asked.json(b"", status="502 Bad Gateway")
        elif asked.body["method"] == "initialize":
            await self._begin(asked)
        elif session not in self.sessions or session in self.ended:
            await asked.json(b"", status="404 Not Found")
        elif "id" not in asked.body:
            await asked.json(b"", status="202 Accepted")
        elif asked.body["method"] == "tools/call" and self._on_call is not None:
            await self._on_call(asked)
        else:
            await asked.result({"tools": [ITEM], "content": [], "session": session})

    async def _begin(self, asked: Asked) -> None:
        self.sessions.append(f"session-{len(self.sessions)}")
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
        message = {"jsonrpc": "2.0", "id": asked.body["id"], "result": result}
        await asked.json(message, more=f"Mcp-Session-Id: {self.sessions[-1]}\r\n")


async def fault_of(servers: Any, url: str, **how: Any) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as caught:
        await call(servers, spec_of(url, ITEM, {}, **how), token=TOKEN)
    return caught.value


async def test_a_call_of_its_own_has_a_session_of_its_own_and_ends_it():
    server = Handshaking()
    async with hostile(server) as there, asking() as servers:
        results = [await call(servers, spec_of(there.url, ITEM, {})) for _ in range(3)]
        assert len({result["session"] for result in results}) == 3
        await servers.aclose()
        assert sorted(server.ended) == server.sessions


async def test_a_kept_session_that_the_server_ended_costs_one_call_and_is_replaced():
    server = Handshaking()
    async with hostile(server) as there, asking() as servers:
        spec = spec_of(there.url, ITEM, {}, session=SHARED)
        first = await call(servers, spec)
        server.ended.append(first["session"])
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec)
        assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_GONE, True)
        assert "ended the session" in caught.value.message
        assert (await call(servers, spec))["session"] != first["session"]


async def test_a_session_that_lied_is_used_by_nobody_again():
    lies = True

    async def on_call(asked: Asked) -> None:
        number = asked.body["id"] + (100 if lies else 0)
        await asked.json({"jsonrpc": "2.0", "id": number, "result": {"content": []}})

    server = Handshaking(on_call)
    async with hostile(server) as there, asking() as servers:
        fault = await fault_of(servers, there.url, session=SHARED)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_INVALID, True)
        lies = False
        before = len(server.sessions)
        await call(servers, spec_of(there.url, ITEM, {}, session=SHARED), token=TOKEN)
        assert len(server.sessions) == before + 2  # what is spoken was asked anew, too
        state = servers.state("there")
        assert state is not None
        assert state.sessions == 1


async def test_a_session_is_used_neither_too_long_nor_after_too_long():
    server = Handshaking()
    async with hostile(server) as there, asking() as servers:
        spec = spec_of(there.url, ITEM, {}, session=SHARED)
        assert spec.upstream is not None
        first = await call(servers, spec)
        assert (await call(servers, spec))["session"] == first["session"]
        used = [first["session"]]
        for bound in ({"age_s": 0}, {"idle_s": 0}):
            used.append((await call(servers, _with(spec, **bound)))["session"])
        assert len(set(used)) == 3
        while first["session"] not in server.ended:
            await asyncio.sleep(0.01)


def _with(spec: Any, **bound: int) -> Any:
    return dataclasses.replace(spec, upstream=dataclasses.replace(spec.upstream, **bound))


@pytest.mark.threat("T-42")
async def test_a_session_of_one_token_is_never_anothers():
    server = Handshaking()
    async with hostile(server) as there, asking() as servers:
        spec = spec_of(there.url, ITEM, {}, session=SHARED)
        one = await call(servers, spec, token=b"one")
        two = await call(servers, spec, token=b"two")
        assert one["session"] != two["session"]


@pytest.mark.threat("T-42")
async def test_a_refused_token_is_told_to_operators():
    async def refuse(asked: Asked) -> None:
        await asked.json(b"", status="401 Unauthorized", more="WWW-Authenticate: sesame\r\n")

    async with hostile(Handshaking(refuse)) as there, asking() as servers:
        fault = await fault_of(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_UNAUTHORIZED, True)
        assert fault.hint is not None
        assert "sesame" not in f"{fault} {fault.hint} {fault.answer}"


async def test_a_handshake_that_fails_sent_no_call():
    server = Handshaking()
    async with hostile(server) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}), token=TOKEN)
        server.broken = True
        fault = await fault_of(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_GONE, False)
        assert there.methods.count("tools/call") == 1


async def test_a_call_that_finds_no_connection_was_not_sent():
    server = Handshaking()

    async def answer(asked: Asked) -> None:
        if asked.body and asked.body["method"] == "tools/list":
            there.deaf()
            tools = {"jsonrpc": "2.0", "id": asked.body["id"], "result": {"tools": [ITEM]}}
            await asked.json(tools, more="Connection: close\r\n")
        else:
            await server(asked)

    async with hostile(answer) as there, asking() as servers:
        fault = await fault_of(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_UNREACHABLE, False)
        assert "tools/call" not in there.methods


@pytest.mark.parametrize("id_", ["a b", "x" * 2_000, "\x7f"])
async def test_a_session_with_an_impossible_id_is_not_begun(id_):
    async def answer(asked: Asked) -> None:
        if asked.body and asked.body["method"] == "initialize":
            await asked.json({}, more=f"Mcp-Session-Id: {id_}\r\n")
        else:
            await asked.json(b"", status="400 Bad Request")

    async with hostile(answer) as there, asking() as servers:
        fault = await fault_of(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_INVALID, False)


async def test_an_answer_that_breaks_off_is_listened_for_where_it_did():
    number = 0

    async def on_call(asked: Asked) -> None:
        nonlocal number
        number = asked.body["id"]
        await asked.send(STREAM + b"id: 7\nretry: 1\ndata:\n\n")
        asked.writer.close()

    server = Handshaking(on_call)

    async def answer(asked: Asked) -> None:
        if asked.verb != "GET":
            await server(asked)
            return
        assert asked.headers["last-event-id"] == "7"
        message = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[]}}' % number
        await asked.send(STREAM + b"id: 8\ndata: " + message + b"\n\n")
        asked.writer.close()

    async with hostile(answer) as there, asking() as servers:
        assert await call(servers, spec_of(there.url, ITEM, {})) == {"content": []}
        assert there.methods.count("tools/call") == 1


async def test_an_answer_that_never_comes_is_not_waited_for_for_ever():
    async def on_call(asked: Asked) -> None:
        await asked.send(STREAM + b"id: 7\nretry: 1\ndata:\n\n")
        asked.writer.close()

    server = Handshaking(on_call)

    async def answer(asked: Asked) -> None:
        if asked.verb == "GET":
            await asked.send(STREAM)
            asked.writer.close()
        else:
            await server(asked)

    async with hostile(answer) as there, asking() as servers:
        fault = await fault_of(servers, there.url)
        assert (fault.code, fault.sent) == (Code.UPSTREAM_GONE, True)
        assert [each.verb for each in there.asked].count("GET") == 3


async def test_what_a_server_asks_of_its_client_is_refused_and_a_ping_answered():
    answers: list[Any] = []
    both = asyncio.Event()

    async def on_call(asked: Asked) -> None:
        ping = b'data: {"jsonrpc":"2.0","id":"p","method":"ping"}\n\n'
        ask = b'data: {"jsonrpc":"2.0","id":"s","method":"sampling/createMessage"}\n\n'
        await asked.send(STREAM + ping + ask)
        await both.wait()
        message = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[]}}' % asked.body["id"]
        await asked.send(b"data: " + message + b"\n\n")
        asked.writer.close()

    server = Handshaking(on_call)

    async def answer(asked: Asked) -> None:
        if asked.body and "method" not in asked.body:
            answers.append(asked.body)
            await asked.json(b"", status="202 Accepted")
            if len(answers) == 2:
                both.set()
        else:
            await server(asked)

    async with hostile(answer) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}))
    assert answers[0] == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert answers[1]["error"]["code"] == -32601


class Listened:
    """A server of 2024-11-05: one stream to listen to for each session, and a place to speak."""

    def __init__(self) -> None:
        self.streams: list[asyncio.StreamWriter] = []

    async def __call__(self, asked: Asked) -> None:
        if asked.verb == "GET":
            self.streams.append(asked.writer)
            place = f"/speak/{len(self.streams) - 1}".encode()
            await asked.send(STREAM + b"event: endpoint\ndata: " + place + b"\n\n")
        elif asked.path == "/mcp":
            await asked.json(b"", status="405 Method Not Allowed")
        else:
            await asked.json(b"", status="202 Accepted")
            await self._answer(asked, self.streams[int(asked.path.rpartition("/")[2])])

    async def _answer(self, asked: Asked, stream: asyncio.StreamWriter) -> None:
        about = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {}}
        result = {**about, "tools": [ITEM], "content": [], "path": asked.path}
        if "id" in asked.body:
            message = {"jsonrpc": "2.0", "id": asked.body["id"], "result": result}
            stream.write(b"data: " + encode(message) + b"\n\n")
            await stream.drain()


async def test_a_stream_that_ended_while_nobody_used_it_costs_no_call():
    server = Listened()
    async with hostile(server) as there, asking() as servers:
        spec = spec_of(there.url, ITEM, {}, session=SHARED)
        first = await call(servers, spec)
        assert (await call(servers, spec))["path"] == first["path"]
        server.streams[-1].close()
        await server.streams[-1].wait_closed()
        await _until(lambda: not _kept(servers).session.live)
        assert (await call(servers, spec))["path"] != first["path"]


def _kept(servers: Any) -> Any:
    (peer,) = servers._servers["there"]._peers.values()
    (kept,) = peer._kept.values()
    return kept


async def _until(holds: Any) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def test_streams_that_are_listened_to_leave_room_for_speaking():
    async with (
        hostile(Listened()) as there,
        asking(http_limits=HttpLimits(connections=1, sessions=3)) as servers,
    ):
        for caller in ("a", "b", "c", "d", "a"):
            spec = spec_of(there.url, ITEM, {}, session=SessionMode.PER_CALLER, caller=caller)
            await call(servers, spec)


async def test_a_call_that_is_cancelled_is_told_to_a_server_that_is_listened_to():
    begun = asyncio.Event()
    server = Listened()

    async def answer(asked: Asked) -> None:
        if asked.body and asked.body.get("method") == "tools/call":
            begun.set()
            await asked.json(b"", status="202 Accepted")
        else:
            await server(asked)

    async with hostile(answer) as there, asking() as servers:
        spec = spec_of(there.url, ITEM, {}, session=SHARED)
        task = asyncio.create_task(call(servers, spec))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(lambda: "notifications/cancelled" in there.methods)


@pytest.mark.threat("T-43")
async def test_what_a_call_is_compared_with_is_told_and_read_again_when_the_server_says_so(
    monkeypatch,
):
    monkeypatch.setattr("remit.upstreams.http_peer.PACE_S", 600)
    seen: list[list[str]] = []
    tools = [ITEM]

    async def on_call(asked: Asked) -> None:
        said = [{"jsonrpc": "2.0", "id": asked.body["id"], "result": {"content": []}}]
        if len(tools) == 1:
            tools.append({**ITEM, "name": "more"})
            said.insert(0, {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        events = b"".join(b"data: " + encode(each) + b"\n\n" for each in said)
        await asked.send(STREAM + events)
        asked.writer.close()

    class Changing(Handshaking):
        async def __call__(self, asked: Asked) -> None:
            if isinstance(asked.body, dict) and asked.body.get("method") == "tools/list":
                await asked.result({"tools": tools})
            else:
                await super().__call__(asked)

    def see(server: str, items: Any) -> None:
        assert server == "there"
        seen.append([item["name"] for item in items])

    async with hostile(Changing(on_call)) as there, asking(seen=see) as servers:
        spec = spec_of(there.url, ITEM, {}, session=SHARED)
        await call(servers, spec)
        assert seen == [["any"]]
        for _ in range(2):  # what was said once is asked about once
            await call(servers, spec)
            assert seen == [["any"], ["any", "more"]]


@pytest.mark.threat("T-43")
async def test_a_change_that_an_http_server_tells_is_looked_at_though_nobody_calls(monkeypatch):
    monkeypatch.setattr("remit.upstreams.http_peer.PACE_S", 0)
    looked = asyncio.Event()
    lists = 0

    async def on_call(asked: Asked) -> None:
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        answer = {"jsonrpc": "2.0", "id": asked.body["id"], "result": {"content": []}}
        events = b"".join(b"data: " + encode(each) + b"\n\n" for each in (changed, answer))
        await asked.send(STREAM + events)
        asked.writer.close()

    def see(_server: str, _items: Any) -> None:
        nonlocal lists
        lists += 1
        if lists == 2:
            looked.set()

    async with hostile(Handshaking(on_call)) as there, asking(seen=see) as servers:
        await call(servers, spec_of(there.url, ITEM, {}, session=SHARED))
        await looked.wait()
