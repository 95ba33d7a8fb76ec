"""Step 6: enough eligible people agreed to this plan hash, or nothing runs.

An approval is a row in the ledger, never a suspended coroutine: it costs nothing while people
think, and it outlives the gateway. It binds the plan hash, is spent by one run, and expires.
"Approved" never means "allowed" by itself: policy is asked again with the approval in its input.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, assert_never
from weakref import WeakValueDictionary

from remit.backends import PathSettings
from remit.canonical import encode
from remit.command import render_consequence
from remit.document import limits_facts
from remit.errors import Code, Refused
from remit.model import (
    Allow,
    Approval,
    ApprovalDraft,
    ApprovalRule,
    ApprovalState,
    Approved,
    Caller,
    Consented,
    Decided,
    Frozen,
    Operator,
    Permission,
    Permitted,
    PlanKind,
    Planned,
    PreviewResult,
    RequireApproval,
    Unenforced,
    Verdict,
    Vote,
)
from remit.ports import Clock, Ledger, Progress
from remit.quorum import counts_for, met
from remit.stages.authorize import Authorize
from remit.stages.record import Record, caller_public
from remit.visible import visible

PROGRESS_EVERY_S = 5.0
"""How often a held call is told that it still waits."""

MAX_DIFFERENCE = 16_384
"""Longest difference shown to a person, in characters."""


class Bell:
    """Wakes calls that wait for an approval in this process; the ledger holds the truth."""

    def __init__(self) -> None:
        # An approval that nobody waits for any more leaves nothing behind.
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def listen(self, approval_id: str) -> asyncio.Event:
        """What is set when the approval changes; listen first, then look at the ledger."""
        return self._waiting.setdefault(approval_id, asyncio.Event())

    def ring(self, approval_id: str) -> None:
        event = self._waiting.pop(approval_id, None)
        if event is not None:
            event.set()


async def wait(
    ledger: Ledger, bell: Bell, approval: Approval, *, hold_s: float, progress: Progress
) -> Approval:
    """Hold a call until its approval is decided or the hold is over; give it as it is then.

    No runner exists while a person thinks.
    """
    event = bell.listen(approval.id)
    current = await ledger.approval(approval.id) or approval
    left = hold_s
    while current.state is ApprovalState.PENDING and left > 0:
        await progress.report(f"Waiting for a person to decide on approval {approval.id}")
        step = min(left, PROGRESS_EVERY_S)
        left -= step
        try:
            async with asyncio.timeout(step):
                await event.wait()
        except TimeoutError:
            continue
        return await ledger.approval(approval.id) or current
    return current


async def approve(
    authorize: Authorize,
    ledger: Ledger,
    clock: Clock,
    consented: Consented,
    record: Record,
    *,
    settings: PathSettings,
) -> Approved | Approval:
    """The plan with the agreement it needs, or the approval that is still waited for.

    Raises:
        Refused: `approval_denied`; or, with the approval in its input, policy denies; or
            `approval_not_eligible` if policy now asks for more than was given.
    """
    decided = consented.decided
    match decided.decision:
        case Allow() | Unenforced():
            return Approved(decided=decided, approval=None)
        case RequireApproval() as needed:
            planned = decided.planned
            known = await ledger.approval_for(planned.plan.call_digest, planned.plan.hash)
            if known is not None and clock.now_ms() < known.expires_ms:
                if known.state is ApprovalState.APPROVED:
                    return await _agreed(authorize, clock, decided, record, known)
                if known.state is ApprovalState.DENIED:
                    raise _denied(known)
            draft = await _draft(ledger, clock, planned, needed, settings)
            with record.handed_over() as drafts:
                # In a task of its own: a cancel must not take the decision out of the log.
                return await asyncio.shield(ledger.open_approval(draft, drafts))
        case _:
            assert_never(decided.decision)


async def _agreed(
    authorize: Authorize, clock: Clock, decided: Decided, record: Record, approval: Approval
) -> Approved:
    again = await authorize.confirm(decided.planned, record, approval)
    if isinstance(again, RequireApproval) and not satisfied(
        again.approvals, approval, clock.now_ms()
    ):
        raise Refused(
            Code.APPROVAL_NOT_ELIGIBLE,
            "policy now asks for another approval than the one that was given",
            approval_id=approval.id,
            hint="an operator withdraws it with `remit approvals revoke`, then call again",
        )
    return Approved(decided=Decided(planned=decided.planned, decision=again), approval=approval)


def _denied(approval: Approval) -> Refused:
    said = next((vote.reason for vote in approval.votes if vote.verdict is Verdict.DENY), None)
    return Refused(
        Code.APPROVAL_DENIED,
        "a person refused this action" + (f": {visible(said)[:300]}" if said else ""),
        approval_id=approval.id,
        plan_hash=approval.plan_hash,
        hint="do not ask again unchanged",
    )


def not_approved(approval: Approval, decision: Permitted | None = None) -> Refused:
    """What a call hears that waits for an approval which is not (or no longer) to be had."""
    evaluation = None if decision is None else decision.evaluation
    refused = partial(
        Refused,
        approval_id=approval.id,
        plan_hash=approval.plan_hash,
        decision_id=None if evaluation is None else evaluation.decision_id,
        policy_revision=None if evaluation is None else evaluation.revision,
    )
    match approval.state:
        case ApprovalState.DENIED:
            return _denied(approval)
        case ApprovalState.EXPIRED:
            return refused(Code.APPROVAL_EXPIRED, "nobody decided in time")
        case ApprovalState.SUPERSEDED:
            return refused(
                Code.APPROVAL_SUPERSEDED,
                "what would run changed meanwhile, and a new approval was opened",
                hint="call again with the same arguments",
            )
        case ApprovalState.WITHDRAWN:
            return refused(Code.APPROVAL_WITHDRAWN, "an operator withdrew the approval")
        case _:
            changed = approval.supersedes is not None
            return refused(
                Code.APPROVAL_REQUIRED,
                "what would run has changed since it was approved; a person must decide again"
                if changed
                else "a person must agree to this action first" + _because(decision),
                expires_at=iso(approval.expires_ms),
                hint="call again with the same arguments once it was approved; it then runs once",
            )


def _because(decision: Permitted | None) -> str:
    """What policy meant the caller to hear of why a person is asked."""
    reasons = () if decision is None else decision.reasons
    told = [reason.message.rstrip(".") for reason in reasons if reason.audience == "user"]
    return ": " + "; ".join(told) if told else ""


def iso(ms: int) -> str:
    """A time in RFC 3339, UTC, to the second."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def satisfied(rule: ApprovalRule, approval: Approval, now_ms: int) -> bool:
    """Whether the votes given are enough eligible people under this rule, and nobody refused.

    A rule with a shorter life than the one that the approval was opened under holds too.
    """
    if rule.ttl_s is not None and now_ms >= approval.opened_ms + 1_000 * rule.ttl_s:
        return False
    counting = [
        vote
        for vote in approval.votes
        if vote.verdict is Verdict.DENY
        or (
            ineligible(rule, approval.caller, vote.subject, vote.groups) is None
            and (vote.reason or not rule.reason_required)
        )
    ]
    return met(rule, counting)


def ineligible(
    rule: ApprovalRule, caller: Caller, subject: str, groups: Sequence[str]
) -> str | None:
    """Why this person cannot decide on this caller's request; None if they can.

    The requester and those it acts for never can, whatever a rule says.
    """
    involved = [caller.subject, *(actor.subject for actor in caller.chain)]
    if subject.casefold() in {name.casefold() for name in involved}:
        return "the requester, and those it acts for, cannot decide on it"
    if subject.casefold() in {name.casefold() for name in rule.exclude}:
        return "policy excludes this person from deciding on it"
    if not any(counts_for(quorum, groups) for quorum in rule.quorums):
        wanted = sorted({group for quorum in rule.quorums for group in quorum.groups})
        return "policy wants a member of: " + ", ".join(wanted)
    return None


def check_vote(
    approval: Approval, operator: Operator, verdict: Verdict, reason: str | None, now_ms: int
) -> Vote:
    """The vote of an operator, if they may give it.

    Denying needs the same eligibility, but never a reason.

    Raises:
        Refused: `approval_not_eligible`.
    """
    why = (
        "this credential may not decide on approvals"
        if Permission.APPROVE not in operator.may
        else ineligible(approval.rule, approval.caller, operator.subject, operator.groups)
    )
    agreeing = verdict is Verdict.APPROVE
    if why is None and agreeing and approval.rule.reason_required and not reason:
        why = "policy wants a reason: give one with --reason"
    if why is not None:
        raise Refused(Code.APPROVAL_NOT_ELIGIBLE, why, approval_id=approval.id)
    return Vote(
        subject=operator.subject,
        verdict=verdict,
        voted_ms=now_ms,
        groups=operator.groups,
        reason=reason[:1000] if reason else None,
    )


# ------------------------------------------------------------------------- what people are shown


async def _draft(
    ledger: Ledger, clock: Clock, planned: Planned, needed: RequireApproval, settings: PathSettings
) -> ApprovalDraft:
    normal = planned.admitted.normal
    now = clock.now_ms()
    shown = shown_facts(planned, needed)
    earlier = await ledger.approvals_of(planned.plan.call_digest)
    # One that lapsed was never seen through; only what was asked or agreed is a change to show.
    changed = next(
        (
            one
            for one in earlier
            if one.plan_hash != planned.plan.hash
            and one.state in (ApprovalState.PENDING, ApprovalState.APPROVED)
        ),
        None,
    )
    if changed is not None:
        shown["changed_from"] = changed.id
        shown["difference"] = difference(changed.shown.value(), shown)
    return ApprovalDraft(
        id=clock.new_id("apr"),
        plan=planned.plan,
        call_digest=planned.plan.call_digest,
        caller=normal.call.caller,
        tool_name=normal.tool.name,
        environment=normal.environment,
        rule=needed.approvals,
        decision_id=needed.evaluation.decision_id,
        revision=needed.evaluation.revision,
        opened_ms=now,
        expires_ms=now + 1000 * min(needed.approvals.ttl_s or settings.ttl_s, settings.ttl_max_s),
        shown=Frozen(encode(shown)),
    )


def _asked(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which MCP server is asked for which of its tools; None for a command."""
    upstream = plan.get("upstream")
    if upstream is None:
        return None
    return {name: upstream[name] for name in ("server", "tool", "definition", "url")}


def _seen(preview: PreviewResult) -> dict[str, Any]:
    return {
        "text": preview.text,
        "digest": preview.digest,
        "bytes": preview.bytes,
        "truncated": preview.truncated,
    }


def shown_facts(planned: Planned, needed: RequireApproval) -> dict[str, Any]:
    """What an approver is shown: the plan, in the words of the catalog, and what policy said.

    The agent's own words stand apart, under `claimed`, and are never part of the consequence.
    """
    normal = planned.admitted.normal
    tool = normal.tool
    plan = Frozen(planned.plan.text).value()
    preview = planned.preview
    claims = normal.call.claims
    previewing = planned.plan.kind is PlanKind.PREVIEW
    consequence = render_consequence(tool, planned.arguments.value())
    return {
        "consequence": f"Preview only: {consequence}" if previewing else consequence,
        "tool": tool.name,
        "effect": tool.effect.value,
        "risk": tool.risk.value,
        "environment": normal.environment,
        "caller": caller_public(normal.call.caller),
        "arguments": planned.arguments.value(),
        **({} if normal.round is None else {"answers": normal.round.answers.value()}),
        "command": plan["command"],
        "upstream": _asked(plan),
        "runner": plan["runner"],
        "limits": limits_facts(planned.plan.limits),
        "egress": plan["egress"],
        "credentials": plan["credentials"],
        "plan_hash": planned.plan.hash,
        "narrowed_from": planned.plan.narrowed_from,
        "preview": None if preview is None else _seen(preview),
        "reasons": [{"code": r.code, "message": r.message} for r in needed.reasons],
        "claimed": {
            "purpose": claims.purpose,
            "ticket": claims.ticket,
            "client": claims.client_name,
        },
        "difference": None,
        "changed_from": None,
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A unified diff of what was shown before and what would run now."""
    lines = difflib.unified_diff(
        _lines(before), _lines(after), "shown before", "would run now", lineterm="", n=2
    )
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFFERENCE else text[:MAX_DIFFERENCE] + "\n[cut]"


def _lines(shown: Mapping[str, Any]) -> list[str]:
    preview = shown.get("preview") or {}
    facts = {
        name: shown.get(name)
        for name in ("consequence", "arguments", "command", "limits", "runner")
    }
    if shown.get("upstream") is not None:
        facts["upstream"] = shown["upstream"]
    lines = [f"{name}: {encode(value).decode()}" for name, value in facts.items()]
    return lines + str(preview.get("text", "")).splitlines()
