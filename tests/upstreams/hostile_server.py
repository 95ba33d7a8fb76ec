"""A small MCP server on stdio that lies in the one way its argument names; no package needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

LIE = sys.argv[1]
OUT = sys.stdout.buffer


def raw(data: bytes) -> None:
    """These bytes, at once."""
    OUT.write(data)
    OUT.flush()


def say(**message: Any) -> None:
    """One JSON-RPC message."""
    raw(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def hear() -> dict[str, Any]:
    """The next message of the client."""
    text = sys.stdin.readline()
    if not text:
        sys.exit(0)
    message: dict[str, Any] = json.loads(text)
    return message


def for_ever(data: bytes) -> None:
    """Until nobody reads any more."""
    try:
        while True:
            raw(data)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def end_inside(number: int) -> None:
    """Half an answer."""
    raw(b'{"jsonrpc":"2.0","id":%d,"res' % number)
    sys.exit(0)


MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
NOTE = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}\n'
LIES: dict[str, Callable[[int], None]] = {
    "not json": lambda n: raw(b"Listening on stdio...\n"),
    "duplicate key": lambda n: raw(b'{"jsonrpc":"2.0","id":%d,"result":{"a":1,"a":2}}\n' % n),
    "nested": lambda n: raw(b'{"jsonrpc":"2.0","id":%d,"result":{"a":' % n + b"[" * 99999 + b"\n"),
    "not utf-8": lambda n: raw(b'{"jsonrpc":"2.0","id":%d,"result":{"a":"\xff"}}\n' % n),
    "null": lambda n: raw(b"null\n"),
    "many values": lambda n: raw(b'{"id":%d,"result":{"a":[' % n + b"[]," * 60_000 + b"0]}}\n"),
    "batch": lambda n: raw(b'[{"jsonrpc":"2.0","id":%d,"result":{}}]\n' % n),
    "no version": lambda n: raw(b'{"id":%d,"result":{}}\n' % n),
    "long line": lambda n: for_ever(b"x" * 65536),
    "unknown id": lambda n: say(id=n + 1000, result={}),
    "no id": lambda n: say(error={"code": -32700, "message": "what"}),
    "id as text": lambda n: say(id=str(n), result={}),
    "id true": lambda n: say(id=True, result={}),
    "both": lambda n: say(id=n, result={}, error={"code": 1, "message": "x"}),
    "neither": lambda n: say(id=n),
    "result no object": lambda n: say(id=n, result=[1]),
    "error no object": lambda n: say(id=n, error="bad"),
    "method no text": lambda n: say(id=n, method=3),
    "request id an object": lambda n: say(id={}, method="ping"),
    "notes for ever": lambda n: for_ever(NOTE),
    "pings for ever": lambda n: for_ever(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'),
    "empty lines for ever": lambda n: for_ever(b"\n" * 4096),
    "silent": lambda n: None,
    "ends": lambda n: sys.exit(0),
    "ends inside": end_inside,
}


def ask_back(number: int) -> None:
    """Ask the client for everything, and give its answers as the result."""
    asked = ("ping", "sampling/createMessage", "roots/list", "elicitation/create", "x/y")
    for method in asked:
        say(id=f"mine {method}", method=method, params={})
    answers = [hear() for _ in asked]
    say(id=number, result={"structuredContent": {"answers": answers}, "content": []})


def ping_much(number: int) -> None:
    """A thousand questions in one write, and only then an ear for the answers."""
    ping = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n'
    raw(b"".join(ping % each for each in range(1000)))
    answers = [hear()["id"] for _ in range(1000)]
    say(id=number, result={"structuredContent": {"answers": answers}, "content": []})


def listed(message: dict[str, Any]) -> dict[str, Any]:
    """A list of tools that is wrong in the way named."""
    cursor = message["params"].get("cursor", "0")
    fresh = {"name": f"tool{cursor}", "inputSchema": {}}
    following = str(int(cursor) + 1)
    wrong: dict[str, dict[str, Any]] = {
        "same cursor": {"tools": [fresh] if cursor == "0" else [], "nextCursor": "1"},
        "no end": {"tools": [fresh], "nextCursor": following},
        "many": {"tools": [{"name": f"{cursor}.{n}"} for n in range(60)], "nextCursor": following},
        "heavy": {"tools": [{**fresh, "d": "x" * 50_000}], "nextCursor": following},
        "cursor no text": {"tools": [], "nextCursor": 7},
        "long cursor": {"tools": [], "nextCursor": "1" * 5000},
        "twice one name": {"tools": [fresh, fresh]},
        "no name": {"tools": [{}]},
        "no list": {"tools": "none"},
    }
    return wrong.get(LIE, {"tools": [fresh]})


def opened(message: dict[str, Any]) -> bool:
    """Answer what opens a conversation; whether it did."""
    number = message.get("id")
    if message["method"] == "server/discover":
        if LIE == "ends when discovered":
            sys.exit(0)
        if LIE in ("mute when discovered", "slow to wake"):
            return True
        if LIE == "speaks only the future":
            data = {"supported": ["2099-01-01"], "requested": "2026-07-28"}
            say(id=number, error={"code": -32022, "message": "no", "data": data})
        elif LIE.endswith("in the handshake"):
            say(id=number, error={"code": -32601, "message": "no"})
        elif LIE == "discovers nothing":
            say(id=number, result={})
        else:
            say(id=LIE == "id true when discovered" or number, result=MODERN)
        return True
    if message["method"] == "initialize" and LIE == "slow to wake":
        say(id=number, error={"code": -32600, "message": "no handshake here"})
        say(id=1, result=MODERN)
        return True
    if message["method"] == "initialize":
        wanted = message["params"]["protocolVersion"]
        answered = "1999-01-01" if LIE == "odd revision in the handshake" else wanted
        say(id=number, result={"protocolVersion": answered, "capabilities": {}})
        return True
    return str(message["method"]).startswith("notifications/")


def main() -> None:
    """Open properly, then lie at the first call or list."""
    while True:
        message = hear()
        if opened(message):
            continue
        number = message["id"]
        if message["method"] == "tools/list":
            say(id=number, result=listed(message))
        elif LIE == "asks back":
            ask_back(number)
        elif LIE == "many pings":
            ping_much(number)
        elif LIE == "twice":
            say(id=number, result={"content": []})
            say(id=number, result={"content": []})
        elif LIE == "late":
            if message["params"]["name"] == "slow":
                told = hear()
                assert told["method"] == "notifications/cancelled"
                assert told["params"] == {"requestId": number}
                say(id=number, result={"content": []})
            else:
                say(id=number, result={"content": [], "structuredContent": message["params"]})
        elif LIE == "batch in the handshake":
            LIES["batch"](number)
        elif LIE in LIES:
            LIES[LIE](number)
        else:
            say(id=number, result={"content": [], "structuredContent": {"asked": message}})


main()
