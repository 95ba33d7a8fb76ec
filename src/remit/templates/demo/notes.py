"""The demo's MCP server: notes on a board, over standard input and output (MCP 2025-11-25).

It is a server like any that people have: it knows nothing of Remit. Only the standard library.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BOARD = Path("/mnt/board/notes.txt")
READ = "Reads every note on the board."
TOOLS: list[dict[str, Any]] = [
    {"name": "read", "description": READ, "inputSchema": {"type": "object"}},
    {
        "name": "add",
        "description": "Puts a note on the board.",
        "inputSchema": {
            "type": "object",
            "properties": {"note": {"type": "string", "maxLength": 200}},
            "required": ["note"],
        },
    },
]


def call(name: str, arguments: dict[str, Any]) -> str:
    if name == "read":
        return BOARD.read_text()
    with BOARD.open("a") as board:
        board.write(arguments["note"] + "\n")
    return "noted"


def result(message: dict[str, Any]) -> dict[str, Any] | None:
    asked = message.get("params", {})
    if message["method"] == "initialize":
        about = {"name": "notes", "version": "1.0.0"}
        version = asked["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
    if message["method"] == "tools/list":
        return {"tools": TOOLS}
    if message["method"] == "tools/call":
        text = call(asked["name"], asked.get("arguments", {}))
        return {"content": [{"type": "text", "text": text}]}
    return None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        found = result(message)
        error = {"code": -32601, "message": "no such method"}
        body = {"error": error} if found is None else {"result": found}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
