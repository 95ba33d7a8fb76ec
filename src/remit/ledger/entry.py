"""One entry of the log: canonical JSON `remit.entry/1` with salted commitments.

An entry says its own number, time and gateway, then the public fields of its event. A value that
is not public goes in as `SHA-256(salt || value)`; salt and value are kept beside the log, so that
they can be erased without changing it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from remit.canonical import encode

SCHEMA = "remit.entry/1"
SALT_BYTES = 16
RESERVED = frozenset({"schema", "seq", "time", "gateway", "event", "commitments"})


def entry_text(
    *,
    seq: int,
    time_ms: int,
    gateway: str,
    event: str,
    public: Mapping[str, Any],
    commitments: Mapping[str, str],
) -> bytes:
    """The canonical bytes of an entry: the leaf of the tree.

    Raises:
        ValueError: if a public field has a name that every entry has for its own.
    """
    if not RESERVED.isdisjoint(public):
        raise ValueError("a public field of an entry has a reserved name")
    document = {
        "schema": SCHEMA,
        "seq": seq,
        "time": rfc3339(time_ms),
        "gateway": gateway,
        "event": event,
        **public,
    }
    if commitments:
        document["commitments"] = dict(commitments)
    return encode(document)


def seal(value: bytes) -> tuple[bytes, str]:
    """A fresh salt for this value, and the commitment made with it."""
    salt = os.urandom(SALT_BYTES)
    return salt, commitment(salt, value)


def commitment(salt: bytes, value: bytes) -> str:
    """`sha256:` and the hex of SHA-256(salt || value)."""
    return "sha256:" + hashlib.sha256(salt + value).hexdigest()


def rfc3339(time_ms: int) -> str:
    """A time in UTC with milliseconds (RFC 3339)."""
    seconds, rest = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
