"""Which addresses servers are asked at, whatever is written, resolved or said."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import pytest

from remit.errors import Code, ConfigError, UpstreamFault
from remit.upstreams.http_target import target_of
from tests.policy.opa.certificates import Authority
from tests.upstreams.http_asked import ITEM, TOKEN, Asked, asking, call, hostile, spec_of

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-41")]


class Says:
    """A resolver that gives these addresses, and remembers what it was asked."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str, _: int) -> Sequence[str]:
        self.asked.append(host)
        return self._addresses


async def fault_at(url: str, **how: Any) -> UpstreamFault:
    async with asking(**how) as servers:
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(url, ITEM, {}), token=TOKEN)
    assert (caught.value.code, caught.value.sent) == (Code.UPSTREAM_UNREACHABLE, False)
    return caught.value


NEVER = [
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
]
PRIVATE = ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fc00::1", "::ffff:10.0.0.1"]


@pytest.mark.parametrize("address", NEVER)
async def test_metadata_and_link_local_addresses_are_never_reached(address):
    literal = f"[{address}]" if ":" in address else address
    assert "address" in str(await fault_at(f"https://{literal}/mcp"))
    named = {"look": Says(address), "internal": {("mcp.test", 443)}}
    assert "address" in str(await fault_at("https://mcp.test/mcp", **named))


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_may_not_mean_a_private_address_unless_the_operator_says_so(address):
    fault = await fault_at("https://mcp.test/mcp", look=Says(address))
    assert "not one that may be reached" in fault.message
    assert "runners.egress.internal" in str(fault.hint)


async def test_one_private_address_among_public_ones_is_enough():
    fault = await fault_at("https://mcp.test/mcp", look=Says("93.184.215.14", "10.0.0.1"))
    assert "not one that may be reached" in fault.message


async def test_a_private_address_is_reached_where_it_is_written():
    async with hostile(Asked.honest) as there, asking() as servers:
        await call(servers, spec_of(there.url, ITEM, {}))


async def test_localhost_is_this_machine_or_nothing():
    async with hostile(Asked.honest) as there:
        url = f"http://localhost:{there.port}/"
        assert "address" in str(await fault_at(url, look=Says("10.0.0.1")))
        assert "address" in str(await fault_at(url, look=Says("93.184.215.14")))
        async with asking() as servers:
            await call(servers, spec_of(url, ITEM, {}))


async def test_a_name_without_an_address_is_a_fault_that_says_so():
    assert "name has no address" in str(await fault_at("https://mcp.test/", look=Says()))
    assert "name has no address" in str(await fault_at("https://mcp.invalid/"))


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.test/",
        "http://10.0.0.1/",
        "ftp://mcp.test/",
        "https://user@mcp.test/",
        "https://user:pw@mcp.test/",
        "https://mcp.test/#a",
        "https://mcp.test/a b",
        "https://mcp.test/\r\nX: y",
        "https://metadata.google.internal/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://127.1/",
        "https://mcp.test:0/",
        "https://mcp.test:99999/",
        "https:///path",
        "https://[::1%25lo]/",
        "https://mcp.test/\r\nXy",
        "//mcp.test/",
        "mcp.test",
        "",
    ],
)
async def test_a_url_that_is_not_plainly_one_place_is_refused(url):
    with pytest.raises(ConfigError):
        target_of(url)
    await fault_at(url)


def test_a_url_is_read_as_what_it_Says() -> None:
    target = target_of("https://MCP.test/a/b?c=d")
    assert (target.secure, target.host, target.port) == (True, "mcp.test", 443)
    assert (target.path, target.authority) == ("/a/b?c=d", "mcp.test")
    assert target_of("http://[::1]:8080").authority == "[::1]:8080"
    assert target_of("http://[::1]:8080").path == "/"


async def test_the_place_to_speak_that_a_server_names_is_its_own():
    async def answer(asked: Asked) -> None:
        if asked.verb == "POST":
            await asked.json(b"", status="405 Method Not Allowed")
            return
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        await asked.send(head + b"event: endpoint\ndata: http://127.0.0.1:1/latest\n\n")

    async with hostile(answer) as there, asking() as servers:
        with pytest.raises(UpstreamFault) as caught:
            await call(servers, spec_of(there.url, ITEM, {}), token=TOKEN)
        assert caught.value.code is Code.UPSTREAM_INVALID
        assert "another server" in caught.value.message


async def test_only_the_server_that_the_certificate_names_is_asked(tmp_path):
    authority = Authority(tmp_path, "authority")
    text = authority.path.read_text()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mcp.test"))
    async with hostile(Asked.honest, tls=context) as there:
        places = {("mcp.test", there.port), ("other.test", there.port)}
        look = Says("127.0.0.1")
        how = {"look": look, "internal": places, "ca_pem": text}
        async with asking(**how) as servers:
            await call(servers, spec_of(f"https://mcp.test:{there.port}/", ITEM, {}), token=TOKEN)
        asked = len(there.asked)
        assert look.asked == ["mcp.test"]  # one look for one connection, which is to what it gave
        assert there.asked[-1].headers["host"] == f"mcp.test:{there.port}"
        fault = await fault_at(f"https://other.test:{there.port}/", **how)
        assert "another name" in fault.message
        fault = await fault_at(f"https://mcp.test:{there.port}/", **{**how, "ca_pem": ""})
        assert "not trusted" in fault.message
        assert len(there.asked) == asked


async def test_a_server_that_speaks_no_tls_is_sent_nothing():
    came = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        came.extend(await reader.read())

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        fault = await fault_at(f"https://127.0.0.1:{port}/")
    assert "TLS" in fault.message
    assert TOKEN not in came


async def test_a_name_that_nobody_answers_for_keeps_no_other_server_waiting():
    async def look(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        return ()

    async with hostile(Asked.honest) as there, asking(look=look) as servers:
        hung = asyncio.create_task(
            call(servers, spec_of("https://mcp.test/", ITEM, {}, server="hung"), within_s=20)
        )
        await asyncio.sleep(0)
        await call(servers, spec_of(there.url, ITEM, {}))
        hung.cancel()
        await asyncio.gather(hung, return_exceptions=True)
