"""Many MCP servers of revision 2026-07-28 in one process, as thin as they come.

`/NAME/mcp` is a server for every NAME, with the number of tools that it is started with. A POST to
`/stick/NAME` has that server never answer anything again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from functools import cache
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

REVISION = "2026-07-28"
KIND = {"title": "Kind of thing", "description": "What to look for.", "enum": ["a", "b", "c"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 200},
        "kind": KIND,
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "labels": {"type": "array", "items": {"type": "string"}},
        "since": {"type": "string", "description": "Date and time, RFC 3339."},
    },
    "required": ["text"],
}


def tool_name(number: int) -> str:
    return f"t{number:03d}"


@cache
def listed(name: str, tools: int) -> list[dict[str, Any]]:
    return [
        {
            "name": tool_name(number),
            "description": f"Finds things of the kind {number} that {name} holds, newest first.",
            "inputSchema": SCHEMA,
            "annotations": {"readOnlyHint": True},
        }
        for number in range(tools)
    ]


class Servers:
    """All of them; an ASGI application."""

    def __init__(self, tools: int) -> None:
        self._tools = tools
        self._stuck: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        first, second = scope["path"].strip("/").split("/")
        if first == "stick":
            self._stuck.add(second)
            await _answer(send, {})
        elif first in self._stuck:
            await asyncio.Event().wait()
        else:
            await _answer(send, self._said(first, json.loads(body)))

    def _said(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {"resultType": "complete"}
        if asked["method"] == "server/discover":
            result |= {
                "supportedVersions": [REVISION],
                "capabilities": {"tools": {}},
                "ttlMs": 0,
                "cacheScope": "private",
            }
        elif asked["method"] == "tools/list":
            result |= {"tools": listed(name, self._tools), "ttlMs": 0, "cacheScope": "private"}
        else:
            text = asked["params"]["arguments"]["text"]
            result |= {"content": [{"type": "text", "text": text}]}
        return {"jsonrpc": "2.0", "id": asked["id"], "result": result}


async def _answer(send: Send, said: dict[str, Any]) -> None:
    body = json.dumps(said).encode()
    heads = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": heads})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tools", type=int, required=True)
    chosen = parser.parse_args()
    uvicorn.run(
        Servers(chosen.tools),
        host="127.0.0.1",
        port=chosen.port,
        log_level="error",
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http="httptools",
        timeout_graceful_shutdown=1,
    )
