"""MCP servers over HTTP, made with the `mcp` package, in one process; prints its port.

`/REVISION/json|stream/stateful|stateless` is a server of one revision: those of the handshake
refuse everything modern, and shake hands on their revision only. `/events` is the transport of
2024-11-05. `/seen` tells what every server was sent.
"""

from __future__ import annotations

import json
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

MODERN = "2026-07-28"
REVISIONS = ("2025-03-26", "2025-06-18", "2025-11-25", MODERN)
SEEN: list[dict[str, Any]] = []
TOOLS = [
    types.Tool(
        name="echo",
        input_schema={
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        },
    ),
    types.Tool(name="report", input_schema={"type": "object"}),
    types.Tool(name="wait", input_schema={"type": "object"}),
    types.Tool(name="broken", input_schema={"type": "object"}),
]


async def list_tools(_: Any, params: Any) -> types.ListToolsResult:
    """Two pages."""
    if params is not None and params.cursor:
        return types.ListToolsResult(tools=TOOLS[2:])
    return types.ListToolsResult(tools=TOOLS[:2], next_cursor="2")


async def call_tool(ctx: Any, params: Any) -> types.CallToolResult:
    """What the test wants to know, as structured content."""
    if params.name == "wait":
        SEEN.append({"waiting": True})
        try:
            await anyio.sleep_forever()
        finally:
            SEEN.append({"waiting": False})
    if params.name == "broken":
        raise RuntimeError("broken")
    if params.name == "report":
        for step in (1, 2, 3):
            await ctx.session.report_progress(step, 3, f"step {step}")
    return types.CallToolResult(
        content=[types.TextContent(type="text", text="done")],
        structured_content=dict(params.arguments or {}),
    )


def _server() -> Server[Any]:
    return Server("reference", on_list_tools=list_tools, on_call_tool=call_tool)


class OneRevision:
    """Passes on to a server what its revision has."""

    def __init__(self, revision: str, manager: StreamableHTTPSessionManager) -> None:
        self._revision = revision
        self._manager = manager

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        message = json.loads(body) if body else {}
        SEEN.append({"verb": request.method, "headers": dict(request.headers), "body": message})
        if self._revision != MODERN:
            if request.headers.get("mcp-protocol-version") == MODERN:
                await PlainTextResponse("no", status_code=400)(scope, receive, send)
                return
            if message.get("method") == "initialize":
                message["params"]["protocolVersion"] = self._revision
                body = json.dumps(message).encode()
        headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(given, None) or await receive()

        await self._manager.handle_request(scope, again, send)


async def _seen(_: Request) -> Response:
    told = list(SEEN)
    SEEN.clear()
    return JSONResponse(told)


def _app() -> Starlette:
    managers = []
    routes: list[Any] = [Route("/seen", _seen)]
    for revision in REVISIONS:
        for how in ("json", "stream"):
            for state in ("stateful", "stateless"):
                manager = StreamableHTTPSessionManager(
                    _server(), json_response=how == "json", stateless=state == "stateless"
                )
                managers.append(manager)
                app = OneRevision(revision, manager)
                routes.append(Route(f"/{revision}/{how}/{state}", app))
    events = SseServerTransport("/messages/")

    async def listen(request: Request) -> Response:
        SEEN.append({"verb": request.method, "headers": dict(request.headers), "body": {}})
        async with events.connect_sse(request.scope, request.receive, request._send) as (read, out):
            server = _server()
            await server.run(read, out, server.create_initialization_options())
        return Response()

    routes.append(Route("/events", listen, methods=["GET"]))
    routes.append(Mount("/messages/", app=events.handle_post_message))

    @asynccontextmanager
    async def life(_: Starlette) -> Any:
        async with AsyncExitStack() as stack:
            for manager in managers:
                await stack.enter_async_context(manager.run())
            yield

    return Starlette(routes=routes, lifespan=life)


def main() -> None:
    """Serve until killed."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    print(sock.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(_app(), log_level="error")).run(sockets=[sock])


main()
