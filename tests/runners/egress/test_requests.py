"""Inside TLS that ends at the proxy each request is held against the plan, and framed anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from remit.addresses import Reach
from remit.runners.egress.refusals import Refusal
from tests.runners.egress.world import Certificates, World, destination, ok, one, rule, world

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]


@pytest.fixture
async def site(certs: Certificates) -> AsyncIterator[tuple[World, object]]:
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "GET", "POST", path="/v1"))
        yield found, there


async def test_an_allowed_request_arrives_and_is_recorded(site):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    host = f"one.test:{there.port}"
    status, _, body = await client.ask("POST", "/v1/x?q=%2e%2e", host, "X-A: b", body=b"12345")
    assert (status, body) == (200, b"fine")
    status, _, _ = await client.ask("GET", "/v1", host)
    assert status == 200
    await client.close()
    first, second = there.asked
    assert (first.method, first.target, first.body) == ("POST", "/v1/x?q=%2e%2e", b"12345")
    assert first.headers["host"] == host
    assert first.headers["x-a"] == "b"
    assert (second.method, second.target) == ("GET", "/v1")
    assert there.connections == 1
    assert there.names == ["one.test"]
    (seen,) = (await found.traffic()).connections
    assert (seen.host, seen.port, seen.kind) == ("one.test", there.port, "https")
    assert (seen.address, seen.requests, seen.refused) == ("127.0.0.1", 2, None)
    assert seen.sent > 500
    assert seen.received > 500


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("DELETE", "/v1/x", "method"),
        ("TRACE", "/v1/x", "method"),
        ("GET", "/v2", "path"),
        ("GET", "/v12", "path"),
        ("GET", "/", "path"),
        ("GET", "/v1/../v2", "path"),
        ("GET", "/v1/./x", "path"),
        ("GET", "/v1//x", "path"),
        ("GET", "//v1/x", "path"),
        ("GET", "/v1/%2e%2e/v2", "path"),
        ("GET", "/v1/%2E./v2", "path"),
        ("GET", "/v1/x%2fy", "path"),
        ("GET", "/v1/x%5Cy", "path"),
        ("GET", "/v1/%252e%252e/v2", "path"),
        ("GET", "/v1/..;/v2", "path"),
        ("GET", "/v1/..;a=b/v2", "path"),
        ("GET", "/v1/x%00", "path"),
        ("GET", "/v1/x%0d%0a", "path"),
        ("GET", "/v1/x%zz", "path"),
        ("GET", "/v1/.../v2", "path"),
        ("GET", "/v1/..%20/v2", "path"),
        ("GET", "/v1/%c0%ae%c0%ae/v2", "path"),
        ("GET", "/v1/%ef%bc%8e%ef%bc%8e/v2", "path"),
        ("GET", "/v1/%e2%80%a5/v2", "path"),
        ("GET", "/v1/x%ef%bc%8fv2", "path"),
        ("GET", "/v1\\..\\v2", "malformed"),
        ("GET", "/v1/x#y", "malformed"),
        ("GET", "/v1/\x7f", "malformed"),
        ("GET", "/v1/\xe9", "malformed"),
        ("GET", "*", "malformed"),
        ("GET", "https://one.test/v1", "malformed"),
        ("GET", "v1", "malformed"),
        ("get", "/v1/x", "malformed"),
        ("CONNECT", "two.test:443", "malformed"),
    ],
)
async def test_another_method_or_path_is_refused_and_not_asked(site, method, target, code):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    status, headers, body = await client.ask(method, target, f"one.test:{there.port}")
    assert headers["x-remit-refused"] == code
    assert status == (400 if code == "malformed" else 403)
    assert f"[{code}]" in body.decode()
    assert await client.ended() == b""
    await client.close()
    assert there.connections == 0
    traffic = await found.traffic()
    assert traffic.refused == 1
    assert traffic.connections[0].refused == code


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("X-HTTP-Method-Override: DELETE", "method"),
        ("x_http_method_override: DELETE", "method"),
        ("X-HTTP-Method: DELETE", "method"),
        ("X-Method-Override: DELETE", "method"),
        ("X-Original-URL: /v2", "path"),
        ("X_Rewrite_Url: /v2", "path"),
        ("Destination: https://one.test/v2", "path"),
    ],
)
async def test_a_header_that_means_another_method_or_path_is_refused(site, header, code):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    _, headers, _ = await client.ask("POST", "/v1/x", f"one.test:{there.port}", header)
    assert headers["x-remit-refused"] == code
    await client.close()
    assert there.connections == 0


async def test_such_a_header_passes_where_it_decides_nothing(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "POST"), rule("two.test", there.port, path="/v1"))
        for name, header in (("one", "X-Original-URL: /"), ("two", "X-HTTP-Method: DELETE")):
            client = await found.tunnel(f"{name}.test", there.port)
            status, _, _ = await client.ask("POST", "/v1", f"{name}.test:{there.port}", header)
            assert status == 200
            await client.close()


async def test_this_machine_is_not_reached_by_a_public_address_of_its_own(certs, monkeypatch):
    monkeypatch.setattr("remit.runners.egress.upstream.reach", lambda address: Reach.PUBLIC)
    async with destination(certs.chain) as there, world(certs.authority, []) as found:
        found.open(rule("one.test", there.port, "GET"))
        client = await found.tunnel("one.test", there.port)
        _, headers, _ = await client.ask("GET", "/", f"one.test:{there.port}")
        assert headers["x-remit-refused"] == "address"
        await client.close()
        assert there.asked == []


@pytest.mark.parametrize(
    "lines",
    [
        ["Host: two.test"],
        ["Host: one.test"],
        ["Host: one.test:1"],
        ["Host: one.test.:{port}"],
        ["Host: user@one.test:{port}"],
        ["Host:"],
    ],
)
async def test_another_host_inside_is_refused(site, lines):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    head = "\r\n".join(["GET /v1 HTTP/1.1", *(line.format(port=there.port) for line in lines)])
    client.write(head.encode() + b"\r\n\r\n")
    _, headers, _ = await client.answer()
    assert headers["x-remit-refused"] == "host_mismatch"
    assert there.asked == []
    await client.close()


HOST = "Host: one.test:{port}"


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /v1 HTTP/1.1"],
        ["GET /v1 HTTP/1.1", HOST, HOST],
        ["GET /v1 HTTP/1.1", HOST, "host: two.test"],
        ["POST /v1 HTTP/1.1", HOST, "Content-Length: 1", "Transfer-Encoding: chunked"],
        ["POST /v1 HTTP/1.1", HOST, "Content-Length: 1", "Content-Length: 1"],
        ["POST /v1 HTTP/1.1", HOST, "Content-Length: 1, 1"],
        ["POST /v1 HTTP/1.1", HOST, "Content-Length: +1"],
        ["POST /v1 HTTP/1.1", HOST, "Content-Length: 0x1"],
        ["POST /v1 HTTP/1.1", HOST, "Content-Length: -1"],
        ["POST /v1 HTTP/1.1", HOST, "Transfer-Encoding: gzip, chunked"],
        ["POST /v1 HTTP/1.1", HOST, "Transfer-Encoding: xchunked"],
        ["POST /v1 HTTP/1.1", HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["POST /v1 HTTP/1.0", HOST, "Transfer-Encoding: chunked"],
        ["GET /v1 HTTP/1.1", HOST, "X: a", " folded"],
        ["GET /v1 HTTP/1.1", HOST, "X : a"],
        ["GET /v1 HTTP/1.1", HOST, " X: a"],
        ["GET /v1 HTTP/1.1", HOST, "X"],
        ["GET /v1 HTTP/1.1", HOST, ": a"],
        ["GET /v1 HTTP/1.1", HOST, "X: a\nY: b"],
        ["GET /v1 HTTP/1.1", HOST, "X: a\rY: b"],
        ["GET /v1 HTTP/1.1", HOST, "X: a\0b"],
        ["GET  /v1 HTTP/1.1", HOST],
        ["GET /v1  HTTP/1.1", HOST],
        ["GET /v1 HTTP/1.1 ", HOST],
        ["GET /v1 HTTP/2.0", HOST],
        ["GET /v1 HTTP/1.2", HOST],
        ["GET /v1 http/1.1", HOST],
        ["GET /v1", HOST],
        ["GET\t/v1 HTTP/1.1", HOST],
        ["GET /v1 HTTP/1.1", HOST, "Expect: 200-ok"],
        ["GET /v1 HTTP/1.1", HOST, *(f"X-{number}: a" for number in range(100))],
        ["GET /v1 HTTP/1.1", HOST, "X: " + "a" * 40_000],
        ["GET /v1" + "a" * 9_000 + " HTTP/1.1", HOST],
        ["PRI * HTTP/2.0", "", "SM"],
    ],
)
async def test_what_two_servers_could_read_differently_is_refused(site, lines):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    head = "\r\n".join(line.replace("{port}", str(there.port)) for line in lines)
    client.write(head.encode() + b"\r\n\r\nGET /v1/smuggled HTTP/1.1\r\n\r\n")
    status, headers, _ = await client.answer()
    assert (status, headers["x-remit-refused"]) == (400, "malformed")
    assert await client.ended() == b""
    assert there.connections == 0
    await client.close()


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"],
        ["Upgrade: h2c"],
        ["Connection: HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ],
)
async def test_changing_the_protocol_is_refused(site, lines):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    _, headers, _ = await client.ask("GET", "/v1", f"one.test:{there.port}", *lines)
    assert headers["x-remit-refused"] == "upgrade"
    assert there.asked == []
    await client.close()


async def test_a_destination_that_changes_the_protocol_is_not_followed(site):
    found, there = site
    there.reply = lambda asked: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nanything"
    client = await found.tunnel("one.test", there.port)
    status, headers, _ = await client.ask("GET", "/v1", f"one.test:{there.port}")
    assert (status, headers["x-remit-refused"]) == (502, "upstream")
    await client.close()


async def test_headers_of_one_connection_and_the_runs_own_credentials_are_dropped(site):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    lines = [
        "Connection: keep-alive, X-Mine",
        "X-Mine: a",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Proxy-Authorization: Basic YTpi",
        "Proxy-Connection: keep-alive",
        "Authorization: Bearer of-the-run-itself",
        "X-Kept: yes",
    ]
    status, _, _ = await client.ask("GET", "/v1", f"one.test:{there.port}", *lines)
    assert status == 200
    assert set(there.asked[0].headers) == {"host", "x-kept"}
    await client.close()


async def test_requests_sent_at_once_are_answered_in_turn_and_each_is_checked(site):
    found, there = site
    there.reply = lambda asked: ok(asked.target.encode())
    client = await found.tunnel("one.test", there.port)
    host = f"Host: one.test:{there.port}\r\n"
    client.write(
        f"POST /v1/a HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc"
        f"GET /v1/b HTTP/1.1\r\n{host}\r\n"
        f"GET /v2/c HTTP/1.1\r\n{host}\r\n"
        f"GET /v1/d HTTP/1.1\r\n{host}\r\n".encode()
    )
    assert (await client.answer())[2] == b"/v1/a"
    assert (await client.answer())[2] == b"/v1/b"
    assert (await client.answer())[1]["x-remit-refused"] == "path"
    assert await client.ended() == b""
    assert [asked.target for asked in there.asked] == ["/v1/a", "/v1/b"]
    await client.close()


async def test_chunks_are_framed_anew_and_trailers_dropped(site):
    found, there = site
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2;ext=1\r\nab\r\n"
    )
    there.reply = lambda asked: chunked + b"1\r\nc\r\n0\r\nX: trailer\r\n\r\n"
    client = await found.tunnel("one.test", there.port)
    client.write(
        f"POST /v1 HTTP/1.1\r\nHost: one.test:{there.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3;x=y\r\nabc\r\n0\r\nX-Trailer: a\r\n\r\n".encode()
    )
    status, headers, body = await client.answer()
    assert (status, body) == (200, b"abc")
    assert "trailer" not in headers
    assert there.asked[0].body == b"abc"
    await client.close()


async def test_a_length_beside_chunks_is_dropped_from_an_answer(site):
    found, there = site
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n"
    there.reply = lambda asked: head + b"3\r\nabc\r\n0\r\n\r\n"
    client = await found.tunnel("one.test", there.port)
    status, headers, body = await client.ask("GET", "/v1", f"one.test:{there.port}")
    assert (status, body) == (200, b"abc")
    assert "content-length" not in headers
    await client.close()


async def test_expect_is_answered_by_the_proxy_once_the_request_may_pass(site):
    found, there = site
    client = await found.tunnel("one.test", there.port)
    host = f"Host: one.test:{there.port}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    client.write(f"POST /v1 HTTP/1.1\r\n{host}".encode())
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    client.write(b"abc")
    assert (await client.answer())[0] == 200
    assert "expect" not in there.asked[0].headers
    client.write(f"POST /v2 HTTP/1.1\r\n{host}".encode())
    assert (await client.answer())[1]["x-remit-refused"] == "path"
    await client.close()


async def test_interim_answers_end_at_the_proxy(site):
    found, there = site
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    there.reply = lambda asked: hints + ok()
    client = await found.tunnel("one.test", there.port)
    assert (await client.ask("GET", "/v1", f"one.test:{there.port}"))[0] == 200
    await client.close()


async def test_an_early_answer_reaches_a_run_that_is_still_sending(site):
    found, there = site
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(b"too big", status="413 Content Too Large"))
        await told.wait()
        writer.close()

    there.serving = serve
    client = await found.tunnel("one.test", there.port)
    head = f"POST /v1 HTTP/1.1\r\nHost: one.test:{there.port}\r\nContent-Length: 900000\r\n\r\n"
    client.write(head.encode() + b"x" * 1_000)
    status, _, body = await client.answer()
    assert (status, body) == (413, b"too big")
    assert await client.ended() == b""
    told.set()
    await client.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\na",
    ],
)
async def test_an_answer_that_is_not_http_is_not_passed_on(site, reply):
    found, there = site
    there.reply = lambda asked: reply
    client = await found.tunnel("one.test", there.port)
    status, headers, _ = await client.ask("GET", "/v1", f"one.test:{there.port}")
    assert (status, headers["x-remit-refused"]) == (502, "upstream")
    await client.close()
    assert (await found.traffic()).connections[0].refused == "upstream"


async def test_an_answer_that_breaks_off_stays_broken_off(site):
    found, there = site
    there.closes = True
    there.reply = lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    client = await found.tunnel("one.test", there.port)
    with pytest.raises(asyncio.IncompleteReadError):
        await client.ask("GET", "/v1", f"one.test:{there.port}")
    await client.close()
    assert (await found.traffic()).connections[0].refused == "upstream"


async def test_where_tls_may_not_end_at_the_proxy_rules_that_need_it_let_nothing_through(certs):
    async with destination(certs.chain) as there, one(certs, there) as found:
        found.open(rule("one.test", there.port, "GET"), terminate=False)
        with pytest.raises(Refusal, match="403"):
            await found.tunnel("one.test", there.port)
        assert (await found.traffic()).connections[0].refused == "not_allowed"
        assert there.connections == 0
