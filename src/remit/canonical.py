"""RFC 8785 canonical JSON, strict JSON reading, and the digests made from them.

Reading refuses what two parsers could read differently (RFC 7493, I-JSON): duplicate keys, NaN
and infinities, integers of 2^53 or more, lone surrogates. Writing gives the one byte string that
RFC 8785 names for a value. Every digest carries a domain tag, so that a digest of one kind of
thing can never be taken for a digest of another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import rfc8785

from remit.errors import Code, InputError

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that every JSON parser reads exactly (RFC 7493 §2.2)."""


def parse(
    data: bytes,
    *,
    max_depth: int = 64,
    max_bytes: int = 4 * 1024 * 1024,
    max_values: int | None = None,
) -> Any:
    """Read one JSON value strictly.

    Args:
        data: UTF-8 JSON text.
        max_depth: arrays and objects nested deeper than this are refused.
        max_bytes: longer input is refused before it is read.
        max_values: more values than about this are refused before they are made; None: any number.
            A value of two bytes can take a hundred in memory, and its share of the time.

    Raises:
        InputError: with `malformed_json`, `duplicate_key`, `number_out_of_range`,
            `invalid_unicode`, `too_deep` or `too_large`. The message never echoes the input.
    """
    if len(data) > max_bytes:
        raise InputError(Code.TOO_LARGE, f"JSON is larger than {max_bytes} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InputError(
            Code.INVALID_UNICODE, "JSON is not valid UTF-8", place=f"byte {exc.start}"
        ) from None
    if max_values is not None:
        _check_values(text, max_values)
    check_depth(text, max_depth)
    try:
        value = _DECODER.decode(text)
    except InputError:
        raise
    except RecursionError:
        raise InputError(Code.TOO_DEEP, "JSON is nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise InputError(
            Code.MALFORMED_JSON, "not valid JSON", place=f"line {exc.lineno} column {exc.colno}"
        ) from None
    except ValueError:  # an integer literal longer than Python will convert
        raise _out_of_range() from None
    if "\\u" in text:  # only an escape can bring in half of a surrogate pair
        _check_surrogates(value)
    return value


def check_depth(text: str, limit: int) -> None:
    """Refuse JSON text nested deeper than `limit`, by counting brackets outside strings."""
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    in_string = False
    escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > limit:
                raise InputError(Code.TOO_DEEP, f"JSON is nested deeper than {limit}")
        elif char in "]}":
            depth -= 1


_PIECE = re.compile(r'[,\[{]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def _check_values(text: str, limit: int) -> None:
    """Refuse JSON text with more commas and opening brackets outside strings than that."""
    if text.count(",") + text.count("[") + text.count("{") <= limit:
        return
    seen = 0
    for piece in _PIECE.finditer(text):
        if text[piece.start()] != '"':
            seen += 1
            if seen > limit:
                raise InputError(Code.TOO_LARGE, f"JSON holds more than {limit} values")


def _out_of_range() -> InputError:
    return InputError(
        Code.NUMBER_OUT_OF_RANGE,
        "a number is outside what JSON parsers agree on",
        hint="send integers of 2^53 or more as strings",
    )


def _integer(text: str) -> int:
    value = int(text)
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        return value
    raise _out_of_range()


def _float(text: str) -> float:
    value = float(text)
    # From 2^53 on every float is a whole number, and its canonical form an unsafe integer.
    if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        raise _out_of_range()
    return value


def _constant(_: str) -> NoReturn:
    raise _out_of_range()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InputError(
            Code.DUPLICATE_KEY,
            "an object has the same key twice",
            hint="send each key once; two parsers would read this differently",
        )
    return result


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(Code.INVALID_UNICODE, "a string holds half of a surrogate pair") from None


def encode(value: Any) -> bytes:
    """Give the RFC 8785 bytes of a JSON value.

    Raises:
        InputError: `plan_not_canonical` if the value has no canonical form (an integer of 2^53
            or more, NaN, a lone surrogate, a key that is not a string).
    """
    try:
        if _plain((value,)):
            # For these types the C encoder writes what RFC 8785 asks, four times as fast, unless
            # the order of keys differs between code points and UTF-16 (above U+D800).
            text = _ENCODER.encode(value)
            if text.isascii() or max(text) < "\ud800":
                return text.encode()
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError):
        raise InputError(
            Code.PLAN_NOT_CANONICAL,
            "a value has no canonical JSON form",
            hint="use strings for large integers and valid Unicode throughout",
        ) from None


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False
)


def _plain(items: Iterable[Any]) -> bool:
    """Whether these are built of nothing but the exact types that both encoders write alike."""
    for item in items:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
                return False
        elif kind is dict:
            for key in item:
                if type(key) is not str:
                    return False
            if not _plain(item.values()):
                return False
        elif kind is not list or not _plain(item):
            return False
    return True


def digest(domain: str, data: bytes) -> str:
    """SHA-256 over a domain tag, a newline and the data, as `sha256:` and 64 hex digits.

    The tag must hold no newline, so that tag and data cannot run into each other.
    """
    return "sha256:" + hashlib.sha256(domain.encode("ascii") + b"\n" + data).hexdigest()


def digest_of(domain: str, value: Any) -> str:
    """`digest` over the canonical bytes of a JSON value."""
    return digest(domain, encode(value))


def short(hash_text: str) -> str:
    """The first 12 hex digits of a digest, for people; never for comparing."""
    return hash_text.removeprefix("sha256:")[:12]
