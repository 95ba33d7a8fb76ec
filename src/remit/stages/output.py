"""What of a run's output is stored and answered: checked, redacted, masked, or withheld.

Redaction comes before everything else that keeps or shows output: where policy redacts, nothing
that was printed is kept but the redacted structure. Only then what policy does not let back is
withheld from the caller; operators still find it with the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mcp_types import CallToolResult

from remit.canonical import encode, parse
from remit.errors import Code
from remit.model import Constraints, Frozen, Method, ResultKind, RunResult, RunState, Tool
from remit.ports import ArgumentCheck
from remit.stages import served
from remit.stages.narrow import narrowed_output
from remit.stages.redact import POLICY_REDACTS, UNSCRUBBED, removed, replaced, withheld
from remit.stages.respond import (
    as_text,
    block_shown,
    content_of,
    failure_content,
    masked,
    printable,
    question_of,
)
from remit.stages.review import AS_IT_IS, Reviewed

TEXT, JSON = "text/plain", "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The code of a run as its caller hears it, the content, and the result as it is kept."""

    code: Code | None
    reply: Frozen
    kept: RunResult


class _Withheld(Exception):
    """The output is well-formed, and not what policy lets back."""


def streamed(constraints: Constraints) -> bool:
    """Whether a waiting caller may see what a run writes on standard error."""
    return not constraints.output_redact and _lets(constraints, TEXT)


def output(
    check: ArgumentCheck,
    tool: Tool,
    constraints: Constraints,
    *,
    state: RunState,
    code: Code | None,
    result: RunResult,
    review: Reviewed = AS_IT_IS,
) -> Output:
    """The content of a run that ended so, under the constraints that it was granted with, and what
    policy said of its result.

    A write whose output is invalid or withheld still happened: only its reply says so. Never
    raises: no output whatever may leave a run without its outcome.
    """
    granted, constraints = constraints, narrowed_output(constraints, review.constraints)
    redacts = bool(constraints.output_redact) and state is not RunState.NEVER_STARTED
    kept = withheld(_marked(result)) if redacts else result
    failed = code if code is not None or state is RunState.SUCCEEDED else Code.RUN_FAILED
    if failed is None and result.stdout_truncated:
        failed = Code.OUTPUT_TOO_LARGE
    if failed is None and UNSCRUBBED in result.limits_hit:
        failed = Code.OUTPUT_WITHHELD
    kept_back = review.keeps_back(state, result)
    if failed is None and kept_back:
        failed = Code.OUTPUT_WITHHELD
    if failed is None:
        try:
            if constraints != granted:  # what the call's own constraints withhold stays withheld
                _content(check, tool, granted, result.stdout)
            content, structure = _content(check, tool, constraints, result.stdout)
        except _Withheld:
            failed = Code.OUTPUT_WITHHELD
        except Exception:  # noqa: BLE001 - whatever a tool prints, its run has an outcome
            failed = Code.OUTPUT_INVALID
        else:
            kept = replace(kept, stdout=structure) if redacts else kept
            return Output(code=None, reply=content, kept=kept)
    hidden = redacts or kept_back or not _lets(constraints, TEXT)
    told = kept if tool.upstream is None else _said_by_server(kept)
    reply = failure_content(
        tool, state, failed, withheld(told) if hidden else told, hidden=hidden, why=review.said
    )
    return Output(code=failed if state is RunState.SUCCEEDED else code, reply=reply, kept=kept)


def _said_by_server(result: RunResult) -> RunResult:
    """What a caller may read of a call that failed: the server's error or Remit's words on it.

    What a server logs is for operators, and half an answer is of use to nobody.
    """
    return replace(result, stdout=b"" if result.stdout_truncated else result.stdout, stderr=b"")


def _marked(result: RunResult) -> RunResult:
    return replace(result, limits_hit=(*result.limits_hit, POLICY_REDACTS))


def _lets(constraints: Constraints, kind: str) -> bool:
    allowed = constraints.output_content_types
    return allowed is None or kind in allowed


def _content(
    check: ArgumentCheck, tool: Tool, constraints: Constraints, stdout: bytes
) -> tuple[Frozen, bytes]:
    """The content of a run that succeeded, and what is kept of its output where it is redacted.

    Raises:
        _Withheld; or anything else, where the output is not what the tool declares.
    """
    match tool.result:
        case ResultKind.TEXT:
            _require(not constraints.output_redact and _lets(constraints, TEXT))
            content = content_of([_text(printable(stdout))], None, error=False)
            return content, stdout
        case ResultKind.JSON:
            value = parse(stdout)
            _check_schema(check, tool, value)
            return _structured(check, tool, constraints, value, error=False)
        case ResultKind.MCP:
            return _mcp(check, tool, constraints, stdout)


def _mcp(
    check: ArgumentCheck, tool: Tool, constraints: Constraints, stdout: bytes
) -> tuple[Frozen, bytes]:
    value = parse(stdout)
    if tool.upstream is not None and value.get("resultType") == "input_required":
        _require(not constraints.output_redact and _lets(constraints, TEXT))
        requests = value["inputRequests"]
        return question_of(tool.upstream.server, requests, value["requestState"]), stdout
    if tool.method is not Method.TOOLS_CALL:
        return _served(tool.method, constraints, served.read(tool.method, value), stdout)
    result = CallToolResult.model_validate(value, strict=False)
    error = bool(result.is_error)
    if not error:
        _check_schema(check, tool, result.structured_content)
    dumped = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    structure = dumped.get("structuredContent")
    if constraints.output_redact:
        # What it says in words may repeat what the structure no longer holds.
        _require(structure is not None)
        return _structured(check, tool, constraints, structure, error=error)
    _require(structure is None or _lets(constraints, JSON))
    for block in dumped["content"]:
        _require(constraints.output_content_types is None or _lets(constraints, _kind(block)))
    blocks = [block_shown(block) for block in dumped["content"]]
    return content_of(blocks, masked(structure), error=error), stdout


def _served(
    method: Method, constraints: Constraints, result: dict[str, Any], stdout: bytes
) -> tuple[Frozen, bytes]:
    """The result of another method, in the place of a tool's structure.

    A redacted member becomes `[redacted]`, or goes where it could not be that; where the result
    would be none of the method's any more, it is withheld.
    """
    for block in served.blocks(method, result):
        _require(constraints.output_content_types is None or _lets(constraints, _kind(block)))
    pointers = constraints.output_redact
    if not pointers:
        return content_of([], served.printed(method, result), error=False), stdout
    for way in (replaced(result, pointers), removed(result, pointers)):
        try:
            left = served.read(method, way)
        except ValueError:
            continue
        return content_of([], served.printed(method, left), error=False), encode(left)
    raise _Withheld


def _structured(
    check: ArgumentCheck, tool: Tool, constraints: Constraints, value: Any, *, error: bool
) -> tuple[Frozen, bytes]:
    """The structure as policy redacts it, and the same as text.

    A redacted member becomes `[redacted]`; where the tool's schema does not let it be that, it
    goes altogether; where the schema does not let it go either, the output is withheld.
    """
    _require(_lets(constraints, JSON))
    pointers = constraints.output_redact
    if pointers:
        ways = (replaced(value, pointers), removed(value, pointers))
        fitting = [way for way in ways if error or check.fits(tool, way)]
        _require(bool(fitting))
        value = fitting[0]
    shown = masked(value)
    return content_of([_text(as_text(shown))], shown, error=error), encode(value)


def _kind(block: Mapping[str, Any]) -> str:
    """The media type of a content block; empty, and so never let through, where it has none, or
    one that a block of its kind cannot have."""
    sort = block.get("type")
    if sort == "text":
        return TEXT
    found = block.get("mimeType") or block.get("resource", {}).get("mimeType") or ""
    kind = str(found).partition(";")[0].strip().lower()
    return "" if sort in ("image", "audio") and not kind.startswith(f"{sort}/") else kind


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _require(holds: bool) -> None:
    if not holds:
        raise _Withheld


def _check_schema(check: ArgumentCheck, tool: Tool, value: Any) -> None:
    """Raise ValueError when the tool declares an output schema and the value is not of it."""
    if not check.fits(tool, value):
        raise ValueError("output schema")
