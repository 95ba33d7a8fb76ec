"""Remit's values as the admin API puts them into JSON, and the bodies that it takes.

Times are milliseconds since the epoch (`…_ms`), as in the values themselves. Whatever an agent
said stands under `claimed`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from remit.errors import RemitError
from remit.model import AccessRequest, Approval, Caller, Entry, Frame, Run, Tool, Verdict
from remit.quorum import missing

MAX_REASON = 1_000


class Body(BaseModel):
    """What comes in: no field that is not named, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class VoteBody(Body):
    """A vote names the plan hash that was looked at, so that it can fit no other plan."""

    plan_hash: str = Field(min_length=1, max_length=100)
    verdict: Verdict = Field(strict=False)
    reason: str | None = Field(default=None, max_length=MAX_REASON)


class ResolveBody(Body):
    succeeded: bool
    note: str = Field(min_length=1, max_length=MAX_REASON)


class NoteBody(Body):
    note: str = Field(min_length=1, max_length=MAX_REASON)


class ReasonBody(Body):
    reason: str = Field(min_length=1, max_length=MAX_REASON)


class EmptyBody(Body):
    """No fields."""


def plain(value: Any) -> Any:
    """A value of enums, tuples and sets as JSON has it."""
    match value:
        case Enum():
            return value.value
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(plain(item) for item in value)
        case _:
            return value


def error_json(exc: RemitError) -> dict[str, Any]:
    return {
        "code": exc.code.value,
        "message": exc.message,
        "place": exc.place,
        "hint": exc.hint,
    }


def caller_json(caller: Caller) -> dict[str, Any]:
    return {
        "tenant": caller.tenant,
        "subject": caller.subject,
        "kind": caller.kind.value,
        "groups": list(caller.groups),
        "chain": [{"subject": a.subject, "kind": a.kind.value} for a in caller.chain],
    }


def approval_json(approval: Approval) -> dict[str, Any]:
    """An approval; `shown` is exactly what its approvers are shown, claims apart in `claimed`."""
    return {
        "id": approval.id,
        "state": approval.state.value,
        "plan_hash": approval.plan_hash,
        "call_digest": approval.call_digest,
        "caller": caller_json(approval.caller),
        "tool": approval.tool_name,
        "environment": approval.environment,
        "rule": plain(asdict(approval.rule)),
        "opened_ms": approval.opened_ms,
        "expires_ms": approval.expires_ms,
        "votes": [plain(asdict(vote)) for vote in approval.votes],
        "missing": [plain(asdict(each)) for each in missing(approval.rule, approval.votes)],
        "supersedes": approval.supersedes,
        "run_id": approval.run_id,
        "shown": approval.shown.value(),
    }


def request_json(request: AccessRequest) -> dict[str, Any]:
    """A request for access; all that the agent chose stands in `claimed`."""
    return {
        "id": request.id,
        "state": request.state.value,
        "caller": caller_json(request.caller),
        "tool": request.tool_name,
        "environment": request.environment,
        "decision_id": request.decision_id,
        "codes": list(request.codes),
        "filed_ms": request.filed_ms,
        "closed_ms": request.closed_ms,
        "closed_by": request.closed_by,
        "note": request.note,
        "claimed": {"reason": request.reason, "arguments": request.arguments.value()},
    }


def run_json(run: Run) -> dict[str, Any]:
    return {_RUN_NAMES.get(name, name): value for name, value in plain(asdict(run)).items()}


_RUN_NAMES = {"tool_name": "tool"}


def output_json(output: Mapping[str, bytes]) -> dict[str, Any]:
    """Each channel as text and, where that is not exactly what was printed, as base64 too."""
    return {name: _exact(output.get(name, b"")) for name in ("stdout", "stderr")}


def frame_json(frame: Frame) -> dict[str, Any]:
    """A piece of output as it came; as base64 too where that is not exactly its text."""
    return {"seq": frame.seq, "channel": frame.channel.value, **_exact(frame.data)}


def _exact(data: bytes) -> dict[str, Any]:
    text = data.decode("utf-8", "replace")
    found: dict[str, Any] = {"text": text, "bytes": len(data)}
    if text.encode("utf-8") != data:
        found["base64"] = base64.b64encode(data).decode("ascii")
    return found


def kept_json(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be known of stored output: whether it was cut, and why it is not all there."""
    limits = said.get("limits_hit", [])
    return {
        "truncated": bool(said.get("truncated", False)),
        "withheld": next((why for name, why in _WITHHELD if name in limits), None),
        "blanked": said.get("blanked", 0),
    }


_WITHHELD = (
    ("redacted", "policy redacts it; what is left of its structure is kept"),
    ("unscrubbed", "it could not be searched for the credentials that the run had"),
)


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry: its number and leaf hash, and the entry itself as it stands in the log."""
    return {
        "index": entry.index,
        "leaf_hash": base64.b64encode(entry.leaf_hash).decode("ascii"),
        "entry": json.loads(entry.text),
    }


def tool_json(tool: Tool) -> dict[str, Any]:
    """A tool of the catalog, with what its digest covers."""
    fields = plain({k: v for k, v in asdict(tool).items() if k not in _SCHEMAS})
    fields["input_schema"] = tool.input_schema.value()
    fields["output_schema"] = None if tool.output_schema is None else tool.output_schema.value()
    return dict(fields)


_SCHEMAS = ("input_schema", "output_schema")
