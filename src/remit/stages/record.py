"""What each stage says in the log: entries as drafts, gathered until a transaction takes them.

Public fields are ids, digests, codes and names from the catalog. What a caller chose or a tool
printed is sealed: it goes in as a salted commitment, with the value in a side table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from remit.canonical import encode
from remit.errors import Refused
from remit.model import (
    Call,
    Caller,
    Decision,
    Deny,
    EntryDraft,
    Evaluation,
    NormalCall,
    Obligation,
    Outcome,
    Planned,
    RunResult,
    Unenforced,
)
from remit.stages.evidence import destruction_public, reached_public
from remit.stages.files import file_facts


def caller_public(caller: Caller) -> dict[str, Any]:
    return {
        "subject": caller.subject,
        "kind": caller.kind.value,
        "chain": [{"subject": actor.subject, "kind": actor.kind.value} for actor in caller.chain],
        "key": caller.key_id,
    }


class Record:
    """The entries of one call that are not yet in the log.

    `take` hands them over to the one transaction that will write them; whatever ends the call
    takes what is left, so that no decision goes unrecorded. `told` holds, by plan hash, the
    messages that were taken already.
    """

    def __init__(self) -> None:
        self._drafts: list[EntryDraft] = []
        self.told: set[tuple[str, Obligation]] = set()

    def add(self, draft: EntryDraft) -> None:
        self._drafts.append(draft)

    def take(self) -> tuple[EntryDraft, ...]:
        drafts = tuple(self._drafts)
        self._drafts.clear()
        return drafts

    @contextmanager
    def handed_over(self) -> Iterator[tuple[EntryDraft, ...]]:
        """What is taken for the block's one transaction; taken back if that did not happen.

        A transaction that is cancelled may have happened all the same, so then nothing is taken
        back: an entry must not stand in the log twice.
        """
        drafts = self.take()
        try:
            yield drafts
        except Exception:
            self._drafts[:0] = drafts
            raise


def decision_entry(
    planned: Planned,
    decided: Decision | Unenforced,
    *,
    about: str | None = None,
    again: bool = False,
) -> EntryDraft:
    """The entry of one answer of policy, with the whole input sealed for replay.

    It tells the answer as it was; `enforced` is there, and false, where nothing follows from it.

    Args:
        about: the run whose result policy was asked about; nothing can run on such an answer.
        again: the run has its outcome, and its stored result is asked for once more.
    """
    normal = planned.admitted.normal
    decision = decided.answer if isinstance(decided, Unenforced) else decided
    evaluation = decision.evaluation
    public: dict[str, Any] = {
        "decision": evaluation.decision_id,
        "verdict": decision.verdict,
        "code": decision.code.value if isinstance(decision, Deny) else None,
        "call": normal.call.id,
        "kind": planned.plan.kind.value,
        "plan_hash": planned.plan.hash,
        "narrowed_from": planned.plan.narrowed_from,
        "preview_digest": planned.plan.preview_digest,
        "call_digest": normal.digest,
        "tenant": normal.call.caller.tenant,
        "caller": caller_public(normal.call.caller),
        "tool": {"name": normal.tool.name, "digest": normal.tool.digest},
        "effect": normal.tool.effect.value,
        "environment": normal.environment,
        "policy": _policy(evaluation),
        "input_digest": evaluation.input_digest,
        "reasons": [reason.code for reason in decision.reasons],
        "obligations": [obligation.type for obligation in decision.obligations],
    }
    public |= {"enforced": False} if isinstance(decided, Unenforced) else {}
    public |= _about(about, again=again)
    sealed = {
        "input": evaluation.input.text,
        "reasons": json.dumps([[r.code, r.message] for r in decision.reasons]).encode(),
    }
    if normal.round is not None:
        public["round"] = {"number": normal.round.number, "run": normal.round.run_id}
        sealed["answers"] = normal.round.answers.text
    return EntryDraft(event="decision", public=public, sealed=sealed)


def _about(run: str | None, *, again: bool) -> dict[str, Any]:
    if run is None:
        return {}
    return {"phase": "result", "run": run} | ({"again": True} if again else {})


def _policy(evaluation: Evaluation) -> dict[str, Any]:
    """Which policy answered; where it has several layers, the revision of each."""
    told: dict[str, Any] = {"revision": evaluation.revision, "engine": evaluation.engine}
    if len(evaluation.layers) > 1:
        told["layers"] = [{"name": name, "revision": at} for name, at in evaluation.layers]
    if evaluation.engine_ids:
        told["engine_decisions"] = list(evaluation.engine_ids)
    return told


def refusal_entry(call: Call, normal: NormalCall | None, refused: Refused) -> EntryDraft:
    """The entry of a refused call; the tool's name is public only if it is in the catalog."""
    public: dict[str, Any] = {
        "call": call.id,
        "code": refused.code.value,
        "detail": refused.detail,
        "place": refused.place if normal is not None else None,
        "tenant": call.caller.tenant,
        "caller": caller_public(call.caller),
        "tool": None
        if normal is None
        else {"name": normal.tool.name, "digest": normal.tool.digest},
        "call_digest": None if normal is None else normal.digest,
        "decision": refused.decision_id,
        "approval": refused.approval_id,
        "plan_hash": refused.plan_hash,
        "run": refused.run_id,
        "source": call.source_ip,
    }
    sealed = {"request": _request(call)}
    return EntryDraft(event="call.refused", public=public, sealed=sealed)


def _request(call: Call) -> bytes:
    try:
        return encode({"tool": call.tool_name[:1024], "arguments": dict(call.arguments)})[:65_536]
    except Exception:  # noqa: BLE001 - a record must not fail on what is refused
        return b"{}"


def outcome_entry(planned: Planned, outcome: Outcome) -> EntryDraft:
    """The entry of how a run ended, with the evidence that its runner is gone."""
    normal = planned.admitted.normal
    result = outcome.result
    public: dict[str, Any] = {
        "run": outcome.run_id,
        "kind": planned.plan.kind.value,
        "call": normal.call.id,
        "plan_hash": planned.plan.hash,
        "tenant": normal.call.caller.tenant,
        "tool": {"name": normal.tool.name, "digest": normal.tool.digest},
        "fence": outcome.fence,
        "state": outcome.state.value,
        "code": None if outcome.code is None else outcome.code.value,
    }
    if outcome.review is not None:
        public["review"] = {
            "decision": outcome.review.evaluation.decision_id,
            "verdict": outcome.review.verdict,
        }
    if result is None:
        return EntryDraft(event="call.outcome", public=public)
    public |= result_public(result)
    if outcome.files:
        public["files"] = file_facts(outcome.files)
    sealed = {"stdout": result.stdout, "stderr": result.stderr}
    if outcome.reply is not None:
        sealed["reply"] = outcome.reply.text
    return EntryDraft(
        event="call.outcome",
        public=public,
        sealed={name: value for name, value in sealed.items() if value},
    )


def result_public(result: RunResult) -> dict[str, Any]:
    """What may stand openly of a run's result: how it ended and what it used, not what it said."""
    return {
        "ending": result.ending.value,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "wall_ms": result.wall_ms,
        "cpu_ms": result.cpu_ms,
        "peak_memory_bytes": result.peak_memory_bytes,
        "stdout_bytes": len(result.stdout),
        "stderr_bytes": len(result.stderr),
        "truncated": result.stdout_truncated or result.stderr_truncated,
        "limits_hit": list(result.limits_hit),
        "runner": dict(result.runner),
        "destruction": None
        if result.destruction is None
        else destruction_public(result.destruction),
        **reached_public(result),
    }
