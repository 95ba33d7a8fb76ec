"""The reference everything-server: every server feature that the official suite asks for.

    python -m tests.upstream_servers.everything stdio
    python -m tests.upstream_servers.everything http FD [json]

It speaks each revision that the `mcp` package speaks, and needs nothing but that package. FD is an
inherited socket that listens already: whoever connects is served, however early. With `json`,
answers are JSON and no sessions are kept.
"""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.conformance.contents import RESULTS, SCHEMA_2020_12
from tests.upstream_servers import asking, offered

# The suite's older revision wants logging and sampling, which the newest deprecates.
warnings.simplefilter("ignore", MCPDeprecationWarning)

NAME = "everything"
Result = types.CallToolResult | types.InputRequiredResult
Work = Callable[[Any, Any], Awaitable[Result]]
BUS = InMemorySubscriptionBus()
PAUSE_S = 0.05


def _fixed(result: Mapping[str, Any]) -> Work:
    made = types.CallToolResult.model_validate(result)

    async def work(_: Any, __: Any) -> Result:
        return made

    return work


async def _logs(ctx: Any, _: Any) -> Result:
    for line in ("started", "processing data", "completed"):
        await ctx.session.send_log_message(
            "info", f"Tool execution {line}", related_request_id=ctx.request_id
        )
        await anyio.sleep(PAUSE_S)
    return asking.text("logged, in three steps")


async def _reports(ctx: Any, _: Any) -> Result:
    for step in (0, 50, 100):
        await ctx.session.report_progress(step, 100)
        await anyio.sleep(PAUSE_S)
    return asking.text("done, in three steps")


async def _shows(_: Any, params: Any) -> Result:
    shown: dict[str, Any] = dict(params.arguments or {})
    return types.CallToolResult(
        content=[types.TextContent(type="text", text="seen")], structured_content=shown
    )


async def _tools_change(ctx: Any, _: Any) -> Result:
    await BUS.publish(ToolsListChanged())
    await ctx.session.send_tool_list_changed()
    return asking.text("told")


async def _prompts_change(ctx: Any, _: Any) -> Result:
    await BUS.publish(PromptsListChanged())
    await ctx.session.send_prompt_list_changed()
    return asking.text("told")


def _wants(**strings: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {k: {"type": "string", "description": v} for k, v in strings.items()},
        "required": sorted(strings),
    }


NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
MIRRORED: dict[str, Any] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
}
WORK: dict[str, tuple[Work, dict[str, Any]]] = {
    **{name: (_fixed(result), NOTHING) for name, result in RESULTS.items()},
    "test_tool_with_logging": (_logs, NOTHING),
    "test_logging_tool": (_logs, NOTHING),
    "test_tool_with_progress": (_reports, NOTHING),
    "json_schema_2020_12_tool": (_shows, SCHEMA_2020_12),
    "test_custom_headers": (_shows, MIRRORED),
    "test_trigger_tool_change": (_tools_change, NOTHING),
    "test_trigger_prompt_change": (_prompts_change, NOTHING),
    "test_elicitation": (asking.elicits, _wants(message="What to show the user.")),
    "test_sampling": (asking.samples, _wants(prompt="What to ask the model.")),
    **{name: (work, NOTHING) for name, work in asking.WITHOUT_ARGUMENTS.items()},
}


async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
    """All tools, by name, on one page."""
    return types.ListToolsResult(
        tools=[
            types.Tool(
                name=name, description=f"What the suite expects of {name}.", input_schema=schema
            )
            for name, (_, schema) in sorted(WORK.items())
        ]
    )


async def call_tool(ctx: Any, params: Any) -> Result:
    """What is declared for the tool of that name."""
    if params.name not in WORK:
        raise asking.invalid(f"Unknown tool: {params.name}")
    return await WORK[params.name][0](ctx, params)


def made() -> Server[Any]:
    """The server, its transport not chosen."""
    server: Server[Any] = Server(
        NAME,
        version="1",
        cache_hints={method: CacheHint(ttl_ms=60_000) for method in offered.CACHED},
        get_tool_input_schema=lambda name: WORK[name][1] if name in WORK else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_subscriptions_listen=ListenHandler(BUS),
        **offered.HANDLERS,
    )
    server.middleware.append(
        RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME)
    )
    return server


async def over_stdio() -> None:
    """Serve until stdin ends."""
    server = made()
    changes = NotificationOptions(tools_changed=True, prompts_changed=True, resources_changed=True)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options(changes))


def over_http(listener: socket.socket, *, json_response: bool) -> None:
    """Serve /mcp on a socket that listens, until ended."""
    app = made().streamable_http_app(json_response=json_response, stateless_http=json_response)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        anyio.run(over_stdio)
    else:
        over_http(socket.socket(fileno=int(sys.argv[2])), json_response="json" in sys.argv[3:])
