"""What a server says with a 401 or 403 of how it wants to be asked: `WWW-Authenticate` of Bearer.

RFC 9110 §11.6.1, RFC 6750 §3 and RFC 9728 §5.1. Nothing of it is trusted; what is no plain scope or
is said twice counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_HEADER = 8_192
MAX_SCOPES = 64

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PART = re.compile(
    rf"(?P<name>{_WORD})"  # what stands before it is passed over once, not tried at each place
    rf"(?:\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[!-+\--~]+)))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The Bearer challenge of an answer. `scopes` is what the request would have needed."""

    error: str | None = None
    scopes: tuple[str, ...] = ()
    metadata: str | None = field(default=None, repr=False)


def bearer_challenge(header: str) -> Challenge | None:
    """The first Bearer challenge in the header's value; None if there is none."""
    scheme, params = "", dict[str, str | None]()
    for part in _PART.finditer(header[:MAX_HEADER]):
        name = part["name"].lower()
        value = part["quoted"] if part["quoted"] is not None else part["plain"]
        if value is None:
            if scheme == "bearer":
                break
            scheme = name
        elif scheme == "bearer":
            params[name] = None if name in params else re.sub(r"\\(.)", r"\1", value)
    if scheme != "bearer":
        return None
    return Challenge(
        error=params.get("error"),
        scopes=scopes_in((params.get("scope") or "").split(" ")),
        metadata=params.get("resource_metadata"),
    )


def scopes_in(words: Iterable[object]) -> tuple[str, ...]:
    """The scopes (RFC 6749 §3.3), each once and sorted; none at all if one is no scope, or there are
    too many."""
    found = {each for each in words if each != ""}
    if len(found) > MAX_SCOPES:
        return ()
    plain = {each for each in found if isinstance(each, str) and _SCOPE.fullmatch(each)}
    return tuple(sorted(plain)) if len(plain) == len(found) else ()
