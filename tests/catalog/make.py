"""Tools for these tests, described as an operator would."""

from __future__ import annotations

from typing import Any

import pytest

from remit.catalog.command import build_tool
from remit.catalog.spec import ToolSpec
from remit.errors import Code, ConfigError
from remit.model import Tool

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "service": {"type": "string", "maxLength": 64},
        "environment": {"type": "string", "enum": ["staging", "production"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "note": {"type": "string"},
        "names": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["service", "environment"],
}


def described(**changes: Any) -> dict[str, Any]:
    """A whole description, with some keys changed; None takes a key away."""
    whole: dict[str, Any] = {
        "name": "restart",
        "description": "Restarts a service.",
        "input_schema": SCHEMA,
        "command": {"argv": ["/usr/bin/systemctl", "restart", "--", "{service}"]},
        "effect": "write",
    }
    whole |= changes
    return {key: value for key, value in whole.items() if value is not None}


def tool(**changes: Any) -> Tool:
    return build_tool(ToolSpec.model_validate(described(**changes)))


def refused(**changes: Any) -> ConfigError:
    """The error that such a description gives; it has all that an operator needs."""
    with pytest.raises(ConfigError) as caught:
        tool(**changes)
    assert caught.value.code is Code.CATALOG_INVALID
    assert caught.value.place
    return caught.value


def with_argv(*argv: str) -> dict[str, Any]:
    return {"command": {"argv": list(argv)}}
