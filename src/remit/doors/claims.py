"""What a caller says of itself and of its call: bounded here, recorded as claimed.

Nothing read here is a fact, and nothing here authorizes anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remit.errors import Code, InputError
from remit.model import Claims

PURPOSE = "dev.remit/purpose"
IDEMPOTENCY_KEY = "dev.remit/idempotency-key"

MAX_PURPOSE = 500
MAX_TICKET = 100
MAX_CLIENT = 100

_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_JOINERS = str.maketrans("", "", "\u200c\u200d")
"""Joiners that several scripts need inside words; no other invisible character is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The name and version that a client gives itself."""

    name: str | None = None
    version: str | None = None


def read_claims(
    meta: Mapping[str, Any], client: Client, *, session_id: str | None = None
) -> Claims:
    """The claims of one call's `_meta`.

    Raises:
        InputError: `invalid_claim`, naming the claim; never its value.
    """
    purpose, ticket = _purpose(meta.get(PURPOSE))
    return Claims(
        purpose=purpose,
        ticket=ticket,
        client_name=_cut(client.name),
        client_version=_cut(client.version),
        session_id=session_id,
        trace_id=_trace_id(meta.get("traceparent")),
    )


def _purpose(value: Any) -> tuple[str | None, str | None]:
    if value is None:
        return None, None
    if isinstance(value, str):
        return _text(value, MAX_PURPOSE), None
    if not isinstance(value, Mapping) or not set(value) <= {"purpose", "ticket"}:
        raise _invalid(PURPOSE, "must be a text, or an object of `purpose` and `ticket`")
    purpose, ticket = value.get("purpose"), value.get("ticket")
    return (
        None if purpose is None else _text(purpose, MAX_PURPOSE, "purpose"),
        None if ticket is None else _text(ticket, MAX_TICKET, "ticket"),
    )


def _text(value: Any, limit: int, field: str = "") -> str:
    if isinstance(value, str) and 0 < len(value) <= limit:
        if value.translate(_JOINERS).isprintable():
            return value
        raise _invalid(PURPOSE, "must be one line without control or invisible characters", field)
    raise _invalid(PURPOSE, f"must be a text of 1 to {limit} characters", field)


def read_idempotency_key(meta: Mapping[str, Any], header: str | None) -> str | None:
    """The idempotency key of a call, from `_meta` or from the `Idempotency-Key` header.

    Raises:
        InputError: `invalid_claim`: it is malformed, or the two differ.
    """
    stated = meta.get(IDEMPOTENCY_KEY)
    if stated is not None and header is not None and stated != header:
        raise _invalid(IDEMPOTENCY_KEY, "differs from the Idempotency-Key header")
    key = header if stated is None else stated
    if key is None:
        return None
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise _invalid(IDEMPOTENCY_KEY, "must be 1 to 128 characters of A-Z a-z 0-9 _ . : -")
    return key


def _invalid(name: str, what: str, field: str = "") -> InputError:
    place = "/".join(["", "_meta", name.replace("/", "~1"), *([field] if field else [])])
    return InputError(Code.INVALID_CLAIM, f"a claim of this call {what}", place=place)


def _cut(text: str | None) -> str | None:
    return text[:MAX_CLIENT] if text else None


def _trace_id(value: Any) -> str | None:
    """The trace id of a W3C `traceparent`; a malformed one is as good as none, as W3C has it."""
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    return match.group(1) if match else None
