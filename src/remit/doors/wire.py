"""Remit's values as MCP puts them on the wire, and MCP's list cursors as Remit reads them.

Dicts go in and come out: the library's models validate and shape them for each revision.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from mcp_types import CallToolResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from remit.canonical import digest
from remit.errors import Code, InputError
from remit.ledger.receipt import receipt_json
from remit.model import PROMPT, Caller, Effect, Reply, Tool

DECISION = "dev.remit/decision"
RECEIPT = "dev.remit/receipt"

X_MCP_HEADER = "x-mcp-header"
MAX_WIRE_TOOLS = 20_000


# ---------------------------------------------------------------------------------------- results


def result_of(reply: Reply, version: str) -> dict[str, Any]:
    """A reply as a `CallToolResult` of this revision.

    Content that is no MCP content is withheld here: the run is over, and its record must reach
    the caller even when its output cannot.
    """
    content = reply.content.value()
    structured = None if reply.structured is None else reply.structured.value()
    decision = dict(reply.decision)
    if reply.replayed:
        decision["replayed"] = True
    is_error = reply.is_error
    if not _is_content(content):
        decision["code"] = Code.OUTPUT_INVALID.value
        content = [{"type": "text", "text": f"The output is withheld [{Code.OUTPUT_INVALID}]"}]
        structured, is_error = None, True
    meta: dict[str, Any] = {DECISION: decision}
    if reply.receipt is not None:
        meta[RECEIPT] = receipt_json(reply.receipt, reply.unsafe)
    if reply.question is not None and version in MODERN_PROTOCOL_VERSIONS:
        return {
            "resultType": "input_required",
            "inputRequests": reply.question.requests.value(),
            "requestState": reply.question.state,
            "_meta": meta,
        }
    result: dict[str, Any] = {
        "resultType": "complete",
        "content": content,
        "isError": is_error,
        "_meta": meta,
    }
    if structured is not None and (version in MODERN_PROTOCOL_VERSIONS or _is_object(structured)):
        result["structuredContent"] = structured
    return result


def meta_of(reply: Reply) -> dict[str, Any]:
    """The machine part of a reply and its receipt, as `_meta` has them."""
    decision = dict(reply.decision)
    if reply.replayed:
        decision["replayed"] = True
    meta: dict[str, Any] = {DECISION: decision}
    if reply.receipt is not None:
        meta[RECEIPT] = receipt_json(reply.receipt, reply.unsafe)
    return meta


def _is_object(value: Any) -> bool:
    """Earlier revisions know structured content only as an object."""
    return isinstance(value, dict)


def _is_content(content: Any) -> bool:
    if not isinstance(content, list):
        return False
    if all(_is_text(block) for block in content):
        return True
    try:
        CallToolResult.model_validate({"content": content}, by_name=False)
    except ValidationError:
        return False
    return True


def _is_text(block: Any) -> bool:
    return (
        isinstance(block, dict)
        and block.keys() == {"type", "text"}
        and block["type"] == "text"
        and isinstance(block["text"], str)
    )


def text_of(reply: Reply) -> str:
    """The first text of a reply, for where the protocol has room for nothing else."""
    for block in reply.content.value():
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            return str(block["text"])
    return "Remit could not carry out this call"


# ------------------------------------------------------------------------------------------ tools


class WireTools:
    """Tools as they are listed, made once for each digest."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, Any]] = {}

    def of(self, tool: Tool) -> dict[str, Any]:
        """The tool as it is listed; the caller must not change it."""
        made = self._made.get(tool.digest) if tool.digest else None
        if made is None:
            if len(self._made) >= MAX_WIRE_TOOLS:
                self._made.clear()
            made = self._made[tool.digest] = wire_tool(tool)
        return made


def wire_tool(tool: Tool) -> dict[str, Any]:
    """One entry of `tools/list`; the hints come from the operator's catalog."""
    listed: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": _published(tool.input_schema.value()),
        "annotations": {
            "readOnlyHint": tool.effect is Effect.READ,
            "destructiveHint": tool.effect is Effect.DESTRUCTIVE,
            "idempotentHint": tool.idempotent or tool.effect is Effect.READ,
            "openWorldHint": tool.open_world,
        },
    }
    if tool.title is not None:
        listed["title"] = tool.title
    if tool.output_schema is not None:
        listed["outputSchema"] = tool.output_schema.value()
    return listed


def wire_prompt(prompt: Tool) -> dict[str, Any]:
    """One entry of `prompts/list`: the server's words as they were accepted."""
    schema = prompt.input_schema.value()
    arguments = [
        {"name": name, **{part: told[part] for part in ("title", "description") if part in told}}
        | ({"required": True} if name in schema["required"] else {})
        for name, told in schema["properties"].items()
    ]
    listed: dict[str, Any] = {"name": prompt.name.removeprefix(PROMPT)}
    if prompt.title is not None:
        listed["title"] = prompt.title
    if prompt.description:
        listed["description"] = prompt.description
    return {**listed, "arguments": arguments} if arguments else listed


def _published(schema: Any) -> Any:
    """The schema without `x-mcp-header`: Remit acts on no argument's copy in a header, so it
    asks no client to send one and lets no intermediary rely on it."""
    match schema:
        case dict():
            return {
                key: _published(value)
                for key, value in schema.items()
                if key != X_MCP_HEADER or not isinstance(value, str)
            }
        case list():
            return [_published(item) for item in schema]
        case _:
            return schema


def fit(listed: Mapping[str, Any], version: str) -> Mapping[str, Any]:
    """A listed tool for this revision: earlier ones know only output that is an object."""
    if version in MODERN_PROTOCOL_VERSIONS:
        return listed
    output = listed.get("outputSchema")
    if output is None or output.get("type") == "object":
        return listed
    return {key: value for key, value in listed.items() if key != "outputSchema"}


# ------------------------------------------------------------------------------------------ pages


def page(
    tools: Sequence[Tool], caller: Caller, after: str, size: int
) -> tuple[Sequence[Tool], str | None]:
    """The page of the tools (sorted by name) after that name, and the cursor of the next.

    A cursor names the last tool of its page and the caller it was given to. It is no secret and
    no permission: what it leads to is cut from what this caller may see now.
    """
    start = bisect_right(tools, after, key=lambda tool: tool.name) if after else 0
    shown = tools[start : start + size]
    more = start + size < len(tools)
    return shown, _cursor(shown[-1].name, caller) if more else None


def page_of(
    items: Sequence[tuple[str, Any]], caller: Caller, after: str, size: int
) -> tuple[Sequence[tuple[str, Any]], str | None]:
    """The page of named items (sorted by name) after that name, and the cursor of the next."""
    start = bisect_right(items, after, key=lambda item: item[0]) if after else 0
    shown = items[start : start + size]
    more = start + size < len(items)
    return shown, _cursor(shown[-1][0], caller) if more else None


def _cursor(name: str, caller: Caller) -> str:
    return base64.urlsafe_b64encode(_seal(name, caller) + name.encode()).decode()


def _seal(name: str, caller: Caller) -> bytes:
    text = f"{caller.id}\n{name}".encode()
    return bytes.fromhex(digest("remit.cursor/1", text).removeprefix("sha256:"))[:12]


def read_cursor(cursor: str | None, caller: Caller) -> str:
    """The name after which a page begins; empty for the first.

    Raises:
        InputError: `invalid_arguments`: this cursor was not given to this caller.
    """
    if cursor is None:
        return ""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
        name = data[12:].decode("utf-8")
    except (binascii.Error, ValueError):
        data, name = b"", ""
    if data[:12] != _seal(name, caller):
        raise InputError(Code.INVALID_ARGUMENTS, "Invalid cursor", hint="list from the start")
    return name
