"""A server of 2024-11-05 that lies: on the stream that is listened to, or where it is spoken to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remit.canonical import encode
from remit.errors import Code, UpstreamFault
from tests.upstreams.http_asked import ITEM, Asked, asking, call, hostile, spec_of
from tests.upstreams.test_http_sessions import Listened

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-40"), pytest.mark.threat("T-41")]

JSON, EVENTS = "application/json", "text/event-stream"
PLACE = b"event: endpoint\ndata: /speak/0\n\n"


class Begins:
    """Answers whoever listens so, and refuses all that speaks."""

    def __init__(self, status: str, kind: str, text: bytes) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        self._told, self._held = head.encode() + text, bool(text) and kind != JSON

    async def __call__(self, asked: Asked) -> None:
        if asked.verb != "GET":
            await asked.json(b"", status="405 Method Not Allowed")
            return
        await asked.send(self._told)
        if self._held:
            await asyncio.Event().wait()
        asked.writer.close()


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        ("500 Internal Server Error", EVENTS, PLACE),
        ("202 Accepted", EVENTS, PLACE),
        ("200 OK", JSON, PLACE),
        ("200 OK", "text/plain", PLACE),
        ("307 Temporary Redirect", EVENTS, PLACE),
        ("401 Unauthorized", EVENTS, PLACE),
        ("200 OK", EVENTS, b""),
        *(
            ("200 OK", EVENTS, b"event: endpoint\ndata: " + place + b"\n\n")
            for place in (
                b"http://127.0.0.1:1/speak",
                b"//evil.example/speak",
                b"https://localhost/speak",
                b"file:///speak",
                b"http://[::1/speak",
                b"/sp\xc3\xa9ak",
            )
        ),
    ],
)
async def test_a_server_without_a_stream_and_a_place_of_its_own_is_not_spoken_to(
    status: str, kind: str, text: bytes
) -> None:
    async with hostile(Begins(status, kind, text)) as there, asking() as servers:
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, ITEM, {}))
        assert not caught.value.sent
        assert {each.path for each in there.asked} == {"/mcp"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("500 Internal Server Error", Code.UPSTREAM_GONE),
        ("403 Forbidden", Code.UPSTREAM_UNAUTHORIZED),
        ("307 Temporary Redirect", Code.UPSTREAM_INVALID),
        ("404 Not Found", Code.UPSTREAM_ERROR),
    ],
)
async def test_a_call_that_the_server_does_not_take_ends_with_its_status(
    status: str, code: Code
) -> None:
    server = Listened()

    async def answer(asked: Asked) -> None:
        if asked.body and asked.body.get("method") == "tools/call":
            await asked.json(b"", status=status)
        else:
            await server(asked)

    async with hostile(answer) as there, asking() as servers:
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, ITEM, {}))
        assert (caught.value.code, caught.value.sent) == (code, True)


async def test_only_messages_are_answers_and_the_place_to_speak_is_the_first_that_was_named() -> (
    None
):
    class Noisy(Listened):
        async def _answer(self, asked: Asked, stream: asyncio.StreamWriter) -> None:
            if "id" in asked.body:
                lie: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.body["id"], "result": {}}
                stream.write(b"event: endpoint\ndata: /elsewhere\n\n")
                stream.write(b"event: other\ndata: " + encode(lie) + b"\n\n")
                stream.write(b"data: \n\n")
            await super()._answer(asked, stream)

    async with hostile(Noisy()) as there, asking() as servers:
        answer = await call(servers, spec_of(there.url, ITEM, {}))
        assert answer["path"].startswith("/speak/")
