"""The MCP door as the `mcp` package's own client sees it, on both kinds of revision."""

from __future__ import annotations

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from tests.doors.fake import FakeGateway, reply, tool
from tests.doors.serving import LEGACY, MODERN, client, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MODES = pytest.mark.parametrize("mode", ["auto", "legacy", MODERN])
ERAS = pytest.mark.parametrize("mode", ["legacy", MODERN])


@MODES
async def test_a_tool_is_found_and_called_in_every_mode(mode: str) -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        assert c.session.protocol_version == (LEGACY if mode == "legacy" else MODERN)
        tools = (await c.list_tools()).tools
        assert [t.name for t in tools] == ["echo", "fails", "progress", "slow"]
        result = await c.call_tool("echo", {"text": "hello"})
    assert not result.is_error
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "hello"
    assert result.meta is not None
    assert result.meta["dev.remit/decision"] == {"code": "ok"}
    assert gateway.calls[0].caller.subject == "ann"
    assert gateway.calls[0].source_ip == "127.0.0.1"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_only_tools_are_advertised(mode: str) -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, client(url, mode) as c:
        declared = c.session.server_capabilities
    assert declared is not None
    assert declared.model_dump(exclude_none=True) == {"tools": {"list_changed": True}}


@ERAS
async def test_a_denial_is_a_result_with_a_text_and_a_machine_part(mode: str) -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, client(url, mode) as c:
        result = await c.call_tool("fails")
    assert result.is_error
    assert isinstance(result.content[0], types.TextContent)
    assert "Do not retry unchanged" in result.content[0].text
    expected = {"code": "policy_denied", "decision_id": "d1", "policy_revision": "r1"}
    assert result.meta is not None
    assert result.meta["dev.remit/decision"] == expected
    assert result.structured_content == {"decision": expected}


@ERAS
async def test_an_unknown_tool_is_a_protocol_error_that_names_it(mode: str) -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, client(url, mode) as c:
        with pytest.raises(MCPError) as refused:
            await c.call_tool("nothing_here")
    assert refused.value.code == -32602
    assert refused.value.message == "Unknown tool: nothing_here"


@ERAS
async def test_progress_comes_in_order_with_growing_numbers(mode: str) -> None:
    heard: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, client(url, mode) as c:
        result = await c.call_tool("progress", progress_callback=on_progress)
    assert not result.is_error
    assert heard == [(1, "one"), (2, "two"), (3, "three")]


@ERAS
async def test_a_list_of_many_tools_comes_in_pages_without_gap_or_repeat(mode: str) -> None:
    names = [f"tool_{n:03}" for n in range(120)]
    gateway = FakeGateway([tool(name) for name in names])
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        seen: list[str] = []
        sizes: list[int] = []
        cursor: str | None = None
        while True:
            listed = await c.list_tools(cursor=cursor)
            seen += [t.name for t in listed.tools]
            sizes.append(len(listed.tools))
            cursor = listed.next_cursor
            if cursor is None:
                break
    assert seen == names
    assert sizes == [50, 50, 20]


async def test_the_client_may_keep_a_list_for_itself_only() -> None:
    async with served(mcp_app(FakeGateway(), DoorSettings())) as url, client(url, MODERN) as c:
        listed = await c.list_tools()
    assert listed.cache_scope == "private"
    assert listed.ttl_ms == 5_000


@ERAS
async def test_schemas_arrive_as_they_were_written(mode: str) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"name": {"type": "string", "$anchor": "n"}},
        "properties": {"a": {"$ref": "#/$defs/name"}, "b": {"default": None, "x-unit": "ms"}},
        "additionalProperties": False,
    }
    gateway = FakeGateway([tool("exact", schema=schema)])
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        listed = await c.list_tools()
    assert listed.tools[0].input_schema == schema


@ERAS
async def test_content_that_is_no_mcp_content_is_withheld_and_the_record_still_comes(
    mode: str,
) -> None:
    gateway = FakeGateway()

    async def odd(call: object, progress: object) -> object:
        good = reply("x")
        from remit.model import Frozen

        bad = Frozen(b'[{"type":"hologram","data":1}]')
        return type(good)(
            content=bad, structured=None, is_error=False, decision={"code": "ok", "run_id": "r1"}
        )

    gateway.answers["echo"] = odd  # type: ignore[assignment]
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        result = await c.call_tool("echo")
    assert result.is_error
    assert result.meta is not None
    assert result.meta["dev.remit/decision"] == {"code": "output_invalid", "run_id": "r1"}


@ERAS
async def test_structured_content_that_is_a_list_reaches_those_who_know_it(mode: str) -> None:
    gateway = FakeGateway()

    async def listing(call: object, progress: object) -> object:
        from remit.model import Frozen

        return reply("[1,null]", structured=Frozen(b"[1,null]"))

    gateway.answers["echo"] = listing  # type: ignore[assignment]
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        result = await c.call_tool("echo")
    assert not result.is_error
    assert result.structured_content == ([1, None] if mode == MODERN else None)


@ERAS
async def test_an_unforeseen_error_says_nothing_of_itself(mode: str) -> None:
    gateway = FakeGateway()

    async def broken(call: object, progress: object) -> object:
        raise RuntimeError("the inside of the gateway")

    gateway.answers["echo"] = broken  # type: ignore[assignment]
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, mode) as c:
        with pytest.raises(MCPError) as refused:
            await c.call_tool("echo")
    assert refused.value.code == -32603
    assert "inside" not in str(refused.value.error)


async def test_a_client_that_cancels_a_call_of_a_session_cancels_it() -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, "legacy") as c:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(c.call_tool, "slow")
            with anyio.fail_after(5):
                await gateway.started.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await gateway.cancelled.wait()
        assert (await c.call_tool("echo", {"text": "still here"})).content
    assert not gateway.finished.is_set()
