"""Going through JSON of others without recursion, and naming a place in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from remit.canonical import MAX_SAFE_INTEGER
from remit.errors import Code
from remit.visible import fold, visible

Path = tuple[Any, str | int] | None
"""Where a value is: the path of what holds it, and its key or index; None is the top.

Linked, not written out, because a long key that holds many values would be copied for each.
"""

_MAX_KEY = 64
_MAX_POINTER = 300
UNFIT = {
    Code.NUMBER_OUT_OF_RANGE: "is a number on which JSON parsers do not agree",
    Code.INVALID_UNICODE: "holds half of a surrogate pair",
    Code.MALFORMED_JSON: "is not a JSON value",
}


def walk(value: object) -> Iterator[tuple[Path, int, object, bool]]:
    """Every value inside one, itself first: path, depth from 1, value, and whether it is a key.

    A key has the path of its value and comes before it. Lazy, so that whoever asks can stop.
    """
    rest: list[tuple[Path, int, object, bool]] = [(None, 1, value, False)]
    while rest:
        path, depth, inner, is_key = rest.pop()
        yield path, depth, inner, is_key
        if type(inner) is dict and not is_key:
            for key in reversed(inner):
                at = (path, key)
                rest.append((at, depth + 1, inner[key], False))
                rest.append((at, depth + 1, key, True))
        elif type(inner) is list:
            backwards = range(len(inner) - 1, -1, -1)
            rest.extend(((path, index), depth + 1, inner[index], False) for index in backwards)


def pointer(path: Path) -> str:
    """The JSON pointer (RFC 6901), safe to look at; long keys and long pointers are shortened."""
    parts: list[str] = []
    while path is not None:
        path, part = path
        name = fold(str(part), _MAX_KEY).replace("~", "~0").replace("/", "~1")
        parts.append("/" + visible(name))
    return fold("".join(reversed(parts)), _MAX_POINTER)


def unfit(value: object, *, is_key: bool = False) -> Code | None:
    """Why a value, what it holds aside, has no JSON form on which all parsers agree; else None."""
    kind = type(value)
    if kind is str:
        return Code.INVALID_UNICODE if _half_pair(str(value)) else None
    if is_key:
        return Code.MALFORMED_JSON
    if isinstance(value, int | float) and kind in (int, float):
        fits = -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER
        return None if fits else Code.NUMBER_OUT_OF_RANGE
    return None if value is None or kind in (bool, dict, list) else Code.MALFORMED_JSON


def _half_pair(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)
