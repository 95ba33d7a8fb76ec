"""What does not fit: odd values, and real messages and bytes changed in a few places."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

TEXTS = (
    "", " ", "a", "\x00", "\n", "\r\n", "../..", "%00", "{}", "null", "-1", "1e999", "=?base64?IQ==?=",
    "\u202e", "\ufeff", "é", "e\u0301", "İ", "𝔘", "\U0001f469\u200d\U0001f4bb", "\ud800", "__proto__",
    "constructor", "a" * 129, "b" * 5_000, "$ref", "#/$defs/x", "file:///etc/passwd", "_GET_stream",
    "2026-07-28", "2025-11-25", "1999-01-01", "tools/call", "event: message\ndata: {}",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**40, 0.1, 1e308, 5e-324, -0.0)


def value(random: Random, depth: int = 2) -> Any:
    """Any JSON value."""
    kind = random.randrange(8 if depth else 6)
    if kind < 3:
        return random.choice(TEXTS)
    if kind == 3:
        return random.choice(NUMBERS)
    if kind == 4:
        return random.choice((None, True, False))
    if kind == 5:
        return random.choice(([], {}, [[]], [None], {"": {}}))
    if kind == 6:
        return [value(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice(TEXTS): value(random, depth - 1) for _ in range(random.randrange(4))}


def deep(levels: int) -> str:
    """JSON text that is nested so deep."""
    return "[" * levels + "]" * levels


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        for key in node:
            found.append((node, key))
            _places(node[key], found)
    elif isinstance(node, list):
        for at, each in enumerate(node):
            found.append((node, at))
            _places(each, found)
    return found


def changed(random: Random, message: Any, times: int = 1) -> Any:
    """The same message with a few of its places dropped, doubled, renamed or given odd values."""
    made = copy.deepcopy(message)
    for _ in range(times):
        places = _places(made, [])
        if not places:
            return value(random)
        node, key = random.choice(places)
        act = random.randrange(6)
        if act == 0:
            del node[key]
        elif act == 1 and isinstance(node, dict):
            node[random.choice(TEXTS)] = node.pop(key)
        elif act == 2 and isinstance(node, dict):
            node[random.choice(TEXTS)] = value(random)
        elif act == 3:
            node[key] = [copy.deepcopy(node[key])] * random.choice((1, 2, 40))
        else:
            node[key] = value(random)
    return made


def encoded(message: Any) -> bytes:
    """As JSON; what has no UTF-8 stands escaped."""
    return json.dumps(message).encode()


def damaged(random: Random, data: bytes, times: int = 1) -> bytes:
    """The same bytes with a few cut out, doubled or put in."""
    made = bytearray(data)
    for _ in range(times):
        at = random.randrange(len(made) + 1)
        to = min(len(made), at + random.choice((1, 1, 2, 8, 64, 1000)))
        act = random.randrange(5)
        if act == 0:
            del made[at:to]
        elif act == 1:
            made[at:at] = made[at:to]
        elif act == 2:
            made[at:at] = random.choice(
                (b"\x00", b"\xff\xfe", b"\r\n", b"\n", b'"', b"}", b"[" * 99)
            )
        elif act == 3 and at < len(made):
            made[at] ^= 1 << random.randrange(8)
        else:
            del made[at:]
    return bytes(made)
