"""Requests to the proxy itself: whole URLs, and the destination in the path."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.runners.egress.world import Certificates, Destination, World, destination, one, rule

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]

Sites = tuple[World, Destination, Destination]


@pytest.fixture
async def sites(certs: Certificates) -> AsyncIterator[Sites]:
    """one.test in the clear, two.test by TLS."""
    async with (
        destination(None) as clear,
        destination(certs.chain) as sealed,
        one(certs, clear, sealed) as found,
    ):
        found.open(
            rule("one.test", clear.port, "GET", "PUT", path="/a"), rule("two.test", sealed.port)
        )
        yield found, clear, sealed


async def test_a_whole_url_goes_to_its_host_in_the_clear(sites):
    found, clear, _ = sites
    client = await found.client()
    place = f"one.test:{clear.port}"
    status, _, body = await client.ask("GET", f"http://{place}/a/b?c", place, "Proxy-Connection: x")
    assert (status, body) == (200, b"fine")
    (asked,) = clear.asked
    assert (asked.target, asked.headers) == ("/a/b?c", {"host": place})
    await client.close()
    (seen,) = (await found.traffic()).connections
    assert (seen.kind, seen.host, seen.port, seen.requests) == ("http", "one.test", clear.port, 1)


async def test_the_destination_in_the_path_is_asked_by_verified_tls(sites):
    found, clear, sealed = sites
    client = await found.client()
    base = f"/two.test:{sealed.port}"
    assert (await client.ask("POST", f"{base}/x/y?z=1", "127.0.0.1:3128", body=b"12"))[0] == 200
    assert (await client.ask("GET", base, "127.0.0.1:3128"))[0] == 200
    assert (await client.ask("GET", f"{base}?q", "127.0.0.1:3128"))[0] == 200
    assert [asked.target for asked in sealed.asked] == ["/x/y?z=1", "/", "/?q"]
    assert sealed.asked[0].headers["host"] == f"two.test:{sealed.port}"
    assert sealed.names == ["two.test"]
    place = f"one.test:{clear.port}"
    assert (await client.ask("PUT", f"http://{place}/a", place))[0] == 200
    await client.close()
    seen = (await found.traffic()).connections
    assert [(each.kind, each.host, each.requests) for each in seen] == [
        ("https", "two.test", 3),
        ("http", "one.test", 1),
    ]


@pytest.mark.parametrize(
    ("method", "target", "host", "code"),
    [
        ("GET", "http://one.test:{clear}/b", "one.test:{clear}", "path"),
        ("POST", "http://one.test:{clear}/a", "one.test:{clear}", "method"),
        ("GET", "http://one.test:{clear}/a", "two.test:{clear}", "host_mismatch"),
        ("GET", "http://two.test/", "two.test", "not_allowed"),
        ("GET", "http://one.test.:{clear}/a", "one.test.:{clear}", "malformed"),
        ("GET", "http://a@one.test:{clear}/a", "one.test:{clear}", "malformed"),
        ("GET", "http://one.test:{clear}@evil.test/a", "one.test:{clear}", "malformed"),
        ("GET", "http://one.test:{clear}\\@evil.test/a", "one.test:{clear}", "malformed"),
        ("GET", "http://0x7f000001/", "0x7f000001", "malformed"),
        ("GET", "http://2130706433/", "2130706433", "malformed"),
        ("GET", "http://127.1/", "127.1", "malformed"),
        ("GET", "http://0177.0.0.1/", "0177.0.0.1", "malformed"),
        ("GET", "http://[::ffff:127.0.0.1]/", "x", "malformed"),
        ("GET", "http://[::1]/", "[::1]", "not_allowed"),
        ("GET", "http://127.0.0.1:{clear}/a", "127.0.0.1:{clear}", "not_allowed"),
        ("GET", "http://169.254.169.254/latest", "169.254.169.254", "not_allowed"),
        ("GET", "ftp://one.test/a", "one.test", "malformed"),
        ("GET", "https://two.test:{sealed}/", "two.test:{sealed}", "malformed"),
        ("GET", "/", "127.0.0.1:3128", "not_allowed"),
        ("GET", "/evil.test/x", "127.0.0.1:3128", "not_allowed"),
        ("GET", "/two.test/x", "127.0.0.1:3128", "not_allowed"),
        ("GET", "//two.test:{sealed}/x", "127.0.0.1:3128", "not_allowed"),
        ("GET", "/two.test%3A{sealed}/x", "127.0.0.1:3128", "not_allowed"),
        ("GET", "/one.test:{clear}/b", "127.0.0.1:3128", "path"),
        ("OPTIONS", "*", "127.0.0.1:3128", "malformed"),
        ("CONNECT", "one.test", "one.test", "malformed"),
        ("CONNECT", "http://one.test:{clear}", "one.test", "malformed"),
        ("CONNECT", "evil.test:443", "evil.test", "not_allowed"),
        ("CONNECT", "one.test:99999", "one.test", "malformed"),
        ("CONNECT", "one.test:022", "one.test", "not_allowed"),
        ("CONNECT", "127.0.0.1:{sealed}", "x", "not_allowed"),
    ],
)
async def test_what_no_rule_names_is_refused_and_not_connected(sites, method, target, host, code):
    found, clear, sealed = sites
    ports = {"clear": clear.port, "sealed": sealed.port}
    client = await found.client()
    _, headers, body = await client.ask(method, target.format(**ports), host.format(**ports))
    assert headers["x-remit-refused"] == code
    assert headers["connection"] == "close"
    assert b"Remit egress: " in body
    assert await client.ended() == b""
    await client.close()
    assert clear.connections + sealed.connections == 0
    traffic = await found.traffic()
    assert traffic.refused == 1
    assert traffic.connections[0].refused == code


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x05\x01\x00",
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        b"A" * 100_000,
    ],
    ids=["tls", "socks5", "socks4", "empty-lines", "zeroes", "proxy-protocol", "endless"],
)
async def test_another_protocol_is_refused(sites, first):
    found, _, _ = sites
    client = await found.client()
    client.write(first)
    _, headers, _ = await client.answer()
    assert headers["x-remit-refused"] == "malformed"
    await client.close()
    assert (await found.traffic()).connections[0].refused == "malformed"
