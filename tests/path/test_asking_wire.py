"""The gateway's own tools as clients see them, on the wire, before a real pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.gateway import Gateway
from remit.model import Caller
from tests.doors.serving import LEGACY, MODERN, call_body, client, served
from tests.doors.test_mcp_edge import post
from tests.path.conftest import AGENT, ALLOW, HEAD, MakePath, tool

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("mode", ["legacy", MODERN])


async def anyone(authorization: str | None, source_ip: str) -> Caller:
    """Whoever comes is the agent."""
    return AGENT


@asynccontextmanager
async def door(make_path: MakePath, rego: str, **settings: Any) -> AsyncIterator[str]:
    path = await make_path(rego, **settings)
    gateway = Gateway(path.pipeline)
    gateway.authenticate = anyone  # keys are tested elsewhere
    async with served(mcp_app(gateway, DoorSettings(page_size=4))) as url:
        yield url


@ERAS
async def test_both_tools_are_listed_with_schema_and_hints(make_path: MakePath, mode: str) -> None:
    async with door(make_path, ALLOW) as url, client(url, mode) as c:
        assert c.session.protocol_version == (LEGACY if mode == "legacy" else MODERN)
        listed: list[types.Tool] = []
        cursor: str | None = None
        while True:
            page = await c.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
    names = [each.name for each in listed]
    assert names == sorted(set(names))
    assert "hidden" not in names
    can_i, request = (
        next(each for each in listed if each.name == name)
        for name in ("remit_can_i", "remit_request_access")
    )
    assert can_i.annotations is not None
    assert can_i.annotations.read_only_hint is True
    assert request.annotations is not None
    assert request.annotations.read_only_hint is False
    assert can_i.input_schema["required"] == ["tool"]
    assert set(request.input_schema["properties"]) == {"tool", "arguments", "reason"}


@ERAS
async def test_the_answers_are_results_with_text_and_structure(
    make_path: MakePath, mode: str
) -> None:
    async with door(make_path, HEAD) as url, client(url, mode) as c:
        asked = await c.call_tool("remit_can_i", {"tool": "act", "arguments": {"count": 2}})
        filed = await c.call_tool("remit_request_access", {"tool": "act", "reason": "please"})
        wrong = await c.call_tool("remit_can_i", {"arguments": {}})
    assert not asked.is_error
    assert asked.structured_content is not None
    assert asked.structured_content["decision"] == "deny"
    assert isinstance(asked.content[0], types.TextContent)
    assert "not a promise" in asked.content[0].text
    assert asked.meta is not None
    assert asked.meta["dev.remit/decision"]["code"] == "policy_denied"
    assert not filed.is_error
    assert filed.structured_content is not None
    assert filed.structured_content["filed"] is True
    assert wrong.is_error
    assert wrong.structured_content is not None
    assert wrong.structured_content["decision"]["code"] == "invalid_arguments"


@pytest.mark.threat("T-03")
@ERAS
async def test_a_question_about_a_hidden_tool_is_a_call_to_none(
    make_path: MakePath, mode: str
) -> None:
    asked: list[tuple[int, str, Any]] = []
    async with door(make_path, ALLOW) as url, client(url, mode) as c:
        for name, arguments in (
            ("hidden", {}),
            ("remit_can_i", {"tool": "hidden"}),
            ("remit_request_access", {"tool": "hidden", "reason": "please"}),
        ):
            with pytest.raises(MCPError) as caught:
                await c.call_tool(name, arguments)
            error = caught.value.error
            asked.append((error.code, error.message, error.data))
    assert asked == [asked[0]] * 3
    assert asked[0][:2] == (-32602, "Unknown tool: hidden")


@pytest.mark.threat("T-03")
async def test_the_bytes_are_those_of_a_call(make_path: MakePath) -> None:
    async with door(make_path, ALLOW) as url:
        called = await post(url, call_body("hidden"), {})
        absent = await post(url, call_body("absent"), {})
        about = [
            await post(url, call_body("remit_can_i", {"tool": name}), {})
            for name in ("hidden", "absent")
        ]
    assert [reply.content for reply in about] == [called.content, absent.content]
    assert {reply.status_code for reply in about} == {called.status_code} == {400}
    assert b"Unknown tool: hidden" in called.content


async def test_no_tool_of_a_catalog_can_stand_in_their_place(make_path: MakePath) -> None:
    with pytest.raises(Exception, match="gateway's own"):
        tool("remit_can_i")
    async with door(make_path, ALLOW, questions_per_minute=0) as url, client(url, MODERN) as c:
        with pytest.raises(MCPError) as caught:
            await c.call_tool("remit_can_i", {"tool": "act"})
    assert caught.value.error.message == "Unknown tool: remit_can_i"
