"""What a schema in the catalog may be, checked once at load so that checking arguments is bounded.

A schema is JSON Schema 2020-12. Beyond its metaschema: no key that is not of that vocabulary (a
misspelt `maxLenght` would silently check nothing), `$ref` only to a schema inside the same
document, no loop without a step down into the arguments, patterns only in linear-time syntax,
formats only those that are really checked, and caps on size, depth and number.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote

import jsonschema

from remit import canonical
from remit.catalog.formats import FORMATS
from remit.catalog.metaschema import check_schema
from remit.catalog.patterns import compile_pattern
from remit.errors import Code, ConfigError, InputError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 65_536
MAX_DEPTH = 32
MAX_SUBSCHEMAS = 1_000
MAX_IN_PLACE = 2_000
"""Most schemas that one value may have to be held against, before any step down into it."""

# Where the schemas inside a schema are. Those "in place" apply to the same value again.
_ONE_IN_PLACE = frozenset({"not", "if", "then", "else"})
_LIST_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf"})
_MAP_IN_PLACE = frozenset({"dependentSchemas"})
_ONE_BELOW = frozenset(
    (
        "additionalProperties",
        "unevaluatedProperties",
        "propertyNames",
        "items",
        "unevaluatedItems",
        "contains",
    )
)
_LIST_BELOW = frozenset({"prefixItems"})
_MAP_BELOW = frozenset({"properties", "patternProperties", "$defs"})
_FOREIGN = frozenset({"definitions"})
"""Where servers' schemas of older drafts keep what they refer to."""
_ONE = _ONE_IN_PLACE | _ONE_BELOW
_LIST = _LIST_IN_PLACE | _LIST_BELOW
_MAP = _MAP_IN_PLACE | _MAP_BELOW
_IN_PLACE = _ONE_IN_PLACE | _LIST_IN_PLACE | _MAP_IN_PLACE
_PLAIN = frozenset(
    (
        "type",
        "enum",
        "const",
        "multipleOf",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxContains",
        "minContains",
        "maxProperties",
        "minProperties",
        "required",
        "dependentRequired",
        "format",
        "contentEncoding",
        "contentMediaType",
        "title",
        "description",
        "default",
        "deprecated",
        "readOnly",
        "writeOnly",
        "examples",
        "$comment",
        "$schema",
        "$ref",
        "$anchor",
    )
)
_RENAMED = {
    "definitions": "$defs",
    "dependencies": "dependentRequired",
    "additionalItems": "items",
}
"""Keys of older drafts, and what became of them."""
KEYWORDS = _ONE | _LIST | _MAP | _PLAIN


def prepare_schema(schema: Any, *, close: bool) -> dict[str, Any]:
    """Check a schema from the catalog and give the one that is used and published.

    Args:
        schema: what the operator wrote.
        close: whether objects that say nothing about other properties are closed to them.

    Raises:
        ConfigError: `catalog_invalid`; `place` is the JSON pointer inside the schema.
    """
    _check_size(schema)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise _invalid("a tool's schema must have `type: object` at the top", "")
    if schema.get("$schema", DIALECT) != DIALECT:
        raise _invalid("only JSON Schema 2020-12 is understood", "/$schema", f"write {DIALECT}")
    try:
        check_schema(schema)
    except jsonschema.SchemaError as exc:
        raise _invalid(
            f"not valid JSON Schema: the rule {exc.validator} is broken",
            pointer_of(exc.absolute_path),
        ) from None
    found = dict(walk(schema, ""))
    if len(found) > MAX_SUBSCHEMAS:
        raise _invalid(f"more than {MAX_SUBSCHEMAS} schemas inside one", "")
    for pointer, inner in found.items():
        _check_keywords(inner, pointer, found)
    check_in_place(found)
    prepared = deepcopy(schema)
    if close:
        _close(prepared)
    check_unevaluated(prepared)
    return prepared


def _check_size(schema: Any) -> None:
    try:
        text = canonical.encode(schema)
        canonical.check_depth(text.decode(), MAX_DEPTH)
    except InputError as exc:
        raise _invalid(f"the schema cannot be read: {exc.message}", "") from None
    if len(text) > MAX_BYTES:
        raise _invalid(f"the schema is larger than {MAX_BYTES} bytes", "")


def walk(schema: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Every schema inside `schema`, itself first, by JSON pointer."""
    yield pointer, schema
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        for name, inner in _children(key, value):
            yield from walk(inner, f"{pointer}/{escape(key)}{name}")


def _children(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if key in _ONE:
        yield "", value
    elif key in _LIST:
        for index, inner in enumerate(value):
            yield f"/{index}", inner
    elif key in _MAP or (key in _FOREIGN and isinstance(value, dict)):
        for name, inner in value.items():
            yield f"/{escape(name)}", inner


def _check_keywords(schema: Any, pointer: str, found: dict[str, Any]) -> None:
    if not isinstance(schema, dict):
        return
    for key in schema:
        if key not in KEYWORDS and not key.startswith("x-"):
            near = _RENAMED.get(key) or next(iter(get_close_matches(key, KEYWORDS, 1)), None)
            raise _invalid(
                "a key that JSON Schema 2020-12 would ignore",
                f"{pointer}/{escape(key)}",
                f"did you mean {near}?" if near else "remove it, or begin its name with x-",
            )
    if "$schema" in schema and pointer:
        raise _invalid("$schema may stand only at the top", pointer)
    ref = schema.get("$ref")
    if ref is not None and not (ref.startswith("#") and unquote(ref[1:]) == ref[1:] in found):
        raise _invalid(
            "$ref does not name a schema in this document",
            f"{pointer}/$ref",
            "write #/$defs/<name>; nothing is ever fetched",
        )
    if "format" in schema and schema["format"] not in FORMATS:
        raise _invalid(
            "a format that would not be checked",
            f"{pointer}/format",
            f"use a pattern, or one of: {', '.join(sorted(FORMATS))}",
        )
    try:
        for pattern in [schema.get("pattern", ""), *schema.get("patternProperties", {})]:
            compile_pattern(pattern)
    except ConfigError as exc:
        raise _invalid(exc.message, pointer, exc.hint) from None


def check_in_place(found: dict[str, Any]) -> None:
    """Refuse loops that never step down, and in-place nests that multiply."""
    cost: dict[str, int] = {}

    def visit(pointer: str, path: frozenset[str]) -> int:
        if pointer in path:
            raise _invalid("$ref leads back to itself without a step into the arguments", pointer)
        if pointer not in cost:
            inner = [visit(name, path | {pointer}) for name in _in_place(found[pointer], pointer)]
            cost[pointer] = 1 + sum(inner)
            if cost[pointer] > MAX_IN_PLACE:
                raise _invalid("too many alternatives for one value", pointer)
        return cost[pointer]

    try:
        for pointer in found:
            visit(pointer, frozenset())
    except RecursionError:
        raise _invalid("$ref leads through too many others", "") from None


def _in_place(schema: Any, pointer: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield unquote(schema["$ref"][1:])
    for key in _IN_PLACE & schema.keys():
        for name, _ in _children(key, schema[key]):
            yield f"{pointer}/{escape(key)}{name}"


def _close(schema: Any) -> None:
    """Refuse unnamed properties wherever an object lists its properties and says no more.

    Beside `allOf`, `$ref` and their like the listed properties are not all there are, so there
    `unevaluatedProperties` is used. Schemas reached only through those are left alone.
    """
    if not isinstance(schema, dict):
        return
    said = "additionalProperties" in schema or "unevaluatedProperties" in schema
    if schema.get("type") == "object" and not said:
        more = bool((_IN_PLACE | {"$ref"}) & schema.keys())
        schema["unevaluatedProperties" if more else "additionalProperties"] = False
    for inner in schema.get("properties", {}).values():
        _close(inner)
    _close(schema.get("items"))


def check_unevaluated(schema: Any) -> None:
    """jsonschema matches these two together with Python's `re`, which can take for ever."""
    keys = {key for _, inner in walk(schema, "") if isinstance(inner, dict) for key in inner}
    if {"unevaluatedProperties", "patternProperties"} <= keys:
        raise _invalid(
            "patternProperties cannot be used beside unevaluatedProperties",
            "",
            "say additionalProperties: false (or true) beside each patternProperties",
        )


def escape(name: str) -> str:
    """A key as one step of a JSON pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")


def pointer_of(path: Any) -> str:
    """A path of keys and numbers as a JSON pointer."""
    return "".join(f"/{escape(str(part))}" for part in path)


def _invalid(message: str, pointer: str, hint: str | None = None) -> ConfigError:
    return ConfigError(Code.CATALOG_INVALID, message, place=pointer, hint=hint)
