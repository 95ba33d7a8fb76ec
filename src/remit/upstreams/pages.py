"""Reading the whole list of a server's tools, page by page, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from remit.errors import Code, UpstreamFault
from remit.upstreams.limits import Limits
from remit.upstreams.messages import Reply, invalid


async def every_tool(
    page: Callable[[dict[str, Any]], Awaitable[Reply]], limits: Limits
) -> list[dict[str, Any]]:
    """Every tool, in the server's order, as it sent them, each with a name of its own.

    Args:
        page: asks `tools/list` with these parameters.
        limits: the bounds on time, pages, tools, bytes and cursors.

    Raises:
        UpstreamFault: there is no whole list. Reading a list is no call: `sent` is false.
    """
    try:
        async with asyncio.timeout(limits.list_s):
            return await _pages(page, limits)
    except TimeoutError:
        message = f"the server did not list its tools within {limits.list_s:g} s"
        raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message) from None
    except UpstreamFault as fault:
        raise UpstreamFault(
            fault.code, fault.message, answer=fault.answer, hint=fault.hint
        ) from None


async def _pages(
    page: Callable[[dict[str, Any]], Awaitable[Reply]], limits: Limits
) -> list[dict[str, Any]]:
    tools: dict[str, dict[str, Any]] = {}
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    size = 0
    for _ in range(limits.pages):
        reply = await page(params)
        size += reply.size
        if size > limits.list_bytes:
            raise invalid(f"the server's list of tools is over {limits.list_bytes} bytes")
        _add(tools, reply.result.get("tools"), limits)
        cursor = reply.result.get("nextCursor")
        if cursor is None:
            return list(tools.values())
        if not isinstance(cursor, str) or len(cursor) > limits.cursor_chars:
            raise invalid("the server's list of tools goes on at no proper cursor")
        if cursor in cursors:
            raise invalid("the server's list of tools goes round in a circle")
        cursors.add(cursor)
        params = {"cursor": cursor}
    raise invalid(f"the server's list of tools has more than {limits.pages} pages")


def _add(tools: dict[str, dict[str, Any]], page: Any, limits: Limits) -> None:
    if not isinstance(page, list):
        raise invalid("the server's list of tools is no list")
    if len(tools) + len(page) > limits.tools:
        raise invalid(f"the server lists more than {limits.tools} tools")
    for tool in page:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not name:
            raise invalid("the server lists a tool without a name")
        if name in tools:
            raise invalid("the server lists two tools of one name")
        tools[name] = tool
