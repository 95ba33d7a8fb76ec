"""Strict readers of single JSON values, for reading what policy answered.

Each gives the value in the type it must have or raises `policy_bad_decision` with its place.
They agree with JSON Schema 2020-12 (a number with no fraction is an integer, a boolean is no
number) and never echo the value, which may hold what a caller sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from remit.errors import Code, PolicyFault

T = TypeVar("T")

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


def bad(place: str, message: str) -> PolicyFault:
    return PolicyFault(Code.POLICY_BAD_DECISION, message, place=place or "/")


def fields(
    value: Any, place: str, required: frozenset[str], optional: frozenset[str]
) -> dict[str, Any]:
    """An object with all of the required fields and none beyond the optional ones."""
    if type(value) is not dict:
        raise bad(place, "is not an object")
    keys = value.keys()
    if not required <= keys:
        missing = ", ".join(sorted(required - keys))
        raise bad(place, f"lacks the field {missing}")
    if len(keys) > len(required) and not (keys - required) <= optional:
        raise bad(place, "has a field that remit.decision/1 does not have")
    return value


def mapping(value: Any, place: str) -> dict[str, Any]:
    """Any object."""
    if type(value) is not dict:
        raise bad(place, "is not an object")
    return value


def text(value: Any, place: str, most: int, least: int = 0) -> str:
    if type(value) is not str:
        raise bad(place, "is not a string")
    if not least <= len(value) <= most:
        raise bad(place, f"is not {least} to {most} characters long")
    return value


def choice(value: Any, place: str, options: frozenset[str]) -> str:
    if type(value) is not str or value not in options:
        raise bad(place, f"is not one of {', '.join(sorted(options))}")
    return value


def integer(value: Any, place: str, least: int | None = None, most: int | None = None) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise bad(place, "is not an integer")
    if (least is not None and value < least) or (most is not None and value > most):
        raise bad(place, "is outside its range")
    return value


def number(value: Any, place: str) -> int | float:
    if type(value) is int or type(value) is float:
        return value
    raise bad(place, "is not a number")


def flag(value: Any, place: str) -> bool:
    if type(value) is not bool:
        raise bad(place, "is not true or false")
    return value


def scalar(value: Any, place: str) -> str | int | float | bool | None:
    if value is None or type(value) in (str, int, float, bool):
        return value  # type: ignore[no-any-return]  # narrowed by the line above
    raise bad(place, "is not a string, number, boolean or null")


def items(
    value: Any, place: str, read: Callable[[Any, str], T], most: int, least: int = 0
) -> tuple[T, ...]:
    """An array, each item read by `read`."""
    if type(value) is not list:
        raise bad(place, "is not an array")
    if not least <= len(value) <= most:
        raise bad(place, f"does not have {least} to {most} items")
    return tuple(read(item, f"{place}/{index}") for index, item in enumerate(value))


def pointer(value: Any, place: str) -> str:
    """A JSON Pointer (RFC 6901) to something inside the document."""
    found = text(value, place, 512)
    if _POINTER.fullmatch(found) is None:
        raise bad(place, "is not a JSON Pointer")
    return found


def pointers(value: Any, place: str) -> tuple[str, ...]:
    return items(value, place, pointer, 64)


def texts(value: Any, place: str, most: int, least: int = 0) -> tuple[str, ...]:
    """At most `most` strings of `least` to 256 characters."""
    return items(value, place, lambda item, at: text(item, at, 256, least), most)
