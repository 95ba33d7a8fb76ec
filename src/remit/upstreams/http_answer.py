"""What an HTTP answer to a JSON-RPC message holds: messages, a refusal, or what is no answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from remit import canonical
from remit.challenge import bearer_challenge
from remit.errors import Code, InputError, UpstreamFault
from remit.upstreams.http_connection import Head, HttpConnection
from remit.upstreams.http_limits import HttpLimits
from remit.upstreams.http_sse import Events
from remit.upstreams.messages import invalid

_JSON = "application/json"
_EVENTS = "text/event-stream"
_REDIRECTS = range(300, 400)
_OVERLOADED = (429, 503)
_SAID = frozenset(range(400, 500)) - {401, 403}
NO_PLACE = (400, 404, 405, 406, 410, 415, 422, 501)
"""With these a server of another revision says that it does not know this way of asking."""


class HttpRefusal(UpstreamFault):
    """An answer whose status is no success, with no JSON-RPC error in it."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int,
        hint: str | None,
        challenged: tuple[str, ...] | None = None,
    ) -> None:
        # A refusal by status is an answer of the server, as a JSON-RPC error is; only those that
        # speak of the server's own failing leave open whether the call was made.
        answer = {"code": status, "message": f"HTTP status {status}"}
        super().__init__(
            code,
            message,
            sent=True,
            answer=answer if status in _SAID else None,
            challenged=challenged,
            hint=hint,
        )
        self.status = status

    @property
    def elsewhere(self) -> bool:
        """Whether it may only mean that the server is of another revision or transport."""
        return self.status in NO_PLACE


async def messages(
    connection: HttpConnection, head: Head, events: Events, most: int
) -> AsyncGenerator[bytes]:
    """Each message of a successful answer, as bytes that should be JSON.

    Args:
        connection: read to the end of the body, or as long as more is asked for.
        head: of the answer; its status was a success.
        events: reads the stream, if it is one.
        most: bytes that one message may have.

    Raises:
        UpstreamFault: what came cannot be read; the request had been sent.
    """
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise invalid("the MCP server compressed its answer, which it was asked not to")
    if head.media_type == _JSON:
        yield await whole(connection, most)
    elif head.media_type == _EVENTS:
        while chunk := await connection.read():
            for event in events.feed(chunk):
                if event.name == b"message" and event.data.strip():
                    yield event.data
    else:
        raise invalid("the MCP server's answer is neither JSON nor a stream of events")


async def whole(connection: HttpConnection, most: int) -> bytes:
    """A whole body.

    Raises:
        UpstreamFault: it is longer than that, or broke off.
    """
    body = bytearray()
    while chunk := await connection.read():
        body += chunk
        if len(body) > most:
            raise UpstreamFault(
                Code.UPSTREAM_INVALID, f"the MCP server's answer is longer than {most} bytes"
            )
    return bytes(body)


def parsed(data: bytes, *, depth: int, most: int, values: int | None = None) -> Any:
    """The strict JSON value of one message of at most so many bytes and values.

    Raises:
        UpstreamFault: it is none.
    """
    try:
        return canonical.parse(data, max_depth=depth, max_bytes=most, max_values=values)
    except InputError as fault:
        raise invalid(
            f"the MCP server sent a message that is not strict JSON ({fault.code})"
        ) from None


async def refusal(
    connection: HttpConnection, head: Head, limits: HttpLimits
) -> dict[str, Any] | HttpRefusal:
    """What an answer without success says: a JSON-RPC error message, or only its status."""
    if head.status not in (401, 403) and head.media_type == _JSON:
        try:
            body = await whole(connection, limits.refusal_bytes)
            value = parsed(body, depth=32, most=limits.refusal_bytes)
        except UpstreamFault:
            value = None
        if isinstance(value, dict) and value.get("jsonrpc") == "2.0" and "error" in value:
            return value
    return _by_status(head.status, _challenged(head))


def _challenged(head: Head) -> tuple[str, ...] | None:
    """What it says of the token that it was shown (RFC 6750 §3.1); see `UpstreamFault`."""
    if head.status == 401:
        return ()
    if head.status != 403:
        return None
    said = bearer_challenge(head.headers.get("www-authenticate", ""))
    if said is None or said.error not in (None, "insufficient_scope"):
        return None
    return said.scopes or None


def _by_status(status: int, challenged: tuple[str, ...] | None) -> HttpRefusal:
    code, hint = Code.UPSTREAM_ERROR, "read the server's own log"
    message = f"the MCP server answered with the HTTP status {status}"
    if status in (401, 403):
        code = Code.UPSTREAM_UNAUTHORIZED
        message = "the MCP server does not accept who asks it"
        hint = (
            "look at the server's `authorization` and the credential it names: is it lent, is its"
            " audience this server, has it the scopes that the server wants, is `header` what it"
            " reads?"
        )
    elif status in _REDIRECTS:
        code = Code.UPSTREAM_INVALID
        message = "the MCP server sent the request elsewhere, and redirects are never followed"
        hint = "write the address that it should be asked at into the server's url"
    elif status in _OVERLOADED:
        code = Code.UPSTREAM_GONE if status >= 500 else Code.UPSTREAM_ERROR
        hint = "the server has too much to do: ask it less, or give it more"
    elif status >= 500:
        code = Code.UPSTREAM_GONE
    elif status < 300:
        code = Code.UPSTREAM_INVALID
        message = f"the MCP server answered a request with the HTTP status {status}"
    return HttpRefusal(code, message, status=status, hint=hint, challenged=challenged)


def head_of(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Header lines.

    Raises:
        UpstreamFault: `internal`: one of them would not be one line; nothing was sent.
    """
    lines = []
    for name, value in pairs:
        if not value.isascii() or not value.isprintable():
            raise UpstreamFault(Code.INTERNAL, "a header of a request would not be one line")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("ascii")
