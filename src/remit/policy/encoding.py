"""RFC 8785 bytes of a policy document, fast: the C encoder where it gives the same bytes.

For text without numbers to round, `json.dumps` with sorted keys and no spaces writes exactly what
RFC 8785 asks. Where that is not certain (a float, a large integer, a key order that differs
between UTF-16 and code points) the canonical encoder does it, and refuses what has no form.
"""

from __future__ import annotations

import json
from typing import Any

from remit import canonical

_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False
)


def encode(value: Any) -> bytes:
    """The same bytes as `canonical.encode`, about four times as fast for most documents.

    Raises:
        InputError: `plan_not_canonical`, as `canonical.encode` does.
    """
    if not _plain(value, 0):
        return canonical.encode(value)
    text = _ENCODER.encode(value)
    # UTF-16 sorts U+E000..U+FFFF after what lies above U+FFFF; below it both orders agree. Half a
    # surrogate pair lies at U+D800 and is refused by the other encoder.
    if not text.isascii() and max(text) >= "\ud800":
        return canonical.encode(value)
    return text.encode()


def _plain(value: Any, depth: int) -> bool:
    """Whether it is built of nothing but the exact types that both encoders write alike."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -canonical.MAX_SAFE_INTEGER <= value <= canonical.MAX_SAFE_INTEGER  # type: ignore[no-any-return]
    if depth > 100:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return False
            if type(item) is not str and not _plain(item, depth + 1):
                return False
        return True
    if kind is list:
        return all(type(item) is str or _plain(item, depth + 1) for item in value)
    return False
