"""Fields of entries as whoever verifies a log reads them, and what is said where they do not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remit.errors import Code, Unverified


def text(index: int, entry: Mapping[str, Any], name: str) -> str:
    """A field that must be a text.

    Raises:
        Unverified: `log_malformed`.
    """
    value = entry.get(name)
    if not isinstance(value, str):
        raise lacks(index, name)
    return value


def number(index: int, entry: Mapping[str, Any], name: str) -> int:
    """A field that must be a whole number.

    Raises:
        Unverified: `log_malformed`.
    """
    value = entry.get(name)
    if type(value) is not int:
        raise lacks(index, name)
    return value


def lacks(index: int, name: str) -> Unverified:
    return Unverified(Code.LOG_MALFORMED, f"the entry lacks its {name}", index=index)


def wrong(index: int, why: str) -> Unverified:
    return Unverified(Code.LOG_INCONSISTENT, why, index=index)
