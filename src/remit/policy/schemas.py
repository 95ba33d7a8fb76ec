"""The schemas of the policy documents in the form that OPA's type checker reads.

OPA (https://www.openpolicyagent.org/docs/latest/policy-language/#schema) takes the types of `properties`,
`items`, `anyOf` and `additionalProperties` and knows neither the 2020-12 dialect nor a type that is
only implied by `const` or `enum`. So references are written out and types made explicit; bounds
and patterns, which have nothing to say there, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

NAMES = ("remit.input-1", "remit.decision-1")

_KEPT = ("title", "description", "type", "enum", "required", "additionalProperties")
_TYPES = {str: "string", bool: "boolean", int: "integer", type(None): "null"}


def shipped(name: str) -> dict[str, Any]:
    """One of `NAMES` as it is shipped, in the 2020-12 dialect."""
    text = resources.files("remit").joinpath(f"schemas/{name}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def for_opa(name: str) -> dict[str, Any]:
    """One of `NAMES` for `opa check --schema` and the annotation `schema["<name>"]`."""
    whole = shipped(name)
    plain: dict[str, Any] = _plain(whole, whole.get("$defs", {}))
    return {"$schema": "http://json-schema.org/draft-07/schema#", **plain}


def _plain(node: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _plain({**known[node["$ref"].rpartition("/")[2]], **rest}, known)
    made: dict[str, Any] = {
        key: _plain(node[key], known) if key == "additionalProperties" else node[key]
        for key in _KEPT
        if key in node
    }
    if "const" in node:
        made["enum"] = [node["const"]]
    if "enum" in made and "type" not in made:
        made["type"] = _type_of(made["enum"])
    if isinstance(node.get("properties"), dict):
        made["properties"] = {
            key: _plain(value, known) for key, value in node["properties"].items()
        }
    if "items" in node:
        made["items"] = _plain(node["items"], known)
    for either in ("anyOf", "oneOf"):
        if either in node:
            made["anyOf"] = [_plain(each, known) for each in node[either]]
    return made


def _type_of(values: list[Any]) -> Any:
    types = sorted({_TYPES[type(value)] for value in values})
    return types[0] if len(types) == 1 else types
