"""Run by the interpreter of .venv-langchain: finds the gateway's tools and calls one."""

import asyncio
import json
import sys

from langchain_mcp_adapters.client import (  # type: ignore[import-not-found]
    MultiServerMCPClient,
)


async def main(url: str, key: str) -> None:
    connection = {
        "transport": "streamable_http",
        "url": url,
        "headers": {"Authorization": f"Bearer {key}"},
    }
    tools = await MultiServerMCPClient({"remit": connection}).get_tools()
    by_name = {tool.name: tool for tool in tools}
    answer = await by_name["test_simple_text"].ainvoke({})
    try:
        refused = await by_name["test_error_handling"].ainvoke({})
    except Exception as exc:  # how an error is told depends on the adapter's version
        refused = exc
    said = {"tools": sorted(by_name), "answer": str(answer), "refused": str(refused)}
    print(json.dumps(said))


asyncio.run(main(sys.argv[1], sys.argv[2]))
