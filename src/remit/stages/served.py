"""Results of the methods that are no `tools/call`: resources, prompts, completions.

They are read strictly as what MCP says that the method gives; members that the protocol does not name
for it, such as how long the server would have them kept, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_types import CompleteResult, EmptyResult, GetPromptResult, ReadResourceResult
from pydantic import BaseModel

from remit.model import Method
from remit.stages.respond import block_shown, masked, printable

_MODEL: Mapping[Method, type[BaseModel]] = {
    Method.RESOURCES_READ: ReadResourceResult,
    Method.RESOURCES_SUBSCRIBE: EmptyResult,
    Method.PROMPTS_GET: GetPromptResult,
    Method.COMPLETE: CompleteResult,
}
_MEMBERS: Mapping[Method, tuple[str, ...]] = {
    Method.RESOURCES_READ: ("contents",),
    Method.RESOURCES_SUBSCRIBE: (),
    Method.PROMPTS_GET: ("description", "messages"),
    Method.COMPLETE: ("completion",),
}


def read(method: Method, value: Any) -> dict[str, Any]:
    """The result of the method.

    Raises:
        ValueError: it is none.
    """
    found = _MODEL[method].model_validate(value, strict=False)
    dumped = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: dumped[name] for name in _MEMBERS[method] if name in dumped}


def blocks(method: Method, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a result goes to a model, as content blocks of a tool's result."""
    match method:
        case Method.RESOURCES_READ:
            return [{"type": "resource", "resource": _typed(each)} for each in result["contents"]]
        case Method.PROMPTS_GET:
            said = (
                [{"type": "text", "text": result["description"]}] if "description" in result else []
            )
            return said + [each["content"] for each in result["messages"]]
        case Method.RESOURCES_SUBSCRIBE:
            return []
        case _:
            return [{"type": "text", "text": each} for each in result["completion"]["values"]]


def _typed(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Contents with their media type: text that has none is plain text."""
    return {"mimeType": "text/plain", **contents} if "text" in contents else dict(contents)


def printed(method: Method, result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it may leave: text printable, credentials masked wherever they stand."""
    shown: dict[str, Any] = dict(result)
    match method:
        case Method.RESOURCES_READ:
            shown["contents"] = [
                {**each, "text": printable(each["text"].encode())} if "text" in each else each
                for each in result["contents"]
            ]
        case Method.PROMPTS_GET:
            shown["messages"] = [
                {**each, "content": block_shown(each["content"])} for each in result["messages"]
            ]
        case Method.RESOURCES_SUBSCRIBE:
            return {}
        case _:
            found = result["completion"]
            values = [printable(each.encode()) for each in found["values"]]
            shown["completion"] = {**found, "values": values}
    whole: dict[str, Any] = masked(shown)
    return whole
