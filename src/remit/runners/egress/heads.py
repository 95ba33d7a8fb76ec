"""Reads the head of a request strictly (RFC 9112), before a second parser frames its body.

What two servers could read in two ways is refused: bare CR or LF, folded lines, spaces before a
colon, two lengths, a length beside a transfer coding, a second Host, `Transfer_Encoding`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from remit.runners.egress.refusals import Refusal
from remit.runners.egress.streams import Stream

MAX_HEAD = 32_768
MAX_HEADERS = 100

_REQUEST = re.compile(rb"([A-Z][A-Z-]{0,23}) ([\x21-\x7e]{1,8192}) HTTP/1\.([01])")
_HEADER = re.compile(
    # One class, and the space around the value taken off after: nothing here is tried twice.
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):([\t\x20-\x7e\x80-\xff]*)"
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"expect")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""Headers of one connection alone (RFC 9110 §7.6.1); so is everything that begins with `proxy-`."""

_FRAMING = HOP_BY_HOP | frozenset(_ONCE)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's head: names in lower case, values without the space around them."""

    method: str
    target: str
    minor: int
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        return next((value for each, value in self.headers if each == name), None)

    @property
    def has_body(self) -> bool:
        return self.get(b"transfer-encoding") is not None or (
            int(self.get(b"content-length") or b"0") > 0
        )


def read_head(raw: bytes) -> Head:
    """A head with its closing empty line.

    Raises:
        Refusal: `malformed`, or `upgrade` where the protocol is to be changed.
    """
    lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _REQUEST.fullmatch(lines[0])
    if found is None or len(lines) > MAX_HEADERS + 1:
        raise Refusal("malformed")
    headers = []
    for line in lines[1:]:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise Refusal("malformed")
        headers.append((header[1].lower(), header[2].strip(b" \t")))
    head = Head(
        method=found[1].decode("ascii"),
        target=found[2].decode("ascii"),
        minor=int(found[3]),
        headers=tuple(headers),
    )
    _check_framing(head)
    return head


def _check_framing(head: Head) -> None:
    names = [name for name, _ in head.headers]
    length, coding = head.get(b"content-length"), head.get(b"transfer-encoding")
    expected = head.get(b"expect")
    if (
        any(names.count(name) > 1 for name in _ONCE)
        or (length is not None and coding is not None)
        or (length is not None and _LENGTH.fullmatch(length) is None)
        or (coding is not None and (coding.lower() != b"chunked" or head.minor == 0))
        or (expected is not None and expected.lower() != b"100-continue")
        or (head.minor == 1 and b"host" not in names)
        or any(name not in _FRAMING and like_a_variable(name) in _FRAMING for name in names)
    ):
        raise Refusal("malformed")
    if b"upgrade" in names or b"http2-settings" in names:
        raise Refusal("upgrade")


def like_a_variable(name: bytes) -> bytes:
    """The one name for all headers that a server may take for the same: many hand headers on as
    variables (RFC 3875 §4.1.18), where `-` and `_` are one."""
    return name.replace(b"_", b"-")


def end_to_end(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Headers that are not of one connection alone, nor named as such by `Connection`."""
    named = {
        part.strip().lower()
        for name, value in headers
        if name == b"connection"
        for part in value.split(b",")
    }
    return [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and name not in named and not name.startswith(b"proxy-")
    ]


class HeadReader:
    """Takes heads off a stream; `rest` is what came after the last one.

    `began` is called when a head has begun and its end is not there yet.
    """

    def __init__(self, stream: Stream, began: Callable[[], None]) -> None:
        self.stream = stream
        self._began = began
        self.rest = b""

    async def next(self) -> bytes | None:
        """The next head with its empty line; None where the peer ended before one began.

        Raises:
            Refusal: `malformed`; it is too long, broken off, or nothing of HTTP.
        """
        began = False
        while (end := self.rest.find(b"\r\n\r\n")) < 0:
            if len(self.rest) > MAX_HEAD:
                raise Refusal("malformed")
            if self.rest and not began:
                self._began()
                began = True
            data = await self.stream.receive()
            if not data:
                if self.rest:
                    raise Refusal("malformed")
                return None
            self.rest += data
            if not 0x41 <= self.rest[0] <= 0x5A:  # TLS, SOCKS and the like end here
                raise Refusal("malformed")
        if end > MAX_HEAD:
            raise Refusal("malformed")
        raw, self.rest = self.rest[: end + 4], self.rest[end + 4 :]
        return raw
