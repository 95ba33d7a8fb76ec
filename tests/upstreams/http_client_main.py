"""Remit's side towards servers over HTTP, as the client that the official suite starts.

The suite gives the url of its own server as the last argument, and says in the environment which
scenario it is and, of some, which calls to make.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from remit.upstreams.http_asking import PooledServers
from tests.upstreams.http_asked import call, spec_of

_EXAMPLES: dict[str, Any] = {"number": 2, "integer": 2, "string": "us-west1", "boolean": True}


def arguments_for(item: dict[str, Any]) -> dict[str, Any]:
    """Something for each argument that the tool wants."""
    schema = item.get("inputSchema", {})
    kinds = schema.get("properties", {})
    wanted = schema.get("required", [])
    return {name: _EXAMPLES.get(kinds.get(name, {}).get("type")) for name in wanted}


def schema_back(items: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The call that gives a tool's schema back to the server as it came."""
    (shown,) = [item for name, item in items.items() if name != "json_schema_echo"]
    return [{"name": "json_schema_echo", "arguments": {"schema": shown["inputSchema"]}}]


async def main(url: str, scenario: str, context: dict[str, Any]) -> None:
    """List the tools, and call those that the scenario is about, or all."""
    servers = PooledServers()
    try:
        found = await servers.list_tools("suite", url, None, within_s=60)
        items = {str(item["name"]): item for item in found}
        calls = context.get("toolCalls")
        if scenario == "json-schema-ref-no-deref":
            calls = []
        elif scenario == "json-schema-2020-12-preservation":
            calls = schema_back(items)
        elif calls is None:
            calls = [{"name": n, "arguments": arguments_for(i)} for n, i in items.items()]
        for each in calls:
            spec = spec_of(url, items[each["name"]], each["arguments"], server="suite")
            await call(servers, spec, within_s=60)
    finally:
        await servers.aclose()


if __name__ == "__main__":
    asyncio.run(
        main(
            sys.argv[1],
            os.environ.get("MCP_CONFORMANCE_SCENARIO", ""),
            json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")),
        )
    )
