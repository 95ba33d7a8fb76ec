"""What is checked of an HTTP request before anything in it is believed.

Each function lets the request through or raises `TurnedAway`, which says the whole answer: the
HTTP status, the JSON-RPC code, and our own code. Nothing here reads a credential.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from remit.canonical import parse
from remit.doors.settings import DoorSettings
from remit.errors import Code, InputError, Refused

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# Our own JSON-RPC codes lie outside the range that JSON-RPC and MCP reserve.
UNAUTHENTICATED = 4010
NOT_ALLOWED_HERE = 4032
TOO_LARGE = 4130
TOO_MANY = 4290
UNAVAILABLE = 5030

MAX_DEPTH = 64
MAX_ID = 256
PEEK_BYTES = 64 * 1024
"""Longest body that is read only to find out which request an answer is for."""
PEEK_SECONDS = 2.0

Fields = Mapping[bytes, str]

_ONCE = frozenset({
    b"host", b"origin", b"authorization", b"content-type", b"content-length",
    b"mcp-session-id", b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"idempotency-key",
})  # fmt: skip
_PORT = re.compile(r"(:[0-9]{1,5})?")


class TurnedAway(Exception):
    """A request that goes no further, with all that its answer says."""

    def __init__(
        self,
        status: int,
        rpc_code: int,
        code: Code,
        message: str,
        *,
        place: str | None = None,
        hint: str | None = None,
        retry_after_ms: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.rpc_code = rpc_code
        self.code = code
        self.message = message
        self.place = place
        self.hint = hint
        self.retry_after_ms = retry_after_ms
        self.headers = tuple(headers)

    def machine(self) -> dict[str, Any]:
        """The part of the answer that is meant for programs."""
        fields = {"place": self.place, "hint": self.hint, "retry_after_ms": self.retry_after_ms}
        return {"code": self.code.value} | {k: v for k, v in fields.items() if v is not None}


def fields(scope: Scope) -> Fields:
    """A request's headers: each that decides something once, and without white space around it.

    White space around a value is no part of it (RFC 9110 §5.5), but not every parser cuts it off:
    after this, the scope too has it cut, and everyone behind the door reads the same.

    Raises:
        TurnedAway: one was sent twice, so that two readers could take a different one.
    """
    trimmed = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
    scope["headers"] = trimmed
    found: dict[bytes, str] = {}
    for name, value in trimmed:
        text = value.decode("latin-1")
        if name not in found:
            found[name] = text
        elif name in _ONCE:
            raise TurnedAway(
                400, INVALID_REQUEST, Code.NOT_SERVED, f"the {name.decode()} header twice"
            )
        else:
            found[name] += f", {text}"
    return found


def source_ip(scope: Scope) -> str:
    """The address at the other end of the connection; never one that a header claims."""
    client = scope.get("client")
    return client[0] if client else "unknown"


# ------------------------------------------------------------------------------- host and origin


def check_host(headers: Fields, settings: DoorSettings) -> None:
    """Against DNS rebinding: the request names one of our own hosts, and its page another of them.

    Raises:
        TurnedAway: 421 for `Host`, 403 for `Origin`.
    """
    if not listed(headers.get(b"host", ""), settings.allowed_hosts):
        raise _not_here(
            421, "the Host header is not an address of this gateway", "server.allowed_hosts"
        )
    origin = headers.get(b"origin")
    if origin is not None and not listed(origin, settings.allowed_origins):
        raise _not_here(403, "the Origin header is not one that may call", "server.allowed_origins")


def listed(value: str, allowed: Iterable[str]) -> bool:
    """Whether a host or origin is one of `allowed`, where `:*` stands for any port or none."""
    value = value.lower()
    for entry in allowed:
        if value == entry:
            return True
        if entry.endswith(":*") and value.startswith(entry[:-2]):
            return _PORT.fullmatch(value, len(entry) - 2) is not None
    return False


def _not_here(status: int, message: str, setting: str) -> TurnedAway:
    hint = f"use the address the gateway listens on, or add it to `{setting}`"
    return TurnedAway(status, NOT_ALLOWED_HERE, Code.ORIGIN_REFUSED, message, hint=hint)


# ------------------------------------------------------------------------------------- the body


def check_json(headers: Fields) -> None:
    """A body is JSON; what a web page can send without being asked is turned away with 415."""
    content_type = headers.get(b"content-type", "")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise TurnedAway(415, INVALID_REQUEST, Code.NOT_SERVED, "send application/json")


def check_length(headers: Fields, limit: int) -> None:
    """Turn away a body that says it is too long, before any of it is read."""
    declared = headers.get(b"content-length")
    if declared is not None and (not declared.isdigit() or int(declared[:20]) > limit):
        raise too_large(limit)


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """The whole body, bounded in size and in the time it takes to come.

    Raises:
        TurnedAway: 413 when it is longer than `limit` bytes, 408 when it takes too long or ends
            before it is complete.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _incomplete("the request ended before its body did")
                body = message.get("body", b"")
                size += len(body)
                if size > limit:
                    raise too_large(limit)
                parts.append(body)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise _incomplete("the request's body took too long") from None


def _incomplete(message: str) -> TurnedAway:
    return TurnedAway(408, INVALID_REQUEST, Code.NOT_SERVED, message)


def too_large(limit: int) -> TurnedAway:
    return TurnedAway(
        413, TOO_LARGE, Code.BODY_TOO_LARGE, f"the request is longer than {limit} bytes"
    )


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then whatever still comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


# ---------------------------------------------------------------------------------- one message


def read_message(body: bytes) -> dict[str, Any]:
    """The one JSON-RPC message of a body, read strictly (RFC 7493, JSON-RPC 2.0 §4).

    Raises:
        TurnedAway: 400. Two parsers would read it differently, or it is not one message.
    """
    try:
        value = parse(body, max_depth=MAX_DEPTH, max_bytes=len(body))
    except InputError as exc:
        code = PARSE_ERROR if exc.code is Code.MALFORMED_JSON else INVALID_PARAMS
        raise TurnedAway(400, code, exc.code, exc.message, place=exc.place, hint=exc.hint) from None
    if not _is_message(value):
        raise TurnedAway(
            400, INVALID_REQUEST, Code.NOT_SERVED,
            "the body must be one JSON-RPC 2.0 request or notification",
            hint="batches are not served",
        )  # fmt: skip
    message: dict[str, Any] = value
    return message


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return False
    if "id" in value and not _is_id(value["id"]):
        return False
    if "method" not in value:
        return _is_answer(value)
    return isinstance(value["method"], str) and isinstance(value.get("params", {}), dict)


def _is_answer(value: dict[str, Any]) -> bool:
    error = value.get("error")
    if error is None:
        return "id" in value and isinstance(value.get("result"), dict)
    return (
        isinstance(error, dict)
        and type(error.get("code")) is int
        and isinstance(error.get("message"), str)
    )


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID
    return isinstance(value, int) and not isinstance(value, bool)


def request_id(body: bytes) -> str | int | None:
    """The id a refused request seems to have, only to be given back; None if that is unclear."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = value.get("id") if isinstance(value, dict) else None
    return found if _is_id(found) else None


async def peek_id(receive: Receive) -> str | int | None:
    """The id of a request that is refused unread; long or slow bodies are left alone."""
    try:
        return request_id(await read_body(receive, PEEK_BYTES, PEEK_SECONDS))
    except TurnedAway:
        return None


# -------------------------------------------------------------------------------------- answers


def refused(exc: Refused) -> TurnedAway:
    """The answer to a credential that was refused (RFC 6750 §3), or to too many requests."""
    if exc.code is Code.UNAUTHENTICATED:
        challenge = (b"www-authenticate", b'Bearer realm="remit"')
        return TurnedAway(
            401, UNAUTHENTICATED, exc.code, exc.message, hint=exc.hint, headers=(challenge,)
        )
    if exc.code is Code.RATE_LIMITED:
        wait_ms = exc.retry_after_ms or 1_000
        seconds = str(max(1, -(-wait_ms // 1_000))).encode()
        return TurnedAway(
            429, TOO_MANY, exc.code, exc.message,
            hint=exc.hint, retry_after_ms=wait_ms, headers=((b"retry-after", seconds),),
        )  # fmt: skip
    return TurnedAway(503, UNAVAILABLE, exc.code, "Remit cannot answer now")


async def answer(turned: TurnedAway, to: str | int | None, send: Send) -> None:
    """Send a JSON-RPC error with its HTTP status."""
    error = {"code": turned.rpc_code, "message": turned.message, "data": turned.machine()}
    body = json.dumps({"jsonrpc": "2.0", "id": to, "error": error}, separators=(",", ":"))
    await send_json(send, turned.status, body.encode(), turned.headers)


async def send_json(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send one JSON body."""
    length = str(len(body)).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
