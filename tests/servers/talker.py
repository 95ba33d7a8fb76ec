"""An MCP server of nothing but the standard library; it says of its tools what a file says.

Arguments: the file, a JSON list of tools. It shakes hands (2025-11-25) and gives arguments back.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def answer(message: dict[str, Any], tools: list[dict[str, Any]]) -> dict[str, Any]:
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        info = {"name": "talker", "version": "1"}
        version = params["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": tools}
    if method == "tools/call":
        said = json.dumps(params["arguments"], sort_keys=True)
        return {
            "content": [{"type": "text", "text": f"{params['name']} {said}"}],
            "structuredContent": params["arguments"],
        }
    raise LookupError


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        tools = json.load(file)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        told: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            told["result"] = answer(message, tools)
        except LookupError:
            told["error"] = {"code": -32601, "message": "no such method"}
        print(json.dumps(told), flush=True)


main()
