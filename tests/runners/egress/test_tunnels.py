"""A tunnel carries TLS to the host that was asked for, and nothing else to nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from tests.runners.egress.test_parsers import hello_with, sni
from tests.runners.egress.world import (
    Certificates,
    Destination,
    World,
    destination,
    one,
    rule,
    world,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]

Site = tuple[World, Destination]


@pytest.fixture
async def site(certs: Certificates) -> AsyncIterator[Site]:
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port))
        yield found, there


async def test_tls_ends_at_the_destination_and_bytes_are_counted(site, certs):
    found, there = site
    client = await found.tunnel("one.test", there.port, ca=certs.authority)
    lines = ["Authorization: Bearer mine", "X-A: b"]
    assert (await client.ask("DELETE", "/any/../thing", "any.host", *lines))[0] == 200
    assert there.asked[0].headers["authorization"] == "Bearer mine"
    await client.close()
    (seen,) = (await found.traffic()).connections
    assert (seen.kind, seen.address, seen.refused) == ("tunnel", "127.0.0.1", None)
    assert seen.sent > 300
    assert seen.received > 300


async def test_the_runs_own_authority_is_not_used_for_a_tunnel(site):
    found, there = site
    with pytest.raises(ssl.SSLCertVerificationError):
        await found.tunnel("one.test", there.port)


async def connected(found: World, port: int):
    client = await found.client()
    client.write(f"CONNECT one.test:{port} HTTP/1.1\r\nHost: one.test\r\n\r\n".encode())
    assert (await client.answer("CONNECT"))[0] == 200
    return client


@pytest.mark.parametrize("name", ["two.test", "one.test.evil.test", "xone.test"])
async def test_another_name_in_the_greeting_is_refused(site, certs, name):
    found, there = site
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await found.tunnel("one.test", there.port, ca=certs.authority, name=name)
    traffic = await found.traffic()
    assert traffic.connections[0].refused == "sni_mismatch"
    assert there.names == []


async def test_no_name_in_the_greeting_is_refused_where_the_rule_has_one(site):
    found, there = site
    client = await connected(found, there.port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.writer.start_tls(context)
    assert (await found.traffic()).connections[0].refused == "sni_mismatch"


async def test_a_greeting_that_hides_another_is_refused(site):
    found, there = site
    client = await connected(found, there.port)
    client.write(hello_with(sni(b"one.test"), (0xFE0D, b"\0")))
    assert (await client.ended())[:1] == b"\x15"
    await client.close()
    assert (await found.traffic()).connections[0].refused == "sni_mismatch"


async def test_no_name_is_right_where_the_rule_is_an_address(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("127.0.0.1", there.port))
        client = await found.tunnel("127.0.0.1", there.port, ca=certs.authority)
        assert (await client.ask("GET", "/", "x"))[0] == 200
        await client.close()
        assert there.names == [None]


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x02\x00\x00\x05\x01\x00\x00\x01\x00",
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
    ],
)
async def test_what_is_not_a_greeting_is_refused(site, first):
    found, there = site
    client = await connected(found, there.port)
    client.write(first)
    assert await client.ended() == b""
    await client.close()
    assert (await found.traffic()).connections[0].refused == "not_tls"
    assert there.asked == []


async def test_a_greeting_in_pieces_and_before_the_answer_is_understood(site, certs):
    found, there = site
    context = ssl.create_default_context(cadata=certs.authority)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="one.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    greeting = outgoing.read()
    client = await found.client()
    client.write(
        f"CONNECT one.test:{there.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + greeting[:9]
    )
    assert (await client.answer("CONNECT"))[0] == 200
    for byte in greeting[9:]:
        client.write(bytes((byte,)))
        await client.writer.drain()
    assert (await client.reader.readexactly(3))[:2] == b"\x16\x03"
    await client.close()


async def test_the_end_of_one_direction_is_passed_on_and_the_other_goes_on(site, certs):
    found, there = site
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read())
        writer.close()

    there.serving = serve
    client = await found.tunnel("one.test", there.port, ca=certs.authority)
    client.write(b"all of it")
    await client.close()
    await found.traffic()
    assert got in ([b"all of it"], [])


async def test_a_destination_that_is_not_there_is_said_to_be_so(certs):
    async with world(certs.authority, [("one.test", 1)]) as found:
        found.open(rule("one.test", 1))
        client = await found.client()
        status, headers, _ = await client.ask("CONNECT", "one.test:1", "one.test")
        assert (status, headers["x-remit-refused"]) == (502, "connect")
        await client.close()
        assert (await found.traffic()).connections[0].refused == "connect"


@pytest.mark.parametrize(
    ("answers", "internal", "code"),
    [
        (["10.0.0.1"], False, "address"),
        (["127.0.0.1"], False, "address"),
        (["93.184.216.34", "127.0.0.1"], False, "address"),
        (["::ffff:127.0.0.1"], False, "address"),
        (["64:ff9b::a9fe:a9fe"], False, "address"),
        (["2002:7f00:1::"], False, "address"),
        (["fd00:ec2::254"], True, "address"),
        (["169.254.169.254"], True, "address"),
        (["127.0.0.1", "169.254.169.254"], True, "address"),
        (["100.100.100.200"], True, "address"),
        (["0.0.0.0"], True, "address"),
        ([], True, "resolve"),
    ],
)
async def test_a_name_with_any_address_that_may_not_be_is_not_connected(
    certs, answers, internal, code
):
    async with destination(certs.chain) as there:
        listed = [("one.test", there.port)] if internal else [("two.test", there.port)]
        async with world(certs.authority, listed, names={"one.test": answers}) as found:
            found.open(rule("one.test", there.port))
            client = await found.client()
            _, headers, _ = await client.ask("CONNECT", f"one.test:{there.port}", "one.test")
            assert headers["x-remit-refused"] == code
            await client.close()
            assert there.connections == 0


async def test_a_metadata_service_is_not_reached_by_its_name_wherever_that_leads(certs):
    name = "metadata.google.internal"
    async with (
        destination(certs.chain) as there,
        world(certs.authority, [(name, there.port)]) as found,
    ):
        found.open(rule(name, there.port))
        client = await found.client()
        _, headers, _ = await client.ask("CONNECT", f"{name}:{there.port}", "x")
        assert headers["x-remit-refused"] == "address"
        await client.close()
        assert there.connections == 0


async def test_a_certificate_that_does_not_hold_is_refused(certs, tmp_path):
    async with destination(certs.chain) as there:
        port = there.port
        async with world("", [("one.test", port), ("three.test", port)]) as found:
            found.open(rule("one.test", port, "GET"))
            client = await found.tunnel("one.test", port)
            status, headers, _ = await client.ask("GET", "/", f"one.test:{port}")
            assert (status, headers["x-remit-refused"]) == (502, "upstream_tls")
            await client.close()
        async with world(certs.authority, [("three.test", port)]) as found:
            found.open(rule("three.test", port, "GET"))
            client = await found.client()
            _, headers, _ = await client.ask("GET", f"/three.test:{port}/", "x")
            assert headers["x-remit-refused"] == "upstream_tls"
            await client.close()
        assert there.asked == []


async def test_a_client_that_trusts_another_authority_is_recorded(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "GET"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await found.tunnel("one.test", there.port, ca=certs.authority)
        while found.runs.open_visits:
            await asyncio.sleep(0.01)
        assert (await found.traffic()).connections[0].refused == "client_tls"
