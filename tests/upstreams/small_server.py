"""A small MCP server on stdio whose one tool does what it is told; no package needed."""

import http.client
import json
import os
import sys
import time
from typing import Any

TOOL = {"name": "do", "description": "Does it.", "inputSchema": {"type": "object"}}
CALLS: list[Any] = []
HELD: list[bytearray] = []


def say(number: Any, result: Any) -> None:
    """Answer."""
    message = {"jsonrpc": "2.0", "id": number, "result": result}
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def do(number: Any, arguments: Any) -> None:
    """What the arguments say."""
    CALLS.append(arguments)
    what = arguments.get("what")
    if what == "eat":
        while True:
            HELD.append(bytearray(1 << 20))
    if what == "hang":
        time.sleep(600)
    if what == "shut":
        os.close(1)
        time.sleep(600)
    if what == "die":
        sys.stderr.write("going\n")
        os._exit(3)
    if what == "fill":
        say(number, {"content": [{"type": "text", "text": "x" * arguments["size"]}]})
        return
    if what == "reach":
        proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=10)
        try:
            proxy.request("GET", arguments["url"])
            said = proxy.getresponse().read().decode()
        except OSError as fault:
            said = type(fault).__name__
        say(number, {"content": [{"type": "text", "text": said}]})
        return
    told = {"calls": len(CALLS), "environment": sorted(os.environ), "uid": os.getuid()}
    say(number, {"content": [], "structuredContent": told})


def main() -> None:
    """Until nobody asks any more."""
    for line in sys.stdin:
        message = json.loads(line)
        method, number = message["method"], message.get("id")
        if method == "server/discover":
            say(number, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
        elif method == "tools/list":
            say(number, {"tools": [TOOL]})
        elif method == "tools/call":
            do(number, message["params"]["arguments"])


main()
