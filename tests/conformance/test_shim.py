"""The relay of the conformance suite leaves nothing behind for the tests that come after it."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.conformance.shim import shim

ROUNDS, CLIENTS = 20, 20


@pytest.fixture
def answering() -> Iterator[int]:
    """A server that answers every request with the same two bytes; gives its port."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run(started: threading.Event, stop: asyncio.Event, ports: list[int]) -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            started.set()
            await stop.wait()

    started, stop, ports = threading.Event(), asyncio.Event(), list[int]()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run(started, stop, ports)))
    thread.start()
    assert started.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_clients_that_leave_as_the_relay_is_closed_leave_no_connection(
    answering: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: lost.append(repr(seen.exc_value)))
    for _ in range(ROUNDS):
        with shim(answering, "key") as port:
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            for client in clients[: CLIENTS // 2]:
                assert client.recv(100)
            for client in clients:
                client.close()
    gc.collect()
    assert not lost, lost[:3]
