"""Between a run's end and its outcome: policy may look at the result, where it has a rule for it.

What comes of a run that nothing can undo is let back, let back in part, or withheld; the outcome
stays what it is. No well-formed answer withholds. Policy is shown the result within bounds: heads of
text, structure where it is small, and of everything else kinds and sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from remit.canonical import encode, parse
from remit.document import call_document
from remit.errors import Code
from remit.model import (
    Allow,
    Approval,
    Approved,
    Constraints,
    Decided,
    Decision,
    Ending,
    EntryDraft,
    Method,
    PlanKind,
    Planned,
    ResultKind,
    Run,
    RunResult,
    RunState,
    Tool,
    Unenforced,
)
from remit.ports import Clock, Policy
from remit.stages import served
from remit.stages.history import Histories
from remit.stages.means import Means
from remit.stages.record import decision_entry
from remit.stages.redact import withheld
from remit.telemetry import POLICY_FAULTS, RESULTS_JUDGED, logger

MAX_TEXT = 16_384
"""Most of all text of a result that policy is shown, in characters, from its beginning."""

MAX_STRUCTURE = 32_768
"""Longest structure that policy is shown, in bytes of canonical JSON; a longer one is left out."""

MAX_PARTS = 32
"""Most content blocks, and most files, that policy is shown one by one."""

MAX_STDERR = 2_048

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """What policy said of a result: how it is narrowed, or that it is withheld."""

    constraints: Constraints = field(default_factory=Constraints)
    withheld: bool = False
    decision: Decision | Unenforced | None = None
    entries: tuple[EntryDraft, ...] = ()

    @property
    def said(self) -> str:
        """What policy meant the caller to hear of why nothing is let back."""
        reasons = self.decision.reasons if self.withheld and self.decision is not None else ()
        return " ".join(reason.message for reason in reasons if reason.audience == "user")

    def keeps_back(self, state: RunState, result: RunResult) -> bool:
        """Whether nothing of this result is let back."""
        most = self.constraints.output_max_bytes
        size = len(result.stdout) + (0 if state is RunState.SUCCEEDED else len(result.stderr))
        return self.withheld or (most is not None and size > most)


AS_IT_IS = Reviewed()
"""Nobody was asked, or nothing follows from the answer."""


class Review:
    """Puts results to policy."""

    def __init__(self, policy: Policy, means: Means, clock: Clock, histories: Histories) -> None:
        self._policy = policy
        self._means = means
        self._clock = clock
        self._histories = histories

    def holds_back(self, decided: Decided) -> bool:
        """Whether nothing of this run may be told before policy has seen its result."""
        return self._policy.judges_results and not isinstance(decided.decision, Unenforced)

    def of_preview(self, result: RunResult) -> RunResult:
        """What a caller may read of a preview that failed, about which policy is not asked."""
        return withheld(result) if self._policy.judges_results else result

    async def __call__(
        self, approved: Approved, run_id: str, state: RunState, result: RunResult
    ) -> Reviewed:
        """What policy says of the result of this run. Never raises: what fails withholds."""
        planned = approved.decided.planned
        unasked = state is RunState.NEVER_STARTED or result.ending is Ending.UNASKED
        if planned.plan.kind is not PlanKind.MAIN or unasked or not self._policy.judges_results:
            return AS_IT_IS
        enforced = not isinstance(approved.decided.decision, Unenforced)
        try:
            answer = await self._asked(planned, approved.approval, state, result)
        except Exception:
            log.exception("result_not_judged", run=run_id)
            return Reviewed(withheld=enforced)
        return _meant(planned, answer, run_id, enforced=enforced)

    def judges(self, tool: Tool) -> bool:
        """Whether policy would be asked about a result of this tool, and something follow from it."""
        return self._policy.judges_results and not tool.shadow

    async def again(
        self, planned: Planned, approval: Approval | None, run: Run, result: RunResult
    ) -> Reviewed:
        """What policy says now of the stored result of a run that has ended.

        Raises whatever goes wrong in asking.
        """
        answer = await self._asked(planned, approval, run.state, result)
        return _meant(planned, answer, run.id, again=True)

    async def _asked(
        self, planned: Planned, approval: Approval | None, state: RunState, result: RunResult
    ) -> Decision:
        normal = planned.admitted.normal
        document = call_document(
            normal=normal,
            plan=planned.plan,
            capabilities=self._means.runner(planned.plan.profile),
            profiles=self._means.alternatives(planned.plan.profile),
            now_ms=self._clock.now_ms(),
            arguments=planned.arguments,
            preview=planned.preview,
            approvals=() if approval is None else (approval,),
            history=await self._histories.of(normal.call.caller, normal.call.claims),
            result=result_facts(normal.tool, state, result),
        )
        return await self._policy.decide(document, decision_id=self._clock.new_id("dec"))


def _meant(
    planned: Planned, answer: Decision, run_id: str, *, enforced: bool = True, again: bool = False
) -> Reviewed:
    """What follows from an answer about the result of a run, with its entry."""
    decided = answer if enforced else Unenforced(answer=answer)
    RESULTS_JUDGED.labels(answer.verdict).inc()
    entries = (decision_entry(planned, decided, about=run_id, again=again),)
    if not enforced:
        return Reviewed(decision=decided, entries=entries)
    if isinstance(answer, Allow):
        return Reviewed(constraints=answer.constraints, decision=answer, entries=entries)
    code = getattr(answer, "code", Code.POLICY_UNSUPPORTED)
    if code is not Code.POLICY_DENIED:
        POLICY_FAULTS.labels(code.value).inc()
    return Reviewed(withheld=True, decision=answer, entries=entries)


# ------------------------------------------------------------------------------ what policy sees


def result_facts(tool: Tool, state: RunState, result: RunResult) -> dict[str, Any]:
    """A result as policy is shown it, bounded whatever was printed."""
    value = _parsed(tool, result.stdout)
    blocks = _blocks(tool, result.stdout, value)
    shown = list(_shown(blocks[:MAX_PARTS]))
    structure = _structure(tool, value)
    text = b"" if structure is None else encode(structure)
    errors = result.stderr.decode("utf-8", "replace")
    return {
        "ending": result.ending.value,
        "state": state.value,
        "exit_code": -1 if result.exit_code is None else result.exit_code,
        "is_error": isinstance(value, Mapping) and tool.result is ResultKind.MCP
        and value.get("isError") is True,
        "server": "" if tool.upstream is None else tool.upstream.server,
        "valid": tool.result is ResultKind.TEXT or value is not _INVALID,
        "bytes": len(result.stdout),
        "truncated": result.stdout_truncated or result.stderr_truncated,
        "content_types": sorted({each["mime_type"] for each in shown}),
        "content": shown,
        "more": len(blocks[MAX_PARTS:]),
        "structured": structure if len(text) <= MAX_STRUCTURE else None,
        "structured_bytes": len(text),
        "stderr": {
            "bytes": len(result.stderr),
            "text": errors[:MAX_STDERR],
            "cut": len(errors) > MAX_STDERR,
        },
        "files": [
            {"path": path[:1024], "bytes": len(result.files[path])}
            for path in sorted(result.files)[:MAX_PARTS]
        ],
        "findings": [],
    }  # fmt: skip


_INVALID: Any = object()


def _parsed(tool: Tool, stdout: bytes) -> Any:
    """The JSON that was printed, if the tool prints any."""
    if tool.result is ResultKind.TEXT:
        return _INVALID
    try:
        value = parse(stdout)
        encode(value)
    except Exception:  # noqa: BLE001 - whatever a tool prints, policy can be asked about it
        return _INVALID
    if tool.method is not Method.TOOLS_CALL:
        try:
            return served.read(tool.method, value)
        except ValueError:
            return _INVALID
    if tool.result is ResultKind.MCP:
        whole = isinstance(value, Mapping) and isinstance(value.get("content"), list)
        return value if whole else _INVALID
    return value


def _blocks(tool: Tool, stdout: bytes, value: Any) -> list[Any]:
    """The content blocks; what is no MCP result is one block of text."""
    if tool.method is not Method.TOOLS_CALL and value is not _INVALID:
        return served.blocks(tool.method, value)
    if tool.result is ResultKind.MCP and value is not _INVALID:
        found: list[Any] = value["content"]
        return found
    kind = "application/json" if tool.result is ResultKind.JSON else "text/plain"
    return [{"type": "text", "mimeType": kind, "text": stdout.decode("utf-8", "replace")}]


def _shown(blocks: list[Any]) -> Iterator[dict[str, Any]]:
    left = MAX_TEXT
    for each in blocks:
        block = each if isinstance(each, Mapping) else {}
        inner = block.get("resource")
        resource = inner if isinstance(inner, Mapping) else {}
        text = _first(block.get("text"), resource.get("text"))
        data = _first(block.get("data"), resource.get("blob"))
        sort = _first(block.get("type"))[:32]
        kind = _first(block.get("mimeType"), resource.get("mimeType"))
        yield {
            "type": sort,
            "mime_type": (kind or ("text/plain" if sort == "text" else ""))[:128].lower(),
            "uri": _first(block.get("uri"), resource.get("uri"))[:1024],
            "bytes": len(text.encode("utf-8", "replace")) + len(data) * 3 // 4,
            "text": text[:left],
            "cut": len(text) > left,
        }
        left -= len(text[:left])


def _first(*found: Any) -> str:
    return next((each for each in found if isinstance(each, str)), "")


def _structure(tool: Tool, value: Any) -> Any:
    if value is _INVALID or tool.result is ResultKind.TEXT:
        return None
    whole = tool.result is ResultKind.JSON or tool.method is not Method.TOOLS_CALL
    return value if whole else value.get("structuredContent")
