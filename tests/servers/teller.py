"""A server over standard input and output that tells of changes; only the standard library.

`teller.py FOLDER`: it lists the resources of `FOLDER/uris.json`, and tells that the list has changed
when the file has; it tells of a resource that is subscribed to when the file of that name has changed.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
LATEST = "2025-11-25"


def send(message: dict[str, object]) -> None:
    """One message, as one line."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(name: str) -> str:
    """What is in a file; nothing where there is none."""
    path = FOLDER / name
    return path.read_text() if path.exists() else ""


def result(method: str, params: dict[str, str]) -> dict[str, object] | None:
    """The result of a method; None where it is not known."""
    known: dict[str, dict[str, object]] = {
        "initialize": {
            "protocolVersion": LATEST,
            "serverInfo": {"name": "teller", "version": "1"},
            "capabilities": {"tools": {}, "resources": {"subscribe": True, "listChanged": True}},
        },
        "tools/list": {"tools": []},
        "resources/templates/list": {"resourceTemplates": []},
        "resources/subscribe": {},
        "resources/unsubscribe": {},
    }
    if method == "resources/list":
        return {"resources": [{"uri": uri, "name": uri} for uri in json.loads(text("uris.json"))]}
    return known.get(method)


def main() -> None:
    """Answer and tell until the input ends."""
    subscribed: dict[str, str] = {}
    listed, held = text("uris.json"), b""
    while True:
        if not select.select([0], [], [], 0.05)[0]:
            if text("uris.json") != listed:
                listed = text("uris.json")
                send({"method": "notifications/resources/list_changed"})
            for uri, seen in list(subscribed.items()):
                now = text(uri.removeprefix("note://"))
                if now != seen:
                    subscribed[uri] = now
                    send({"method": "notifications/resources/updated", "params": {"uri": uri}})
            continue
        chunk = os.read(0, 65_536)
        if not chunk:
            return
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            params = message.get("params", {})
            if message.get("method") == "resources/subscribe":
                subscribed[params["uri"]] = text(params["uri"].removeprefix("note://"))
            if "id" not in message:
                continue
            found = result(message["method"], params)
            error = {"code": -32601, "message": "Method not found"}
            send(
                {"id": message["id"], **({"error": error} if found is None else {"result": found})}
            )


main()
