"""Reads the name out of a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3), as a run sends it.

Hostile bytes: every length is checked, nothing is kept but the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 16_384
"""Longest greeting that is waited for; post-quantum ones are about 2 KB."""

_HANDSHAKE = 22
_SERVER_NAME = 0
_ENCRYPTED_HELLO = 0xFE0D
_MAX_RECORD = 16_384
_MAX_RECORDS = 16
_NAME = re.compile(rb"[A-Za-z0-9.-]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """`name` is the one in SNI, in lower case; None where there is none. `hidden`: it has an
    encrypted inner greeting (ECH), whose name nobody here can see."""

    name: str | None
    hidden: bool = False


class _Reader:
    """Takes fields off a byte string; what is not there is a ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError("a field is longer than what holds it")
        part, self._at = self._data[self._at : end], end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    @property
    def over(self) -> bool:
        return self._at == len(self._data)


def read_greeting(data: bytes) -> Greeting | None:
    """The greeting that these first bytes of a connection hold; None: more has to come.

    Raises:
        ValueError: this is not the beginning of TLS, or longer than `MAX_BYTES`.
    """
    hello = _hello(data)
    if hello is None:
        if len(data) >= MAX_BYTES:
            raise ValueError("the greeting is too long")
        return None
    return _read(hello)


def _hello(data: bytes) -> bytes | None:
    """The ClientHello's body out of its records, which may cut it anywhere."""
    message, at = b"", 0
    for _ in range(_MAX_RECORDS):
        wanted = 4 + int.from_bytes(message[1:4], "big") if len(message) >= 4 else None
        if message[:1] not in (b"", b"\x01") or (wanted is not None and wanted > MAX_BYTES):
            raise ValueError("not a ClientHello")
        if wanted is not None and len(message) >= wanted:
            if len(message) > wanted:
                raise ValueError("something follows the ClientHello in its record")
            return message[4:]
        head = data[at : at + 5]
        _check_record(head)
        if len(head) < 5:
            return None
        size = int.from_bytes(head[3:5], "big")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if at > len(data):
            # Not whole yet; what is there has to look like a ClientHello nevertheless.
            if message[:1] not in (b"", b"\x01"):
                raise ValueError("not a ClientHello")
            return None
    raise ValueError("cut into too many records")


def _check_record(head: bytes) -> None:
    if head[:1] not in (b"", bytes((_HANDSHAKE,))) or head[1:2] not in (b"", b"\x03"):
        raise ValueError("not TLS")
    if len(head) == 5 and not 1 <= int.from_bytes(head[3:5], "big") <= _MAX_RECORD:
        raise ValueError("a record of no allowed length")


def _read(body: bytes) -> Greeting:
    reader = _Reader(body)
    reader.take(2 + 32)
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression
    name: str | None = None
    hidden = False
    seen: set[int] = set()
    extensions = _Reader(b"" if reader.over else reader.vector(2))
    if not reader.over:
        raise ValueError("something follows the extensions")
    while not extensions.over:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind in seen:
            raise ValueError("an extension is there twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(content)
        hidden = hidden or kind == _ENCRYPTED_HELLO
    return Greeting(name=name, hidden=hidden)


def _server_name(content: bytes) -> str:
    names = _Reader(_whole(content))
    kind, name = names.number(1), names.vector(2)
    if kind != 0 or not names.over or _NAME.fullmatch(name) is None:
        raise ValueError("not one host name")
    return name.decode("ascii").lower()


def _whole(content: bytes) -> bytes:
    reader = _Reader(content)
    inner = reader.vector(2)
    if not reader.over:
        raise ValueError("something follows the list")
    return inner
