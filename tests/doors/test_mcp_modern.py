"""The 2026-07-28 wire: hidden tools, header rules, cancel by closing, claims."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest

from remit.doors import protocol
from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.doors.tracing import ServerSpan
from remit.errors import Code
from tests.doors.fake import FakeGateway, tool
from tests.doors.serving import call_body, http, modern_headers, modern_meta, served
from tests.doors.test_mcp_edge import one, post

pytestmark = pytest.mark.anyio


# ----------------------------------------------------------------------------------- hidden tools


@pytest.mark.threat("T-03")
@pytest.mark.parametrize("arguments", [{}, {"text": "x"}, {"text": 7, "more": [1]}, None])
@pytest.mark.parametrize(
    "headers", [{}, {"mcp-param-text": "x"}, {"mcp-param-text": "=?base64?!?="}]
)
async def test_a_hidden_tool_is_answered_like_one_that_does_not_exist(
    arguments: Any, headers: dict[str, str]
) -> None:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", "x-mcp-header": "Text"}},
        "required": ["text"],
    }
    gateway = FakeGateway([tool("echo"), tool("secret_tool", schema=schema)])
    async with served(mcp_app(gateway, DoorSettings())) as url:
        hidden = await post(url, call_body("secret_tool", arguments), headers)
        missing = await post(url, call_body("absent_tool", arguments), headers)
    assert hidden.status_code == missing.status_code == 400
    as_missing = hidden.content.replace(b"secret_tool", b"absent_tool")
    assert as_missing == missing.content
    volatile = {"date"}
    assert {k: v for k, v in hidden.headers.items() if k not in volatile} == {
        k: v for k, v in missing.headers.items() if k not in volatile
    }
    assert json.loads(hidden.content)["error"] == {
        "code": -32602,
        "message": "Unknown tool: secret_tool",
        "data": {"code": "unknown_tool"},
    }


@pytest.mark.threat("T-03")
async def test_a_cursor_at_a_hidden_tool_shows_no_more_than_one_at_a_missing_tool() -> None:
    gateway = FakeGateway([tool("a"), tool("b"), tool("secret_tool"), tool("z")])
    settings = DoorSettings(page_size=1)
    async with served(mcp_app(gateway, settings)) as url:
        names: list[str] = []
        cursor: str | None = None
        while True:
            params: dict[str, Any] = {"_meta": modern_meta()}
            params |= {} if cursor is None else {"cursor": cursor}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
            result = (await post(url, body)).json()["result"]
            names += [t["name"] for t in result["tools"]]
            cursor = result.get("nextCursor")
            if cursor is None:
                break
            assert "secret_tool" not in cursor
    assert names == ["a", "b", "z"]


@pytest.mark.threat("T-03")
async def test_another_callers_cursor_or_a_made_up_one_is_refused() -> None:
    gateway = FakeGateway([tool("a"), tool("b")])
    async with served(mcp_app(gateway, DoorSettings(page_size=1))) as url:
        params: dict[str, Any] = {"_meta": modern_meta()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
        cursor = (await post(url, body)).json()["result"]["nextCursor"]
        for wrong, key in ((cursor, "key-bob"), ("AAAA", "key-ann"), ("é!", "key-ann")):
            params["cursor"] = wrong
            answer = await post(url, body, key=key)
            assert answer.status_code == 400
            assert answer.json()["error"]["message"] == "Invalid cursor"


async def test_a_call_does_not_list_the_tools() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        await post(url, call_body("echo", {"text": "x"}), {"mcp-param-text": "other"})
    assert gateway.listed == 0
    assert len(gateway.calls) == 1


async def test_no_schema_asks_a_client_to_copy_arguments_into_headers() -> None:
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "x-mcp-header": {"type": "string", "description": "a property of that name"},
        },
    }
    gateway = FakeGateway([tool("echo", schema=schema)])
    body = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": modern_meta()},
    }  # fmt: skip
    async with served(mcp_app(gateway, DoorSettings())) as url:
        (listed,) = (await post(url, body)).json()["result"]["tools"]
    assert listed["inputSchema"]["properties"] == {
        "region": {"type": "string"},
        "x-mcp-header": {"type": "string", "description": "a property of that name"},
    }


@pytest.mark.threat("T-05")
async def test_a_name_longer_than_any_tools_is_not_carried_further() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, call_body("n" * 4_000))
    assert answer.status_code == 400
    assert len(answer.content) < 400
    assert gateway.calls == []
    assert gateway.refusals[0][0] is Code.UNKNOWN_TOOL


# ------------------------------------------------------------------------- errors and their status


@pytest.mark.parametrize(
    ("change", "status", "rpc_code"),
    [
        ({"headers": {"mcp-method": "tools/list"}}, 400, -32020),
        ({"headers": {"mcp-name": "fails"}}, 400, -32020),
        ({"headers": {"mcp-protocol-version": "2099-01-01"}}, 400, -32020),
        ({"meta": {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}}, 400, -32020),
        ({"meta": {"io.modelcontextprotocol/clientCapabilities": None}}, 400, -32602),
        ({"method": "nothing/here"}, 404, -32601),
        ({"method": "resources/list"}, 404, -32601),
        ({"method": "prompts/list"}, 404, -32601),
        ({"method": "initialize"}, 404, -32601),
        ({"method": "resources/subscribe"}, 404, -32601),
        ({"method": "logging/setLevel"}, 404, -32601),
        ({"method": "sampling/createMessage"}, 404, -32601),
        ({"method": "roots/list"}, 404, -32601),
        ({"method": "ping"}, 404, -32601),
    ],
)
async def test_each_protocol_error_has_its_http_status(
    change: dict[str, Any], status: int, rpc_code: int
) -> None:
    body = call_body("echo", meta=change.get("meta"), id_=42)
    if "method" in change:
        body["method"] = change["method"]
        if change["method"] == "subscriptions/listen":
            body["params"]["notifications"] = {}
        if change["method"] == "initialize":
            body["params"] |= {
                "protocolVersion": "2026-07-28",
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            }
    answer = await one(body, headers=change.get("headers"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, rpc_code)
    assert answer.json()["id"] == 42


async def test_an_unsupported_revision_is_told_which_ones_are_served() -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    answer = await one(call_body("echo", meta=meta), headers={"mcp-protocol-version": "2099-01-01"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32022
    assert answer.json()["error"]["data"]["supported"] == ["2026-07-28"]


@pytest.mark.parametrize("arguments", ["text", 7, [1]])
async def test_arguments_that_are_no_object_never_reach_the_gateway(arguments: Any) -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, call_body("echo", arguments))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
    assert gateway.calls == []


async def test_arguments_reach_the_gateway_unchecked_and_unchanged() -> None:
    gateway = FakeGateway()
    arguments = {"text": {"deep": [None, 1.5, -0.0, "é\u202e"]}, "unknown": True}
    async with served(mcp_app(gateway, DoorSettings())) as url:
        await post(url, call_body("echo", arguments))
    assert gateway.calls[0].arguments == arguments


async def test_a_result_declares_what_it_is() -> None:
    answer = await one(call_body("echo", {"text": "x"}))
    assert answer.json()["result"]["resultType"] == "complete"
    assert answer.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in answer.headers


async def test_a_notification_is_accepted_and_nothing_comes_of_it() -> None:
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    answer = await one(body)
    assert (answer.status_code, answer.content) == (202, b"")


# ------------------------------------------------------------------------- stream, and its closing


@pytest.mark.parametrize("token", [None, "t1"])
async def test_a_closed_connection_cancels_the_call(token: str | None) -> None:
    gateway = FakeGateway()
    meta = {} if token is None else {"progressToken": token}
    async with served(mcp_app(gateway, DoorSettings())) as url:
        async with http() as client:
            sending = asyncio.ensure_future(
                client.post(
                    f"{url}/mcp",
                    json=call_body("slow", meta=meta),
                    headers=modern_headers("tools/call", "slow"),
                )
            )
            with anyio.fail_after(5):
                await gateway.started.wait()
            sending.cancel()
        with anyio.fail_after(5):
            await gateway.cancelled.wait()
    assert not gateway.finished.is_set()


async def test_a_closed_stream_cancels_the_call_also_after_progress() -> None:
    gateway = FakeGateway()

    async def answering(call: Any, progress: Any) -> Any:
        await progress.report("under way")
        return await gateway._slow(call, progress)

    gateway.answers["slow"] = answering
    body = call_body("slow", meta={"progressToken": 3})
    async with served(mcp_app(gateway, DoorSettings())) as url, http() as client:
        headers = modern_headers("tools/call", "slow")
        note: Any = None
        async with client.stream("POST", f"{url}/mcp", json=body, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    note = json.loads(line[6:])
                    break
        with anyio.fail_after(5):
            await gateway.cancelled.wait()
    assert note["method"] == "notifications/progress"
    assert note["params"] == {"progressToken": 3, "progress": 1, "message": "under way"}


async def test_a_long_silence_becomes_a_stream_that_ends_with_the_answer() -> None:
    gateway = FakeGateway()
    settings = DoorSettings(keepalive_s=0.05)
    async with served(mcp_app(gateway, settings)) as url, http() as client:
        headers = modern_headers("tools/call", "slow")
        body = call_body("slow")
        async with client.stream("POST", f"{url}/mcp", json=body, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = []
            async for line in answer.aiter_lines():
                lines.append(line)
                gateway.release.set()
    assert lines[0].startswith(":")
    (data,) = [line for line in lines if line.startswith("data: ")]
    assert json.loads(data[6:])["result"]["content"][0]["text"] == "released"


async def test_who_accepts_only_json_gets_only_json() -> None:
    gateway = FakeGateway()
    body = call_body("progress", meta={"progressToken": 1})
    settings = DoorSettings(keepalive_s=0.001)
    async with served(mcp_app(gateway, settings)) as url:
        answer = await post(url, body, {"accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["content"][0]["text"] == "done"


@pytest.mark.threat("T-26")
async def test_progress_is_masked_bounded_and_made_visible() -> None:
    gateway = FakeGateway()

    async def talking(call: Any, progress: Any) -> Any:
        await progress.report("a\x1b[2Jb\u202ec remit_ops_" + "A" * 30)
        await progress.report("y" * 5_000)
        return await gateway._echo(call, progress)

    gateway.answers["echo"] = talking
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, call_body("echo", meta={"progressToken": 1}))
    notes = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:6] == "data: "]
    first, second = (note["params"]["message"] for note in notes[:2])
    assert first == "a\\u{1b}[2Jb\\u{202e}c ***"
    assert second == "y" * 500


async def test_a_client_that_does_not_read_does_not_hold_up_the_call() -> None:
    gateway = FakeGateway()

    async def flooding(call: Any, progress: Any) -> Any:
        for n in range(5_000):
            await progress.report(f"{n} " + "z" * 400)
            if n % 100 == 0:
                await asyncio.sleep(0)
        gateway.finished.set()
        return await gateway._echo(call, progress)

    gateway.answers["echo"] = flooding
    body = json.dumps(call_body("echo", meta={"progressToken": 1})).encode()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        headers = modern_headers("tools/call", "echo") | {
            "host": "localhost",
            "content-length": str(len(body)),
        }
        lines = ["POST /mcp HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        with anyio.fail_after(10):
            await gateway.finished.wait()
        writer.close()


# ----------------------------------------------------------------------------------------- claims


async def _claimed(meta: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, call_body("echo", meta=meta), headers)
    return gateway, answer.json()["result"]


@pytest.mark.threat("T-24")
async def test_claims_are_recorded_as_claimed() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    gateway, _ = await _claimed(
        {
            "dev.remit/purpose": {"purpose": "rotate the certificate", "ticket": "OPS-12"},
            "dev.remit/idempotency-key": "abc:1",
            "traceparent": f"00-{trace}-b7ad6b7169203331-01",
        }
    )
    (call,) = gateway.calls
    assert (call.claims.purpose, call.claims.ticket) == ("rotate the certificate", "OPS-12")
    assert (call.claims.client_name, call.claims.client_version) == ("tests", "1")
    assert call.claims.trace_id == trace
    assert call.idempotency_key == "abc:1"


async def test_a_purpose_may_be_a_plain_text_and_the_key_a_header() -> None:
    gateway, _ = await _claimed({"dev.remit/purpose": "گواهی\u200cنامه"}, {"idempotency-key": "k1"})
    assert gateway.calls[0].claims.purpose == "گواهی\u200cنامه"
    assert gateway.calls[0].idempotency_key == "k1"


@pytest.mark.threat("T-24")
@pytest.mark.parametrize(
    ("meta", "headers", "place"),
    [
        ({"dev.remit/purpose": "x" * 501}, {}, "/_meta/dev.remit~1purpose"),
        ({"dev.remit/purpose": ""}, {}, "/_meta/dev.remit~1purpose"),
        ({"dev.remit/purpose": 7}, {}, "/_meta/dev.remit~1purpose"),
        ({"dev.remit/purpose": "two\nlines"}, {}, "/_meta/dev.remit~1purpose"),
        ({"dev.remit/purpose": "turn\u202earound"}, {}, "/_meta/dev.remit~1purpose"),
        ({"dev.remit/purpose": {"purpose": "p", "approved": True}}, {},
         "/_meta/dev.remit~1purpose"),
        ({"dev.remit/purpose": {"ticket": "t" * 101}}, {}, "/_meta/dev.remit~1purpose/ticket"),
        ({"dev.remit/idempotency-key": "with space"}, {}, "/_meta/dev.remit~1idempotency-key"),
        ({"dev.remit/idempotency-key": "k" * 129}, {}, "/_meta/dev.remit~1idempotency-key"),
        ({"dev.remit/idempotency-key": 7}, {}, "/_meta/dev.remit~1idempotency-key"),
        ({"dev.remit/idempotency-key": "a"}, {"idempotency-key": "b"},
         "/_meta/dev.remit~1idempotency-key"),
        ({}, {"idempotency-key": ""}, "/_meta/dev.remit~1idempotency-key"),
    ],
)  # fmt: skip
async def test_a_malformed_claim_is_refused_in_band_and_not_repeated(
    meta: dict[str, Any], headers: dict[str, str], place: str
) -> None:
    gateway, result = await _claimed(meta, headers)
    assert gateway.calls == []
    assert gateway.refusals[0][0] is Code.INVALID_CLAIM
    assert result["isError"] is True
    assert result["_meta"]["dev.remit/decision"] == {"code": "invalid_claim", "place": place}
    assert "xxx" not in json.dumps(result)


@pytest.mark.parametrize("trace", ["junk", "00-" + "0" * 31 + "-x-01", 7])
async def test_a_malformed_trace_is_as_good_as_none(trace: Any) -> None:
    gateway, _ = await _claimed({"traceparent": trace} if isinstance(trace, str) else {})
    assert gateway.calls[0].claims.trace_id is None


async def test_a_client_that_does_not_name_itself_is_served() -> None:
    gateway = FakeGateway()
    body = call_body("echo")
    del body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, body)
    assert answer.status_code == 200
    assert gateway.calls[0].claims.client_name is None


def test_a_session_cannot_be_told_from_its_claim() -> None:
    claim = protocol.session_claim("abc")
    assert claim is not None
    assert "abc" not in claim
    assert claim == protocol.session_claim("abc")
    assert protocol.session_claim(None) is None


@pytest.mark.parametrize("tracing", [True, False])
def test_the_server_span_is_made_where_spans_are_recorded_and_nowhere_else(tracing: bool) -> None:
    settings = DoorSettings(tracing=tracing)
    server = protocol.Protocol(FakeGateway(), settings, lambda: 0).server()
    assert any(isinstance(each, ServerSpan) for each in server.middleware) is tracing
