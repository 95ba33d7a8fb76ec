"""Run by the interpreter of .venv-bench-fastmcp: FastMCP's proxy in front of one server.

`shipped` is `create_proxy(url)`, as its documentation shows it, with a client for each request.
`shared` gives it one client that is connected once.
"""

from __future__ import annotations

import asyncio
import sys

from fastmcp import Client  # type: ignore[import-not-found]
from fastmcp.server import create_proxy  # type: ignore[import-not-found]
from fastmcp.server.providers.proxy import FastMCPProxy  # type: ignore[import-not-found]


async def serve(how: str, url: str, port: int) -> None:
    """Serve /mcp/ on a port of 127.0.0.1."""
    if how == "shipped":
        await run(create_proxy(url), port)
        return
    async with Client(url, mode="2026-07-28") as client:
        await run(FastMCPProxy(client_factory=lambda: client), port)


async def run(proxy: FastMCPProxy, port: int) -> None:
    """Without sessions and with answers in JSON, as the other fronts."""
    await proxy.run_http_async(
        show_banner=False,
        host="127.0.0.1",
        port=port,
        path="/mcp",
        log_level="error",
        json_response=True,
        stateless_http=True,
    )


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
