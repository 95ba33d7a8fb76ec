"""Broken rules in words that hold only what the operator wrote, never what the caller sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import ValidationError

_MAX_LISTED = 12

_RULES = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} properties",
    "maxProperties": "must have at most {} properties",
    "pattern": "must match the pattern {}",
    "format": "must be in the format {}",
    "const": "must be {}",
    "enum": "must be one of {}",
    "type": "must be of type {}",
    "uniqueItems": "must not hold the same item twice",
    "anyOf": "matches none of the alternatives of its schema",
    "oneOf": "does not match exactly one of the alternatives of its schema",
    "not": "is what its schema excludes",
    "contains": "does not hold the items its schema asks for",
    "additionalProperties": "holds a property that the schema does not name",
    "unevaluatedProperties": "holds a property that the schema does not name",
    "unevaluatedItems": "holds an item that the schema does not allow",
    "propertyNames": "has a property name that the schema does not allow",
    "dependentRequired": "lacks a property that another one requires",
}


def rule_of(error: ValidationError) -> str:
    """The rule that was broken, with the schema's own limit and without the value."""
    keyword, limit = str(error.validator), error.validator_value
    if keyword == "required" and isinstance(error.instance, Mapping):
        wanted = limit if isinstance(limit, list) else []
        missing = [name for name in wanted if name not in error.instance]
        return f"lacks the required {_listed(missing)}"
    return _RULES.get(keyword, f"breaks the rule {keyword}").format(_listed(limit))


def hint_for(error: ValidationError) -> str | None:
    """What would be allowed instead, where the schema lists it."""
    if error.validator in ("additionalProperties", "unevaluatedProperties"):
        known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
        return f"the properties here are: {_listed(list(known)) or 'none'}"
    return "correct the arguments to fit the tool's input schema, then call again"


def place_of(schema: Mapping[str, Any], error: ValidationError) -> str:
    """The JSON pointer of the broken value; names the schema does not know are written `*`."""
    known = _property_names(schema)
    parts = [
        str(part) if isinstance(part, int) or part in known else "*" for part in error.absolute_path
    ]
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _property_names(schema: Any) -> set[str]:
    names: set[str] = set()
    rest = [schema]
    while rest:
        inner = rest.pop()
        if isinstance(inner, dict):
            properties = inner.get("properties")
            names |= set(properties) if isinstance(properties, dict) else set()
            rest += inner.values()
        elif isinstance(inner, list):
            rest += inner
    return names


def _listed(limit: Any) -> str:
    items = limit if isinstance(limit, list) else [limit]
    words = [json.dumps(item, ensure_ascii=False)[:120] for item in items[:_MAX_LISTED]]
    more = [f"and {len(items) - _MAX_LISTED} more"] if len(items) > _MAX_LISTED else []
    return ", ".join(words + more)
