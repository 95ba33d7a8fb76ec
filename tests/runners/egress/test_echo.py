"""A destination that gives an injected secret back gives it to the proxy, not to the run."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from tests.runners.egress.world import (
    SECRET,
    Certificates,
    Destination,
    World,
    credential,
    destination,
    ok,
    one,
    rule,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-33")]

Site = tuple[World, Destination]
RAW = SECRET.encode()


@pytest.fixture
async def site(certs: Certificates) -> AsyncIterator[Site]:
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port), rule("two.test", there.port, "GET"))
        found.lend(credential("one.test", there.port))
        yield found, there


async def answered(site: Site, reply: bytes, *, name: str = "one.test", method: str = "GET"):
    found, there = site
    there.reply = lambda asked: reply
    client = await found.tunnel(name, there.port)
    lines = ("Accept-Encoding: gzip, br", "Range: bytes=0-3", "If-Range: x")
    answer = await client.ask(method, "/", f"{name}:{there.port}", *lines)
    await client.close()
    return answer


SPELT = {
    "plain": RAW,
    "header": b"Authorization: Bearer " + RAW,
    "base64": base64.b64encode(b"x" + RAW + b"yz"),
    "url-safe": base64.urlsafe_b64encode(b"xy" + RAW),
    "percent": quote(SECRET, safe="").encode(),
    "hex": RAW.hex().encode(),
    "json": b'{"a":"' + RAW.replace(b"/", b"\\/") + b'"}',
    "json of Go": b'{"a":"' + RAW.replace(b"&", b"\\u0026") + b'"}',
    "json of .NET": b'{"a":"' + RAW.replace(b"&", b"\\u0026").replace(b"+", b"\\u002B") + b'"}',
}


@pytest.mark.parametrize("name", ["one.test", "two.test"])
@pytest.mark.parametrize("body", SPELT.values(), ids=SPELT)
async def test_each_spelling_is_blanked_in_its_length_and_the_run_flagged(site, body, name):
    status, headers, got = await answered(site, ok(b"<" + body + b">"), name=name)
    assert status == 200
    assert len(got) == len(body) + 2 == int(headers["content-length"])
    assert b"*" * 16 in got
    assert RAW not in got
    traffic = await site[0].traffic()
    assert traffic.echoed
    assert traffic.connections[0].echoed


async def test_what_was_asked_for_is_neither_compressed_nor_in_parts(site):
    await answered(site, ok())
    (asked,) = site[1].asked
    assert asked.headers["accept-encoding"] == "identity"
    assert "range" not in asked.headers
    assert "if-range" not in asked.headers
    traffic = await site[0].traffic()
    assert not traffic.echoed


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
        ("deflate", zlib.compress),
        ("GZIP", gzip.compress),
    ],
)
async def test_an_answer_that_is_compressed_all_the_same_is_looked_into(site, coding, pack):
    body = b"a" * 300_000 + RAW + b"b" * 10
    packed = ok(pack(body), f"Content-Encoding: {coding}")
    _, headers, got = await answered(site, packed)
    assert "content-encoding" not in headers
    assert got == b"a" * 300_000 + b"*" * len(RAW) + b"b" * 10
    assert (await site[0].traffic()).echoed


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"\x0b\x02\x80hello\x03"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("gzip, gzip", gzip.compress(gzip.compress(RAW, mtime=0), mtime=0)),
        ("unheard-of", RAW),
    ],
)
async def test_what_cannot_be_looked_into_is_not_passed_on(site, coding, body):
    status, headers, got = await answered(site, ok(body, f"Content-Encoding: {coding}"))
    assert (status, headers["x-remit-refused"]) == (502, "encoded")
    assert RAW not in got


@pytest.mark.parametrize("body", [b"not gzip" + RAW, gzip.compress(RAW * 99, mtime=0)[:-9]])
async def test_what_is_not_compressed_as_it_says_breaks_off(site, body):
    found, there = site
    there.reply = lambda asked: ok(body, "Content-Encoding: gzip")
    client = await found.tunnel("one.test", there.port)
    client.write(f"GET / HTTP/1.1\r\nHost: one.test:{there.port}\r\n\r\n".encode())
    got = await client.ended()
    assert RAW not in got
    assert not got.endswith(b"0\r\n\r\n")
    await client.close()
    assert (await found.traffic()).connections[0].refused in ("encoded", "upstream")


async def test_chunks_that_cut_a_secret_anywhere_do_not_let_it_through(site):
    for cut in range(1, len(RAW)):
        parts = [b"ab" + RAW[:cut], RAW[cut:] + b"cd"]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        assert (await answered(site, reply))[2] == b"ab" + b"*" * len(RAW) + b"cd"


async def test_headers_reason_interim_answers_and_trailers_are_clean(site):
    found, there = site
    reply = (
        b"HTTP/1.1 103 " + RAW + b"\r\nX-Early: " + RAW + b"\r\n\r\n"
        b"HTTP/1.1 299 " + RAW + b"\r\nX-Echo: a " + RAW + b" b\r\n"
        b"X-" + RAW.hex().encode() + b": name\r\nSet-Cookie: t=" + quote(SECRET).encode() + b"\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Late: " + RAW + b"\r\n\r\n"
    )
    there.reply = lambda asked: reply
    client = await found.tunnel("one.test", there.port)
    client.write(
        f"GET / HTTP/1.1\r\nHost: one.test:{there.port}\r\nConnection: close\r\n\r\n".encode()
    )
    got = await client.ended()
    await client.close()
    assert got.startswith(b"HTTP/1.1 299 ")
    for each in (RAW, RAW.hex().encode(), quote(SECRET).encode()):
        assert each.lower() not in got.lower()
    assert b"X-Echo: a " + b"*" * len(RAW) + b" b" in got or b"x-echo: a ***" in got
    assert (await found.traffic()).echoed


async def test_a_secret_is_not_in_the_name_of_a_header_in_small_letters_either(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "GET"))
        found.lend(
            credential("one.test", there.port, value="Bearer AbCdEf-77", secrets=["AbCdEf-77"])
        )
        there.reply = lambda asked: ok(b"", "X-AbCdEf-77: name")
        client = await found.tunnel("one.test", there.port)
        _, headers, _ = await client.ask("GET", "/", f"one.test:{there.port}")
        assert "abcdef-77" not in repr(headers).lower()
        await client.close()
        assert (await found.traffic()).echoed


async def test_a_head_answer_with_a_coding_is_passed_on(site):
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: br\r\n\r\n"
    status, headers, _ = await answered(site, reply, method="HEAD")
    assert (status, headers["content-length"]) == (200, "9")


async def test_basic_authentication_is_blanked_as_it_was_sent(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port))
        word = base64.b64encode(b"user:" + RAW).decode()
        found.lend(credential("one.test", there.port, value=f"Basic {word}"))
        there.reply = lambda asked: ok(asked.headers["authorization"].encode())
        client = await found.tunnel("one.test", there.port)
        got = (await client.ask("GET", "/", f"one.test:{there.port}"))[2]
        assert got == b"Basic " + b"*" * len(word)
        await client.close()


async def test_without_credentials_nothing_is_changed(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "GET"))
        body = gzip.compress(b"anything")
        found_site = (found, there)
        _, headers, got = await answered(found_site, ok(body, "Content-Encoding: gzip"))
        assert (headers["content-encoding"], got) == ("gzip", body)
        assert there.asked[0].headers["accept-encoding"] == "gzip, br"
        assert there.asked[0].headers["range"] == "bytes=0-3"
