"""How each method that is a call is asked of a server, and where the names of what it asks come from.

A tool has the server's own name. What is asked for otherwise has a name that no tool can have,
because it begins with the method: `prompts/get:NAME`, `resources/read`, `completion/complete`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remit.model import PROMPT, Method, UpstreamCall


def params_of(method: Method, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the request (MCP 2025-11-25 §Tools, §Prompts, §Resources, §Completion)."""
    match method:
        case Method.TOOLS_CALL:
            return {"name": name, "arguments": dict(arguments)}
        case Method.PROMPTS_GET:
            return {"name": name.removeprefix(PROMPT), "arguments": dict(arguments)}
        case Method.RESOURCES_READ | Method.RESOURCES_SUBSCRIBE | Method.COMPLETE:
            return dict(arguments)


def header_name(call: UpstreamCall) -> str | None:
    """What a modern server is told in `Mcp-Name`: the same as its body says."""
    match call.method:
        case Method.TOOLS_CALL:
            return call.tool
        case Method.PROMPTS_GET:
            return call.tool.removeprefix(PROMPT)
        case Method.RESOURCES_READ:
            return str(call.arguments.value()["uri"])
        case Method.RESOURCES_SUBSCRIBE | Method.COMPLETE:
            return None
