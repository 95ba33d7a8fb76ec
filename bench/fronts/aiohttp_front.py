"""Run by the interpreter of .venv-bench-fastmcp: the thinnest front there is.

The `mcp` package's low-level server, which sends each call on by one `aiohttp` request that is made
by hand, over pooled connections. No authentication, policy or record: what a hop costs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp  # type: ignore[import-not-found]
import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Mount

HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class Front:
    """Sends calls on to one URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Any = None

    def app(self) -> Starlette:
        """The front as an application."""
        server: Server[Any] = Server(
            "front",
            on_list_tools=self._list,
            on_call_tool=self._call,
            get_tool_input_schema=lambda name: SCHEMA if name == "echo" else None,
        )
        manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with manager.run(), aiohttp.ClientSession() as self._session:
                yield

        return Starlette(routes=[Mount("/mcp", app=manager.handle_request)], lifespan=lifespan)

    async def _list(self, _ctx: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema=SCHEMA)])

    async def _call(self, _ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        asked = {"name": params.name, "arguments": params.arguments, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
        headers = {**HEADERS, "Mcp-Name": params.name}
        async with self._session.post(
            self._url, data=json.dumps(body).encode(), headers=headers
        ) as answer:
            return types.CallToolResult.model_validate((await answer.json())["result"])


if __name__ == "__main__":
    uvicorn.run(
        Front(sys.argv[1]).app(), host="127.0.0.1", port=int(sys.argv[2]), log_level="error"
    )
