"""The one header in which an MCP server over HTTP is shown a credential."""

from __future__ import annotations

import re

from remit.model import SHOWN_AS

PLACE = "{token}"

_FORM = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}): ([A-Za-z][A-Za-z0-9_.+-]{0,31} )?\{token\}"
)
_TAKEN = frozenset({
    "host", "origin", "referer", "cookie", "set-cookie", "cookie2", "user-agent", "date", "from",
    "connection", "keep-alive", "upgrade", "te", "trailer", "transfer-encoding", "expect", "via",
    "http2-settings", "forwarded", "range", "max-forwards", "last-event-id", "traceparent",
    "tracestate", "baggage", "cache-control", "pragma", "alt-used", "priority",
    "x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
})  # fmt: skip
"""Headers with a meaning of their own; a credential in one would change what the request is."""

_TAKEN_BEFORE = (
    "content-", "mcp-", "accept", "proxy-", "sec-", "if-", "access-control-", "x-forwarded-", ":",
)  # fmt: skip


def header_fault(header: str) -> str | None:
    """Why a credential cannot be shown so, as the end of a sentence about it; None if it can.

    Args:
        header: `NAME: {token}`, or `NAME: SCHEME {token}`; the name is a token of RFC 9110 §5.6.2.
    """
    found = _FORM.fullmatch(header)
    if found is None:
        return "is not `NAME: {token}` or `NAME: SCHEME {token}`"
    name = found[1].lower().replace("_", "-")  # which servers often take for one another
    if name in _TAKEN or name.startswith(_TAKEN_BEFORE):
        return f"would set {found[1]}, which says something else of a request"
    return None


def header_line(header: str, token: bytes) -> bytes:
    """The line of a request's head in which the token is shown.

    Raises:
        ValueError: a credential cannot be shown so.
    """
    if header_fault(header) is not None:
        raise ValueError("no header for a credential")
    return header.encode("ascii").replace(PLACE.encode(), token, 1) + b"\r\n"


def shown_as(name: str, before: str) -> str:
    """The header that shows a token which a client sent by this name, behind these words.

    Args:
        before: all that stood before the token, as `Bearer `.
    """
    scheme = before.strip()
    if name.lower() == "authorization" and scheme.lower() == "bearer":
        return SHOWN_AS
    return f"{name}: {scheme} {PLACE}" if scheme else f"{name}: {PLACE}"
