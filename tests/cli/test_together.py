"""What the doors write in one turn of the event loop goes out together, in its order, at a bound."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from remit.cli.serve import door
from remit.cli.together import MOST_HELD, Together

pytestmark = pytest.mark.anyio


class Transport:
    """Keeps what is done to it."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("close")
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def set_protocol(self, protocol: Any) -> None:
        self.done.append(protocol)

    get_extra_info = pause_reading = resume_reading = None


def together() -> tuple[Any, Transport]:
    below: Any = Transport()
    return Together(below), below


async def turn() -> None:
    await asyncio.sleep(0)


async def test_writes_of_one_turn_are_one_send_and_those_of_the_next_another() -> None:
    made, below = together()
    made.write(b"head")
    made.write(b"body")
    assert below.done == []
    await turn()
    assert below.done == [b"headbody"]
    made.write(b"more")
    await turn()
    assert below.done == [b"headbody", b"more"]


async def test_no_more_than_the_bound_is_held_so_that_a_slow_client_is_felt() -> None:
    made, below = together()
    made.write(b"x")
    made.write(b"y" * MOST_HELD)
    assert below.done == [b"x" + b"y" * MOST_HELD]
    made.write(b"z")
    await turn()
    assert below.done[1:] == [b"z"]


async def test_closing_and_handing_on_come_after_what_was_written() -> None:
    made, below = together()
    made.write(b"last")
    made.close()
    await turn()
    assert below.done == [b"last", "close"]
    made, below = together()
    made.write(b"101")
    made.set_protocol("other")
    assert below.done == [b"101", "other"]


async def test_nothing_is_written_to_a_connection_that_went_meanwhile() -> None:
    made, below = together()
    made.write(b"late")
    below.closing = True
    await turn()
    assert below.done == []


def test_no_way_of_writing_passes_what_is_held() -> None:
    assert not {"writelines", "write_eof", "sendfile"} & set(dir(Together))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers in three parts, the last a turn later; of `/much` in pieces without a length."""
    pieces = [b"x" * 50_000] * 40 if scope["path"] == "/much" else [b"one", b"two"]
    headers = [] if scope["path"] == "/much" else [(b"content-length", b"11")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"three"})


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = door(app)
    server.config.lifespan = "off"
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize(("path", "holds"), [("/", b"onetwothree"), ("/much", b"x" * 50_000)])
async def test_door_answers_whole_over_one_connection_twice(path: str, holds: bytes) -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for last in (False, True):
            close = b"Connection: close\r\n" if last else b""
            writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\n" + close + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            end = b"0\r\n\r\n" if path == "/much" else b"three"
            body = await reader.readuntil(end) if path == "/" else await whole(reader)
            assert holds in body
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def whole(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    assert len(body) == 40 * 50_000 + 5
    return body
