"""Schemas of MCP servers, which nobody here wrote: made checkable, or refused.

A schema may be of JSON Schema 2020-12, 2019-09 or draft-07. What is published stays as the server
wrote it; what arguments are held against is the same in the words of 2020-12, without what would be
a remark there (`format`), with every reference a pointer into the document, and nothing fetched.
Unlike in an operator's schema, keys that are not known are passed over, as the standard has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import jsonschema
from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator, FormatChecker

from remit.catalog.metaschema import check_schema
from remit.catalog.patterns import compile_pattern
from remit.catalog.safety import invalid
from remit.catalog.schema import (
    DIALECT,
    check_in_place,
    check_unevaluated,
    escape,
    pointer_of,
    walk,
)
from remit.errors import ConfigError

MAX_SUBSCHEMAS = 5_000

_VALIDATORS: Mapping[str, Any] = {
    DIALECT: Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "http://json-schema.org/draft-07/schema": Draft7Validator,
    "https://json-schema.org/draft-07/schema": Draft7Validator,
}
_LEFT_OUT = frozenset({"$schema", "$id", "id", "$vocabulary", "$recursiveAnchor", "format"})
_BESIDE_REF = frozenset({"$ref", "$defs", "definitions", "title", "description"})
_ONE = frozenset(
    (
        *("not", "if", "then", "else", "additionalProperties", "unevaluatedProperties"),
        *("propertyNames", "items", "additionalItems", "unevaluatedItems", "contains"),
    )
)
_LIST = frozenset({"allOf", "anyOf", "oneOf", "items", "prefixItems"})
_MAP = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A server's schema as it is checked, and the JSON pointers of the patterns that are left to
    the server, because they cannot be matched in linear time."""

    schema: dict[str, Any]
    unchecked: tuple[str, ...] = ()


def prepare_foreign(schema: Mapping[str, Any]) -> Foreign:
    """Make a server's schema one that arguments can be checked against in bounded time.

    Args:
        schema: as `upstreams.read_definition` gives it: of bounded size and depth.

    Raises:
        ConfigError: `catalog_invalid`: it is of another dialect, not valid in its own, refers to
            something outside of itself, or cannot be checked in bounded time. `place` is a JSON
            pointer in the schema.
    """
    dialect = _dialect(schema)
    modern = _Modern(dialect)
    made = modern.schema(schema, "")
    # Keys that an older dialect does not know were not looked at, and have a meaning now.
    fault = None if dialect is Draft202012Validator else _fault(Draft202012Validator, made)
    if fault is not None:
        raise fault
    found = dict(walk(made, ""))
    if len(found) > MAX_SUBSCHEMAS:
        raise invalid(f"more than {MAX_SUBSCHEMAS} schemas inside one", "")
    anchors = _anchors(found)
    for pointer, inner in found.items():
        if isinstance(inner, dict):
            _point(inner, pointer, found, anchors)
    check_in_place(dict(walk(made, "")))
    check_unevaluated(made)
    return Foreign(schema=made, unchecked=tuple(modern.unchecked))


def _dialect(schema: Mapping[str, Any]) -> Any:
    """The validator of the schema's own dialect, which it must be valid in.

    Without `$schema` it is 2020-12 (MCP 2025-11-25 §JSON Schema Usage); what older servers write
    without it is often draft-07.
    """
    said = schema.get("$schema")
    chosen: Any = Draft202012Validator
    if said is None:
        fault = _fault(chosen, schema)
        if fault is not None and _fault(Draft7Validator, schema) is None:
            return Draft7Validator
    else:
        chosen = _VALIDATORS.get(said.rstrip("#")) if isinstance(said, str) else None
        if chosen is None:
            raise invalid(
                "the schema is of a dialect that is not known here",
                "/$schema",
                "known are JSON Schema 2020-12, 2019-09 and draft-07",
            )
        fault = _fault(chosen, schema)
    if fault is not None:
        raise fault
    return chosen


def _fault(validator: Any, schema: Mapping[str, Any]) -> ConfigError | None:
    try:
        if validator is Draft202012Validator:
            check_schema(schema)
        else:
            validator.check_schema(schema, format_checker=FormatChecker(()))
    except jsonschema.SchemaError as exc:
        rule = f"not valid JSON Schema: the rule {exc.validator} is broken"
        return invalid(rule, pointer_of(exc.absolute_path))
    except RecursionError:
        return invalid("the schema is nested too deeply", "")
    return None


class _Modern:
    """Says what a schema says in the words of 2020-12; every dict and list is a new one."""

    def __init__(self, dialect: Any) -> None:
        self._seven = dialect is Draft7Validator
        self._older = dialect is not Draft202012Validator
        self.unchecked: list[str] = []

    def schema(self, schema: Any, pointer: str) -> Any:
        if not isinstance(schema, dict):
            return schema
        if pointer and isinstance(schema.get("$id"), str) and not schema["$id"].startswith("#"):
            raise invalid("a schema inside has an address of its own", f"{pointer}/$id")
        kept = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
        if self._seven and "$ref" in kept:
            kept = {key: value for key, value in kept.items() if key in _BESIDE_REF}
        self._pattern(kept, pointer)
        made = {key: self._inside(key, value, pointer) for key, value in kept.items()}
        return self._renamed(made) if self._older else made

    def _pattern(self, schema: dict[str, Any], pointer: str) -> None:
        """Leave a pattern to the server if it cannot be matched here in linear time."""
        pattern = schema.get("pattern")
        try:
            compile_pattern(pattern if isinstance(pattern, str) else "")
        except ConfigError:
            del schema["pattern"]
            self.unchecked.append(f"{pointer}/pattern")
        named = schema.get("patternProperties")
        for pattern in named if isinstance(named, dict) else ():
            try:
                compile_pattern(pattern)
            except ConfigError as exc:
                raise invalid(exc.message, f"{pointer}/patternProperties", exc.hint) from None

    def _inside(self, key: str, value: Any, pointer: str) -> Any:
        here = f"{pointer}/{escape(key)}"
        if key in _LIST and isinstance(value, list):
            return [self.schema(each, f"{here}/{n}") for n, each in enumerate(value)]
        if key in _MAP and isinstance(value, dict):
            return {name: self.schema(each, f"{here}/{name}") for name, each in value.items()}
        return self.schema(value, here) if key in _ONE else value

    def _renamed(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Keys of 2019-09 and draft-07 as they are called since."""
        more = schema.pop("additionalItems", None)
        if isinstance(schema.get("items"), list):
            schema["prefixItems"] = schema.pop("items")
            if more is not None:
                schema["items"] = more
        depending = schema.pop("dependencies", None)
        for name, needed in depending.items() if isinstance(depending, dict) else ():
            kind = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
            beside = schema.get(kind)
            schema[kind] = {**(beside if isinstance(beside, dict) else {}), name: needed}
        if "$recursiveRef" in schema:
            schema["$ref"] = schema.pop("$recursiveRef")
        return schema


def _anchors(found: Mapping[str, Any]) -> dict[str, str]:
    """From the name of each anchor to the pointer of its schema."""
    anchors: dict[str, str] = {}
    for pointer, inner in found.items():
        for key in ("$anchor", "$dynamicAnchor"):
            name = inner.pop(key, None) if isinstance(inner, dict) else None
            if name is not None and anchors.setdefault(name, pointer) != pointer:
                raise invalid("two schemas inside have one anchor", f"{pointer}/{key}")
    return anchors


def _point(
    schema: dict[str, Any], pointer: str, found: Mapping[str, Any], anchors: Mapping[str, str]
) -> None:
    """Make each reference a pointer to a schema in this document.

    There is one document and no schema in it has an address of its own, so that a dynamic
    reference means what a plain one does (JSON Schema 2020-12 §8.2.3.2).
    """
    for key in ("$ref", "$dynamicRef"):
        ref = schema.pop(key, None)
        if ref is None:
            continue
        fragment = unquote(ref[1:])
        target = anchors.get(fragment, fragment)
        if not ref.startswith("#") or target not in found:
            raise invalid(
                "a reference does not name a schema in this document",
                f"{pointer}/{escape(key)}",
                "nothing is ever fetched",
            )
        if "$ref" in schema:
            schema.setdefault("allOf", []).append({"$ref": schema["$ref"]})
        schema["$ref"] = "#" + quote(target, safe="/~!$&'()*+,;=:@")
