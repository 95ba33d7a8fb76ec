"""One run, with a destination of its own kind, takes the proxy's time from nobody.

The gateway ends a proxy that does not answer, and with it the way out of all runs: so nothing that
a run or a destination sends may keep the loop to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import threading
import time

import h11
import pytest
from h11 import _readers

from remit.runners.egress import upstream
from remit.runners.egress.heads import read_head
from remit.runners.egress.refusals import Refusal
from remit.runners.egress.relay import Peer
from remit.runners.lines import read_in_time
from tests.runners.egress.process import Place
from tests.runners.egress.world import SECRET, ok, rule

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]

ANSWER_S = 3.0

HEAD = b"HTTP/1.1 200 OK\r\n%s\r\nConnection: close\r\n\r\n"
ENDLESS = {
    "chunks of one byte": (HEAD % b"Transfer-Encoding: chunked", b"1\r\nx\r\n" * 10_000),
    "compressed nothing": (HEAD % b"Content-Encoding: gzip", gzip.compress(b"", mtime=0) * 3_000),
    "much at once": (HEAD % b"Content-Type: text/plain", b"s" * 65_536),
}


async def endless(place: Place, head: bytes, block: bytes, began: asyncio.Event) -> None:
    """Have the destination send this for as long as anybody reads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            for _ in range(64):  # so much is there before the proxy has read a part of it
                writer.write(block)
            began.set()
            while True:
                writer.write(block)
                await writer.drain()

    place.there.serving = serve


@pytest.mark.parametrize(("head", "block"), ENDLESS.values(), ids=ENDLESS)
async def test_a_destination_that_never_ends_keeps_nobody_waiting(place, head, block):
    await place.open()
    await place.keeper.lend(place.there)
    began = asyncio.Event()
    await endless(place, head, block, began)
    client = await place.tunnel()
    client.write(f"GET / HTTP/1.1\r\nHost: localhost:{place.there.port}\r\n\r\n".encode())

    async def pull() -> None:
        while await client.reader.read(65_536):
            pass

    pulling = asyncio.create_task(pull())
    await began.wait()
    async with asyncio.timeout(ANSWER_S):
        for number in range(10):
            await place.proxy.prepare(f"other-{number}")
        traffic = await place.proxy.close_run("r")
    assert traffic.connections[0].requests == 1
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    await client.close()


async def test_a_run_that_sends_a_byte_at_a_time_keeps_nobody_waiting(place):
    await place.open(rule("localhost", place.there.port, "POST"))

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    place.there.serving = swallow
    client = await place.tunnel()
    head = f"POST / HTTP/1.1\r\nHost: localhost:{place.there.port}\r\n"
    client.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    client.write(b"1\r\nx\r\n" * 1_000_000)
    async with asyncio.timeout(ANSWER_S):
        for number in range(10):
            await place.proxy.prepare(f"other-{number}")
        await place.proxy.close_run("r")
    await client.close()


@pytest.mark.threat("T-33")
async def test_an_answer_with_headers_without_end_is_none(place):
    await place.open()
    await place.keeper.lend(place.there)
    place.there.reply = lambda asked: ok(b"", *[f"a{n}: {SECRET}" for n in range(300)])
    client = await place.tunnel()
    status, headers, _ = await client.ask("GET", "/", f"localhost:{place.there.port}")
    assert (status, headers["x-remit-refused"]) == (502, "upstream")
    await client.close()


async def test_the_slow_names_of_one_run_do_not_keep_another_from_its_own(monkeypatch):
    """A name whose servers do not answer holds a thread for longer than anybody waits for it."""
    go = threading.Event()

    def look(host: str, port: int) -> list[str]:
        if host.startswith("slow"):
            go.wait(30)
        return ["192.0.2.1"]

    monkeypatch.setattr(upstream, "_look", look)
    monkeypatch.setattr(upstream, "RESOLVE_S", 0.05)
    resolver = upstream.Resolver()
    hostile, other = asyncio.Semaphore(upstream.LOOKS), asyncio.Semaphore(upstream.LOOKS)
    try:
        for _ in range(4):
            asked = [resolver.look(f"slow-{n}.test", 443, hostile) for n in range(16)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, Refusal) for each in found)
        monkeypatch.setattr(upstream, "RESOLVE_S", ANSWER_S)
        assert await resolver.look("fast.test", 443, other) == ["192.0.2.1"]
    finally:
        go.set()
    monkeypatch.setattr(upstream, "RESOLVE_S", ANSWER_S)
    assert await resolver.look("fast.test", 443, hostile) == ["192.0.2.1"]


@pytest.mark.parametrize("space", [b" ", b"\t", b" \t", b"a ", b"a"])
async def test_a_head_that_is_refused_takes_no_longer_to_read_than_any(space):
    heads = [
        b"GET / HTTP/1.1\r\nHost: h\r\nX:%s\x01\r\n\r\n" % (space * (30_000 // len(space))),
        b"GET /%s\x01 HTTP/1.1\r\nHost: h\r\n\r\n" % (space * (8_000 // len(space))),
    ]
    for head in heads:
        began = time.process_time()
        with pytest.raises(Refusal):
            read_head(head)
        assert time.process_time() - began < 0.2


@pytest.mark.parametrize("odd", [b"\0", b"\x0b", b"\x0c", b"\r"])
async def test_a_header_of_an_answer_that_is_none_takes_no_longer_to_read_than_any(odd):
    line = b"X:" + b" " * 60_000 + odd + b"x\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\n"
    for data in (head + line, head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + line):
        peer = Peer(Said(data), h11.CLIENT, "upstream")
        peer.h11.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
        peer.h11.send(h11.EndOfMessage())
        began = time.process_time()
        with pytest.raises(Refusal):
            while True:
                await peer.event()
        assert time.process_time() - began < 0.5


class Said:
    """A stream of which this is all."""

    quiet = False

    def __init__(self, data: bytes) -> None:
        self._left = data

    async def receive(self) -> bytes:
        data, self._left = self._left, b""
        return data

    async def send(self, data: bytes) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError


def test_an_h11_that_reads_lines_in_another_way_is_not_used(monkeypatch):
    read_in_time()
    compared = _readers.header_field_re
    read_in_time()
    assert _readers.header_field_re is compared
    monkeypatch.setattr(_readers, "header_field_re", re.compile(rb"(?P<field_name>.*)"))
    with pytest.raises(RuntimeError, match="another way"):
        read_in_time()


def test_a_header_reads_as_h11_itself_would_read_it():
    read_in_time()
    for line in (b"A: b", b"A:\t b c \t", b"A:", b"A:  ", b"A: \xe9 x"):
        found = _readers.header_field_re.fullmatch(line)
        assert found is not None
        assert found["field_value"] == line[2:].strip(b" \t")
    for line in (b"A b", b"A : b", b" A: b", b"A: b\0", b"A: b\rc", b"A:" + b" " * 9 + b"\0"):
        assert _readers.header_field_re.fullmatch(line) is None
