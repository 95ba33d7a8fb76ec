"""Requests of several callers to the MCP door, in every revision: well formed, odd and broken.

Each caller says its own marker and no other's. Handles that any of them was given (sessions,
cursors, approvals, states, tasks) are used by all of them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.fuzz.odd import TEXTS, changed, damaged, deep, encoded, value
from tests.fuzz.speaking import Answered, Asked

MODERN = "2026-07-28"
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_META = "io.modelcontextprotocol/"
_IDS = re.compile(r"\b[a-z]{2,8}_[0-9A-Za-z]{20,40}\b")
_METHODS = (
    *["tools/call"] * 12, "resources/read", "prompts/get", "completion/complete", "tools/list", "server/discover", "initialize", "ping",
    "subscriptions/listen", "tasks/get", "tasks/update", "tasks/cancel", "tasks/result",
    "resources/list", "resources/read", "resources/templates/list", "resources/subscribe",
    "prompts/list", "prompts/get", "completion/complete", "logging/setLevel", "roots/list",
    "sampling/createMessage", "elicitation/create", "notifications/cancelled",
    "notifications/initialized", "notifications/progress", "no/such", "rpc.discover",
)  # fmt: skip
_TOOLS = (
    "crm_find", "crm_find", "crm_find", "crm_ask", "crm_ask", "crm_act", "remit_can_i", "remit_request_access",
    "remit_status", "remit_wait", "crm_hidden", "find",
)  # fmt: skip


@dataclass
class Speaker:
    """A caller: its key, and what nobody else may ever be told."""

    name: str
    key: str
    marker: str


@dataclass
class Asking:
    """Makes requests, and learns handles from the answers."""

    random: Random
    speakers: list[Speaker]
    handles: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    count: int = 0

    def next(self) -> Asked:
        """One more request."""
        random = self.random
        speaker = random.choice(self.speakers)
        if random.random() < 0.03:
            return self._noise(speaker)
        asked = self._modern(speaker) if random.random() < 0.55 else self._legacy(speaker)
        if random.random() < 0.15:
            self._change_head(asked)
        if random.random() < 0.1:
            asked.body = damaged(random, asked.body, random.randrange(1, 3))
        asked.chunked = random.random() < 0.1
        if random.random() < 0.06:
            asked.leaves = random.randrange(len(asked.wire()))
        asked.wanted = wanted(asked.body)
        return asked

    def learn(self, asked: Asked, answered: Answered) -> None:
        """Keep what this answer gave away."""
        if session := answered.headers.get("mcp-session-id"):
            self._keep("session", session)
            self._keep(f"session of {asked.caller}", session)
        for message in answered.messages:
            result = message.get("result") if isinstance(message, dict) else None
            if isinstance(result, dict):
                for key in ("nextCursor", "requestState", "taskId"):
                    if isinstance(result.get(key), str):
                        self._keep(key, result[key])
        for found in _IDS.findall(answered.raw.decode("utf-8", "replace")):
            self._keep("id", found)

    def _keep(self, kind: str, handle: str) -> None:
        known = self.handles[kind]
        if handle not in known:
            known.append(handle)
            del known[:-40]

    def _handle(self, kind: str) -> str:
        known = self.handles[kind]
        if not known or self.random.random() < 0.1:
            return self.random.choice(TEXTS)
        handle = self.random.choice(known)
        return handle if self.random.random() < 0.8 else handle[:-1] + self.random.choice("aZ0_")

    def _id(self) -> Any:
        self.count += 1
        random = self.random
        odd = random.choice((7, "7", "_GET_stream", value(random), "x" * 300))
        return self.count if random.random() < 0.7 else odd

    def _params(self, speaker: Speaker, method: str) -> dict[str, Any]:
        random = self.random
        if method == "tools/call":
            words = {"who": speaker.marker, "id": self._handle("id"), "call_id": self._handle("id")}
            how = {"how": random.choice(("plain", "plain", "odd", "ask", "ask"))}
            words["approval_id"] = words["approval"] = self._handle("id")
            given = {k: v for k, v in words.items() if random.random() < 0.6} | how
            params: dict[str, Any] = {"name": random.choice(_TOOLS), "arguments": given}
            if random.random() < 0.15:
                params["requestState"] = self._handle("requestState")
                params["inputResponses"] = {"a": {"action": "accept", "content": {"x": 1}}}
            if random.random() < 0.1:
                params["task"] = {"ttl": random.choice((1, 60_000, -1))}
            return params
        if method == "subscriptions/listen":
            return {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a:b"]}}
        if method == "notifications/cancelled":
            return {"requestId": random.choice((self.count, 7, "7", value(random)))}
        if method.startswith("tasks/"):
            return {"taskId": self._handle("taskId")}
        if method.startswith("resources/"):
            uris = (
                "file:///a",
                f"crm://{speaker.marker}",
                "file:///etc/passwd",
                self._handle("id"),
            )
            return {"uri": random.choice(uris)}
        if method == "prompts/get":
            return {"name": "crm_greet", "arguments": {"who": speaker.marker}}
        if method == "completion/complete":
            ref = {"type": "ref/prompt", "name": "crm_greet"}
            return {"ref": ref, "argument": {"name": "who", "value": speaker.marker}}
        return {"cursor": self._handle("nextCursor")} if random.random() < 0.3 else {}

    def _message(self, speaker: Speaker, method: str) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "method": method, "params": self._params(speaker, method)}
        if not method.startswith("notifications/") or self.random.random() < 0.1:
            message["id"] = self._id()
        return message

    def _body(self, message: dict[str, Any]) -> bytes:
        random = self.random
        chance = random.random()
        if chance < 0.25:
            message = changed(random, message, random.randrange(1, 4))
        if chance > 0.98:
            return encoded([message, message])
        if chance > 0.97:
            return encoded(message).replace(b"{", b'{"x":' + deep(200).encode() + b",", 1)
        if chance > 0.965:
            return encoded(message).replace(b"{", b'{"x":"' + b"y" * 1_100_000 + b'",', 1)
        if chance > 0.955:
            return encoded(message).replace(b"{", b'{"method":"tools/list","id":0,', 1)
        return encoded(message)

    def _modern(self, speaker: Speaker) -> Asked:
        random = self.random
        method = random.choice(_METHODS)
        message = self._message(speaker, method)
        able: Any = random.choice(
            ({}, {"elicitation": {"form": {}, "url": {}}}, {"extensions": {}})
        )
        meta: dict[str, Any] = {
            f"{_META}protocolVersion": MODERN,
            f"{_META}clientCapabilities": able,
            f"{_META}clientInfo": {"name": speaker.marker, "version": "1"},
        }
        if random.random() < 0.3:
            meta["progressToken"] = random.choice((1, "t", value(random)))
        if random.random() < 0.2:
            key = random.choice(("traceparent", "baggage", "dev.remit/idempotency-key"))
            meta[key] = random.choice((speaker.marker, value(random)))
        message["params"]["_meta"] = meta
        head = [*self._head(speaker, MODERN), ("Mcp-Method", method)]
        if "name" in message["params"]:
            head.append(("Mcp-Name", str(message["params"]["name"])))
        for key in ("taskId", "uri"):
            if key in message["params"]:
                head.append(("Mcp-Name", _header(message["params"][key])))
        body = self._body(message)
        return Asked(speaker.name, head, body, endless=method == "subscriptions/listen")

    def _legacy(self, speaker: Speaker) -> Asked:
        random = self.random
        version = random.choice(HANDSHAKE)
        method = random.choice(
            (*_METHODS, "initialize", "initialize", "tools/call", "GET", "DELETE")
        )
        head = self._head(speaker, version)
        whose = f"session of {speaker.name}" if random.random() < 0.8 else "session"
        if method != "initialize" or random.random() < 0.1:
            head.append(("Mcp-Session-Id", _header(self._handle(whose))))
        if method in ("GET", "DELETE"):
            return Asked(speaker.name, head, b"", method, endless=method == "GET")
        message = self._message(speaker, method)
        if method == "initialize":
            client = {"name": speaker.marker, "version": "1"}
            able: Any = {"elicitation": {}, "roots": {}} if random.random() < 0.5 else {}
            opening = {"protocolVersion": version, "capabilities": able, "clientInfo": client}
            message["params"] = opening
        elif random.random() < 0.2:
            message["params"]["_meta"] = {"progressToken": random.choice((1, "t", value(random)))}
        elif random.random() < 0.05:
            message = {"jsonrpc": "2.0", "id": random.choice((0, 1, "a")), "result": value(random)}
        return Asked(speaker.name, head, self._body(message))

    def _head(self, speaker: Speaker, version: str) -> list[tuple[str, str]]:
        return [
            ("Host", "127.0.0.1"),
            ("Authorization", f"Bearer {speaker.key}"),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("MCP-Protocol-Version", version),
        ]

    def _change_head(self, asked: Asked) -> None:
        random = self.random
        asked.strange = True
        at = random.randrange(len(asked.head))
        name, text = asked.head[at]
        act = random.randrange(6)
        if act == 0:
            del asked.head[at]
        elif act == 1:
            asked.head.append((name, text))
        elif act == 2:
            others = (MODERN, *HANDSHAKE, "*/*", "text/html", "application/json; charset=utf-16")
            asked.head.append((name, random.choice(others)))
        elif act == 3:
            asked.head[at] = (name, _header(random.choice(TEXTS)))
        elif act == 4:
            more = (
                "Origin",
                "X-Forwarded-For",
                "Idempotency-Key",
                "Last-Event-ID",
                "Mcp-Param-Who",
            )
            asked.head.append((random.choice(more), _header(random.choice(TEXTS))))
        else:
            asked.head[at] = (name.upper(), f" {text}\t")

    def _noise(self, speaker: Speaker) -> Asked:
        """Something that is hardly a request."""
        random = self.random
        method = random.choice(("PUT", "HEAD", "OPTIONS", "GET", "POST", "TRACE", "X" * 40))
        path = random.choice(
            ("/mcp", "/mcp/", "/", "//mcp", "/mcp?x=%zz", "/%2e%2e/mcp", "/metrics")
        )
        head = self._head(speaker, random.choice((MODERN, *HANDSHAKE)))
        body = random.choice((b"", b"\xff\xfe{}", encoded(value(random)), random.randbytes(50)))
        return Asked(speaker.name, head, body, method, path, endless=True, strange=True)


def wanted(body: bytes) -> Any:
    """The id that has to be answered once if the request is taken; None where there is none."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = message.get("id") if isinstance(message, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _header(text: str) -> str:
    return "".join(each for each in text if each.isprintable() and not "\ud800" <= each <= "\udfff")
