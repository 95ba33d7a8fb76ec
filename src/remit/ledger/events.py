"""The public fields of every entry that the ledger itself writes (docs/log-format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from remit.canonical import digest_of, encode
from remit.ledger.entry import rfc3339
from remit.model import (
    AccessRequest,
    Activation,
    Approval,
    ApprovalDraft,
    ApprovalState,
    Caller,
    Claims,
    EntryDraft,
    Intent,
    Outcome,
    RequestState,
    Run,
    Unenforced,
    Verdict,
    Vote,
)


class Event(StrEnum):
    """What an entry can be about; `decision`, `runner.swept` and those of tools and consents are
    written from outside the ledger, the rest by it."""

    DECISION = "decision"
    INTENT = "call.intent"
    OUTCOME = "call.outcome"
    RESOLVED = "run.resolved"
    SWEPT = "runner.swept"
    OPENED = "approval.opened"
    VOTED = "approval.voted"
    EXPIRED = "approval.expired"
    SUPERSEDED = "approval.superseded"
    WITHDRAWN = "approval.withdrawn"
    ACTIVATED = "gateway.activated"
    FROZEN = "gateway.frozen"
    THAWED = "gateway.thawed"
    REFUSALS = "refusals.counted"
    REQUESTED = "access.requested"
    CLOSED = "access.closed"
    QUARANTINED = "tool.quarantined"
    RELEASED = "tool.released"
    PINNED = "tool.pinned"
    PIN_FAILED = "tool.pin_failed"
    CONSENT_GIVEN = "consent.given"
    CONSENT_REVOKED = "consent.revoked"


def caller_fields(caller: Caller) -> dict[str, Any]:
    """Who asked, with which key, and on whose behalf, the original authority first."""
    return {
        "subject": caller.subject,
        "kind": caller.kind.value,
        "chain": [{"subject": a.subject, "kind": a.kind.value} for a in caller.chain],
        "key": caller.key_id,
    }


def _intending(caller: Caller) -> dict[str, Any]:
    """The caller of an intent; its groups are what the tokens of its run say of it."""
    groups = {"groups": list(caller.groups)} if caller.groups else {}
    return {**caller_fields(caller), **groups}


def idempotency_digest(caller_id: str, tool_name: str, key: str | None) -> str | None:
    """The digest of an idempotency key in the caller's scope for one tool."""
    if key is None:
        return None
    return digest_of("remit.idempotency/1", [caller_id, tool_name, key])


def intent(value: Intent, fence: int, approval: Approval | None) -> EntryDraft:
    """The entry that must be durable before any effect; `approval` is the one that it uses."""
    evaluation = value.decision.evaluation
    public: dict[str, Any] = {
        "run": value.run_id,
        "kind": value.plan.kind.value,
        "call": value.call_id,
        "call_digest": value.call_digest,
        "plan_hash": value.plan.hash,
        "tenant": value.caller.tenant,
        "caller": _intending(value.caller),
        "tool": {"name": value.tool_name, "digest": value.tool_digest},
        "effect": value.effect.value,
        "idempotent": value.idempotent,
        "environment": value.environment,
        "decision": evaluation.decision_id,
        "revision": evaluation.revision,
        "verdict": value.decision.verdict,
        "fence": fence,
        "checked": rfc3339(value.now_ms),
        "deadline": rfc3339(value.deadline_ms),
    }
    optional = {
        "approval": value.approval_id,
        "approvers": [] if approval is None else _approvers(approval),
        "parent_run": value.parent_run_id,
        "idempotency": idempotency_digest(value.caller.id, value.tool_name, value.idempotency_key),
    }
    public.update((name, field) for name, field in optional.items() if field)
    if isinstance(value.decision, Unenforced):
        public["enforced"] = False
    claims = _claims(value.claims)
    # The caller's own words may hold anything, and have to be erasable.
    sealed = {"claimed": encode(claims)} if claims else {}
    return EntryDraft(event=Event.INTENT.value, public=public, sealed=sealed)


def _approvers(approval: Approval) -> list[str]:
    """Who approved: what the tokens of the run say of them."""
    return sorted(vote.subject for vote in approval.votes if vote.verdict is Verdict.APPROVE)


def _claims(claims: Claims) -> dict[str, str]:
    fields = {
        "purpose": claims.purpose,
        "ticket": claims.ticket,
        "client_name": claims.client_name,
        "client_version": claims.client_version,
        "session": claims.session_id,
        "trace": claims.trace_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def outcome(value: Outcome, plan_hash: str, draft: EntryDraft) -> EntryDraft:
    """The caller's draft with the fields that bind it to its intent, which it cannot change."""
    public = {
        **draft.public,
        "run": value.run_id,
        "plan_hash": plan_hash,
        "fence": value.fence,
        "state": value.state.value,
    }
    if value.code is not None:
        public["code"] = value.code.value
    return EntryDraft(event=Event.OUTCOME.value, public=public, sealed=draft.sealed)


def resolved(run: Run, *, operator: str, succeeded: bool, note: str) -> EntryDraft:
    return EntryDraft(
        event=Event.RESOLVED.value,
        public={
            "run": run.id,
            "plan_hash": run.plan_hash,
            "operator": operator,
            "as": "succeeded" if succeeded else "failed",
        },
        sealed={"note": note.encode()},
    )


def opened(draft: ApprovalDraft, supersedes: str | None) -> EntryDraft:
    """A request for approval; what approvers are shown is committed to, not public."""
    public: dict[str, Any] = {
        "approval": draft.id,
        "plan_hash": draft.plan.hash,
        "call_digest": draft.call_digest,
        "tenant": draft.caller.tenant,
        "caller": caller_fields(draft.caller),
        "tool": {"name": draft.tool_name},
        "environment": draft.environment,
        "decision": draft.decision_id,
        "revision": draft.revision,
        "required": draft.rule.required,
        "quorums": [
            {"required": each.required, "groups": list(each.groups)} for each in draft.rule.quorums
        ],
        "separation_of_duties": draft.rule.separation_of_duties,
        "expires": rfc3339(draft.expires_ms),
    }
    if supersedes is not None:
        public["supersedes"] = supersedes
    return EntryDraft(event=Event.OPENED.value, public=public, sealed={"shown": draft.shown.text})


def voted(approval: Approval, vote: Vote, state: ApprovalState) -> EntryDraft:
    sealed = {} if vote.reason is None else {"reason": vote.reason.encode()}
    return EntryDraft(
        event=Event.VOTED.value,
        public={
            "approval": approval.id,
            "plan_hash": approval.plan_hash,
            "voter": vote.subject,
            "groups": list(vote.groups),
            "vote": vote.verdict.value,
            "state": state.value,
        },
        sealed=sealed,
    )


def expired(approval: Approval) -> EntryDraft:
    return _ended(Event.EXPIRED, approval, {})


def superseded(approval: Approval, by: str) -> EntryDraft:
    return _ended(Event.SUPERSEDED, approval, {"by": by})


def withdrawn(approval: Approval, operator: str) -> EntryDraft:
    return _ended(Event.WITHDRAWN, approval, {"operator": operator})


def _ended(event: Event, approval: Approval, more: Mapping[str, str]) -> EntryDraft:
    public = {"approval": approval.id, "plan_hash": approval.plan_hash, **more}
    return EntryDraft(event=event.value, public=public)


def requested(request: AccessRequest) -> EntryDraft:
    """A request for access; what the caller says and asks for is committed to, not public."""
    return EntryDraft(
        event=Event.REQUESTED.value,
        public={
            "request": request.id,
            "tenant": request.caller.tenant,
            "caller": caller_fields(request.caller),
            "tool": {"name": request.tool_name},
            "environment": request.environment,
            "decision": request.decision_id,
            "codes": list(request.codes),
            "state": request.state.value,
        },
        sealed={"reason": request.reason.encode(), "arguments": request.arguments.text},
    )


def closed(request: AccessRequest, *, operator: str, note: str) -> EntryDraft:
    return EntryDraft(
        event=Event.CLOSED.value,
        public={
            "request": request.id,
            "tool": {"name": request.tool_name},
            "operator": operator,
            "state": RequestState.CLOSED.value,
        },
        sealed={"note": note.encode()},
    )


def activated(activation: Activation) -> EntryDraft:
    """What is in force from here on: the revision, and digests of the tools and keys."""
    tools = encode(dict(activation.tools))
    keys = encode(sorted(activation.keys))
    return EntryDraft(
        event=Event.ACTIVATED.value,
        public={
            "revision": activation.revision,
            "tools": len(activation.tools),
            "tools_digest": digest_of("remit.active-tools/1", dict(activation.tools)),
            "keys": len(activation.keys),
        },
        sealed={"tools": tools, "keys": keys},
    )


def freeze(*, frozen: bool, operator: str, reason: str) -> EntryDraft:
    event = Event.FROZEN if frozen else Event.THAWED
    return EntryDraft(event=event.value, public={"operator": operator, "reason": reason})


def refusals(source: str, code: str, minute: int, count: int) -> EntryDraft:
    """How often one source was refused with one code within one minute."""
    return EntryDraft(
        event=Event.REFUSALS.value,
        public={
            "source": source,
            "code": code,
            "minute": rfc3339(minute * 60_000),
            "count": count,
        },
    )
