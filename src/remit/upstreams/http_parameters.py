"""Parameters that a modern server wants repeated in headers (`x-mcp-header`, SEP-2243)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

PREFIX = "Mcp-Param-"
KEY = "x-mcp-header"

_PLAIN = re.compile(r"[\x20-\x7e]*")
_SENTINEL = re.compile(r"=\?base64\?.*\?=", re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_TYPES = ("string", "integer", "boolean")
_MOST = 64
_ONE = frozenset(
    {
        "items",
        "contains",
        "unevaluatedItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentSchema",
    }
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})

Place = tuple[str, ...]
Mirrored = tuple[tuple[Place, str], ...]
"""Which argument goes into which header: its path of properties, and the header's name."""


def header_value(text: str) -> str:
    """Text as a header may carry it; what would not survive there is sent as base64."""
    if _PLAIN.fullmatch(text) and text == text.strip() and not _SENTINEL.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode('ascii')}?="


def mirrored(schema: object) -> Mirrored | None:
    """What a tool's input schema says of headers; None if it says it in a way that is not allowed.

    A tool of which that is so must not be offered or called. Nothing is dereferenced.
    """
    found: dict[str, tuple[Place, str]] = {}
    for place, node in _positions(schema):
        if KEY not in node:
            continue
        name, kind = node[KEY], node.get("type")
        if not place or not isinstance(name, str) or not _TOKEN.fullmatch(name):
            return None
        if kind not in _TYPES or name.lower() in found or len(found) == _MOST:
            return None
        found[name.lower()] = (place, PREFIX + name)
    return tuple(found.values())


def _positions(schema: object) -> Iterator[tuple[Place | None, dict[str, Any]]]:
    """Every place of a schema; the path is None where it is not one of properties alone."""
    rest: list[tuple[Place | None, object]] = [((), schema)]
    while rest:
        place, node = rest.pop()
        if not isinstance(node, dict):
            continue
        yield place, node
        for key, inner in node.items():
            if key == "properties" and isinstance(inner, dict):
                for name, each in inner.items():
                    rest.append((None if place is None else (*place, name), each))
            elif key in _ONE:
                rest.append((None, inner))
            elif key in _LISTS and isinstance(inner, list):
                rest.extend((None, each) for each in inner)
            elif key in _MAPS and isinstance(inner, dict):
                rest.extend((None, each) for each in inner.values())


def parameter_headers(what: Mirrored, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The headers of one call; an argument that is absent or null has none."""
    headers = []
    for place, name in what:
        node: Any = arguments
        for key in place:
            node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, bool):
            headers.append((name, "true" if node else "false"))
        elif isinstance(node, float) and node.is_integer():
            headers.append((name, str(int(node))))
        elif isinstance(node, str | int):
            headers.append((name, header_value(str(node))))
    return headers
