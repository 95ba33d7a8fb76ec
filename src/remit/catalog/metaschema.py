"""Whether a schema is JSON Schema 2020-12, found out quickly where it is.

The metaschema of 2020-12 is eight documents that refer to each other dynamically, so that it can be
extended (JSON Schema 2020-12 §8.2.3.2). Following that takes nine tenths of holding a schema
against it, which is most of looking at a tool. Nobody extends it here: the same rules stand in one
document then, made of the eight. What is broken in a schema that is none is told by the eight.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema_specifications import REGISTRY

_BASE = "https://json-schema.org/draft/2020-12/"
_SAID = frozenset(
    ("$schema", "$id", "$vocabulary", "$dynamicAnchor", "$comment", "title", "type", "allOf")
)
_FORMATS = FormatChecker(())


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check a schema against the metaschema of 2020-12; formats in it are not looked at.

    Raises:
        jsonschema.SchemaError: it breaks a rule of it. RecursionError: it is nested too deeply.
    """
    quick = _quick()
    try:
        if quick is not None and quick.is_valid(schema):
            return
    except RecursionError:
        pass
    Draft202012Validator.check_schema(schema, format_checker=_FORMATS)


@cache
def _quick() -> jsonschema.protocols.Validator | None:
    made = one_document()
    return None if made is None else Draft202012Validator(made, format_checker=_FORMATS)


def one_document() -> dict[str, Any] | None:
    """The metaschema as one document; None if the installed one is of another make than is known,
    for which only it can speak."""
    whole: Any = Draft202012Validator.META_SCHEMA
    parts = [REGISTRY.contents(_BASE + each["$ref"]) for each in whole["allOf"]] + [whole]
    made: dict[str, Any] = {
        "$schema": whole["$schema"],
        "type": whole["type"],
        "properties": {},
        "$defs": {},
    }
    for part in parts:
        if part["type"] != whole["type"] or part.keys() - _SAID - {"properties", "$defs"}:
            return None
        for key in ("properties", "$defs"):
            here = part.get(key, {})
            if here.keys() & made[key].keys():
                return None
            made[key] |= {name: _within(each) for name, each in here.items()}
    return made


def _within(rule: Any) -> Any:
    """A rule of one of the documents, with what it refers to in this one."""
    if isinstance(rule, list):
        return [_within(each) for each in rule]
    if not isinstance(rule, dict):
        return rule
    made = {key: _within(each) for key, each in rule.items() if key != "$dynamicRef"}
    if "$dynamicRef" in rule:
        made["$ref"] = "#"
    elif "$ref" in rule:
        made["$ref"] = "#" + rule["$ref"].partition("#")[2]
    return made
