"""What the MCP door turns away before anything in a request is believed, byte by byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.errors import Code
from tests.doors.fake import FakeGateway
from tests.doors.serving import (
    Answer,
    call_body,
    http,
    modern_headers,
    raw,
    served,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def post(
    url: str, body: Any, headers: dict[str, str] | None = None, key: str | None = "key-ann"
) -> httpx2.Response:
    """Send a modern request whose headers fit its body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    name = body["params"].get("name") if isinstance(body, dict) else "echo"
    method = body["method"] if isinstance(body, dict) else "tools/call"
    sent = modern_headers(method, name, key) | (headers or {})
    async with http() as client:
        return await client.post(f"{url}/mcp", content=content, headers=sent)


async def one(body: Any, settings: DoorSettings | None = None, **more: Any) -> httpx2.Response:
    async with served(mcp_app(FakeGateway(), settings or DoorSettings())) as url:
        return await post(url, body, **more)


# ------------------------------------------------------------------------------- host and origin


async def _from(host: str | None, origin: str | None, *, extra: str | None = None) -> Answer:
    body = json.dumps(call_body("echo")).encode()
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url:
        lines = ["POST /mcp HTTP/1.1"]
        port = url.rsplit(":", 1)[1]
        lines += [] if host is None else [f"Host: {host.replace('PORT', port)}"]
        lines += [] if origin is None else [f"Origin: {origin.replace('PORT', port)}"]
        lines += [] if extra is None else [extra.replace("PORT", port)]
        lines += [f"{k}: {v}" for k, v in modern_headers("tools/call", "echo").items()]
        return await raw(url, lines, body)


@pytest.mark.threat("T-04")
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:PORT", None, 200),
        ("localhost:PORT", "http://localhost:PORT", 200),
        ("LOCALHOST", "http://127.0.0.1", 200),
        ("evil.example", None, 421),
        ("127.0.0.1.evil.example:PORT", None, 421),
        ("localhost:PORT@evil.example", None, 421),
        ("127.0.0.1:PORT:80", None, 421),
        ("127.0.0.1:", None, 421),
        ("", None, 421),
        ("127.0.0.1:PORT", "https://evil.example", 403),
        ("127.0.0.1:PORT", "http://localhost.evil.example:PORT", 403),
        ("127.0.0.1:PORT", "https://127.0.0.1:PORT", 403),
        ("127.0.0.1:PORT", "null", 403),
        ("127.0.0.1:PORT", "", 403),
    ],
)
async def test_only_our_own_hosts_and_origins_come_in(
    host: str, origin: str | None, status: int
) -> None:
    answer = await _from(host, origin)
    assert answer.status == status
    if status != 200:
        error = answer.json()["error"]
        assert (error["code"], error["data"]["code"]) == (4032, "origin_refused")


@pytest.mark.threat("T-04")
async def test_two_hosts_are_turned_away_before_either_is_believed() -> None:
    answer = await _from("127.0.0.1:PORT", None, extra="Host: evil.example")
    assert answer.status == 400


@pytest.mark.threat("T-04")
async def test_a_bad_host_is_turned_away_before_the_credential_is_looked_at() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings(allowed_hosts=("gate.example",)))) as url:
        answer = await post(url, call_body("echo"), key="unknown")
    assert answer.status_code == 421
    assert gateway.refusals == [(Code.ORIGIN_REFUSED, "127.0.0.1")]


# ------------------------------------------------------------------------------------ credentials


@pytest.mark.threat("T-02")
@pytest.mark.parametrize("key", [None, "nobody", "key-ann "])
async def test_without_a_known_key_the_answer_is_401_and_names_the_request(
    key: str | None,
) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}x"}
    answer = await one(call_body("echo", id_="abc"), key=None, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["id"] == "abc"
    assert answer.json()["error"]["code"] == 4010
    assert answer.json()["error"]["data"]["code"] == "unauthenticated"


async def test_a_refused_request_whose_id_is_unclear_is_answered_without_one() -> None:
    for body in (b"{", b"[1]", b'{"id": {"a": 1}}', b'{"id": true}', b"[" * 5000):
        answer = await one(body, key=None)
        assert (answer.status_code, answer.json()["id"]) == (401, None)


@pytest.mark.threat("T-02")
async def test_two_credentials_are_turned_away() -> None:
    answer = await _from("127.0.0.1:PORT", None, extra="Authorization: Bearer other")
    assert answer.status == 400


@pytest.mark.threat("T-02")
@pytest.mark.parametrize(
    "second",
    ["MCP-Protocol-Version: 2026-07-28", "mcp-protocol-version: 2025-11-25", "Mcp-Name: other",
     "Mcp-Method: tools/list", "Mcp-Session-Id: a", "Idempotency-Key: a"],
)  # fmt: skip
async def test_a_header_that_decides_something_is_turned_away_where_it_comes_twice(
    second: str,
) -> None:
    lines = [f"{k}: {v}" for k, v in modern_headers("tools/call", "echo").items()]
    lines += ["Mcp-Session-Id: b", "Idempotency-Key: b"]
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        head = ["POST /mcp HTTP/1.1", "Host: localhost", *lines, second]
        answer = await raw(url, head, json.dumps(call_body("echo")).encode())
    assert (answer.status, gateway.calls) == (400, [])


@pytest.mark.threat("T-02")
async def test_a_version_that_comes_twice_opens_no_session_that_nobody_owns() -> None:
    lines = [f"{k}: {v}" for k, v in modern_headers("initialize").items() if "mcp" not in k]
    lines += ["MCP-Protocol-Version: 2025-11-25"] * 2
    info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url:
        head = ["POST /mcp HTTP/1.1", "Host: localhost", *lines]
        answer = await raw(url, head, json.dumps(body).encode())
    assert (answer.status, answer.headers.get("mcp-session-id")) == (400, None)


@pytest.mark.threat("T-05")
async def test_too_many_requests_are_told_when_to_come_back() -> None:
    gateway = FakeGateway()
    gateway.limited = 2_300
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, call_body("echo", id_=5))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    error = answer.json()["error"]
    assert (answer.json()["id"], error["code"]) == (5, 4290)
    assert error["data"] == {"code": "rate_limited", "retry_after_ms": 2_300}


@pytest.mark.parametrize("version", [None, "2025-06-18", "2025-11-25"])
async def test_sessions_want_a_credential_too(version: str | None) -> None:
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    if version is not None:
        headers["mcp-protocol-version"] = version
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, http() as client:
        answer = await client.post(f"{url}/mcp", json=body, headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (401, 1)


# --------------------------------------------------------------------------------------- the body


@pytest.mark.threat("T-05")
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_turned_away_and_counted(declared: bool) -> None:
    gateway = FakeGateway()
    settings = DoorSettings(body_limit_bytes=10_000)
    body = json.dumps(call_body("echo", {"text": "x" * 20_000})).encode()
    async with served(mcp_app(gateway, settings)) as url:
        headers = modern_headers("tools/call", "echo")
        if declared:
            lines = [f"{k}: {v}" for k, v in headers.items()]
            answer = await raw(url, ["POST /mcp HTTP/1.1", "Host: localhost", *lines], body)
        else:
            chunked = b"".join(
                b"%x\r\n%s\r\n" % (len(part), part)
                for part in (body[n : n + 3_000] for n in range(0, len(body), 3_000))
            )
            lines = [*(f"{k}: {v}" for k, v in headers.items()), "Transfer-Encoding: chunked"]
            answer = await raw(
                url, ["POST /mcp HTTP/1.1", "Host: localhost", *lines], chunked + b"0\r\n\r\n",
                length=False,
            )  # fmt: skip
    assert answer.status == 413
    assert answer.json()["error"]["code"] == 4130
    assert gateway.refusals == [(Code.BODY_TOO_LARGE, "127.0.0.1")]
    assert gateway.calls == []


@pytest.mark.threat("T-05")
async def test_a_body_that_never_comes_is_given_up() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings(body_timeout_s=0.05))) as url:
        lines = [f"{k}: {v}" for k, v in modern_headers("tools/call", "echo").items()]
        head = ["POST /mcp HTTP/1.1", "Host: localhost", *lines, "Content-Length: 500"]
        answer = await raw(url, head, b"{", length=False)
    assert answer.status == 408
    assert gateway.calls == []


@pytest.mark.threat("T-05")
async def test_a_body_that_says_it_is_too_long_is_not_waited_for() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings(body_timeout_s=0.2))) as url:
        lines = [f"{k}: {v}" for k, v in modern_headers("tools/call", "echo").items()]
        head = ["POST /mcp HTTP/1.1", "Host: localhost", *lines, "Content-Length: 99999999999"]
        answer = await raw(url, head, b"{", length=False)
    assert answer.status == 413


@pytest.mark.threat("T-06")
@pytest.mark.parametrize(
    ("body", "rpc_code", "code"),
    [
        (b"", -32700, "malformed_json"),
        (b"{", -32700, "malformed_json"),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32602, "duplicate_key"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"a":2}}', -32602, "duplicate_key"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', -32602,
         "number_out_of_range"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":9007199254740992}}', -32602,
         "number_out_of_range"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1e999}}', -32602,
         "number_out_of_range"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\\ud800"}}', -32602,
         "invalid_unicode"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\xff"}}', -32602,
         "invalid_unicode"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":' + b"[" * 80 + b"]" * 80 + b"}}",
         -32602, "too_deep"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_json_that_two_parsers_would_read_differently_is_refused(
    body: bytes, rpc_code: int, code: str, version: str
) -> None:
    answer = await one(body, headers={"mcp-protocol-version": version})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["data"]["code"]) == (rpc_code, code)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b'"text"',
        b'{"id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}',
        b'{"jsonrpc":"2.0","id":1}',
    ],
)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_what_is_not_one_json_rpc_message_is_refused(body: bytes, version: str) -> None:
    answer = await one(body, headers={"mcp-protocol-version": version})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32600


async def test_a_value_at_fault_is_never_repeated() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"s3cret":1,"s3cret":2}}'
    assert "s3cret" not in (await one(body)).text


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 405),
        ("DELETE", {}, 405),
        ("PUT", {}, 405),
        ("OPTIONS", {}, 405),
        ("POST", {"content-type": "text/plain"}, 415),
        ("POST", {"content-type": "application/jsonx"}, 415),
        ("POST", {"accept": "text/html"}, 406),
    ],
)
async def test_http_that_is_not_mcp_is_turned_away(
    method: str, headers: dict[str, str], status: int
) -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, http() as client:
        sent = modern_headers("tools/call", "echo") | headers
        answer = await client.request(method, f"{url}/mcp", json=call_body("echo"), headers=sent)
    assert answer.status_code == status
    assert answer.json()["error"]["data"]["code"] == "not_served"


async def test_other_paths_hold_nothing() -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, http() as client:
        for path in ("/", "/mcp/", "/v1/status", "/metrics", "/healthz"):
            assert (await client.get(url + path)).status_code == 404, path


async def test_many_slow_senders_do_not_keep_another_from_its_answer() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        port = int(url.rsplit(":", 1)[1])
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        lines = [f"{k}: {v}" for k, v in modern_headers("tools/call", "echo").items()]
        head = ["POST /mcp HTTP/1.1", "Host: localhost", *lines, "Content-Length: 500", "", "{"]
        for _, writer in slow:
            writer.write("\r\n".join(head).encode())
        answer = await post(url, call_body("echo", {"text": "hello"}))
        for _, writer in slow:
            writer.close()
    assert answer.json()["result"]["content"][0]["text"] == "hello"
