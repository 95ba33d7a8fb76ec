"""An MCP server on stdio, made with the `mcp` package; it speaks every revision.

Arguments: how many tools it lists on a page.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

NAMES = ("echo", "report", "wait", "capabilities", "broken")
PAGE = int(sys.argv[1])
STARTED: set[str] = set()


async def list_tools(_: Any, params: Any) -> types.ListToolsResult:
    """A page of tools; the cursor is the place of the next one."""
    begin = int(params.cursor) if params is not None and params.cursor else 0
    end = begin + PAGE
    tools = [types.Tool(name=n, input_schema={"type": "object"}) for n in NAMES[begin:end]]
    return types.ListToolsResult(tools=tools, next_cursor=str(end) if end < len(NAMES) else None)


async def call_tool(ctx: Any, params: Any) -> types.CallToolResult:
    """Each tool says what the test wants to know, as structured content."""
    if params.name == "wait":
        await ctx.session.report_progress(1, 2, "waiting")
        await anyio.sleep_forever()
    if params.name == "broken":
        raise RuntimeError("broken")
    if params.name == "report":
        for step in (1, 2, 3):
            await ctx.session.report_progress(step, 3, f"step {step}")
    shown: dict[str, Any] = dict(params.arguments or {})
    if params.name == "capabilities":
        declared = ctx.session.client_params
        shown = {"declared": declared.capabilities.model_dump(exclude_none=True, by_alias=True)}
    return types.CallToolResult(
        content=[types.TextContent(type="text", text="done")], structured_content=shown
    )


async def main() -> None:
    """Serve until stdin ends."""
    server: Server[Any] = Server("reference", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
