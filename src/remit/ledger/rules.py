"""What the ledger lets through, as pure functions of facts read in the same transaction.

Every implementation of the `Ledger` port reads its facts its own way and asks these functions;
none of them reads a clock, a store or a setting.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from remit.canonical import digest
from remit.errors import Code, Conflict, NotFound, Refused
from remit.model import (
    Approval,
    ApprovalDraft,
    ApprovalState,
    Effect,
    Grant,
    Intent,
    Outcome,
    Plan,
    PlanKind,
    RequireApproval,
    Run,
    RunState,
    Unenforced,
    Verdict,
    Vote,
)
from remit.quorum import met

DECISION_LIFE_MS = 30_000
"""A decision this old, or older, does not make an intent any more."""

PLAN_DOMAIN = "remit.plan/1"

LIVE = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED})
"""The states from which an approval can still become something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an intent is checked against, all read in the transaction that will write it.

    `unresolved` are the main runs of the same call digest that are open, or unknown and not
    resolved, newest first.
    """

    frozen: str | None
    revision: str | None
    tool_digest: str | None
    key_active: bool
    approval: Approval | None
    unresolved: Sequence[tuple[str, RunState]]


def check_intent(intent: Intent, standing: Standing) -> None:
    """Refuse an intent that may not be written.

    Raises:
        Refused: as `Ledger.commit_intent` says.
    """
    check_plan(intent.plan, intent.call_digest)
    _check_enforced(intent)
    _check_in_force(intent, standing)
    _check_approval(intent, standing.approval)
    _check_unresolved(intent, standing.unresolved)
    if intent.starts:
        _check_time(intent.run_id, intent.deadline_ms, intent.now_ms)


def check_plan(plan: Plan, call_digest: str) -> None:
    """Refuse a plan whose text is not what its hash says, or that is another call's."""
    if digest(PLAN_DOMAIN, plan.text) != plan.hash or plan.call_digest != call_digest:
        raise Refused(
            Code.APPROVAL_MISMATCH, "the plan's text does not belong to its hash and call"
        )


def says_shadow(plan_text: bytes) -> bool:
    """Whether a stored plan says of itself that policy's answer to it is not enforced."""
    if _SHADOW not in plan_text:
        return False
    facts = json.loads(plan_text)
    upstream = facts.get("upstream")
    named = isinstance(upstream, dict) and upstream.get("mode") == "shadow"
    return named and facts.get("kind") == PlanKind.MAIN.value


_SHADOW = b'"mode":"shadow"'
"""Stands in the canonical text of every plan that says so, and perhaps of others."""


def _check_enforced(intent: Intent) -> None:
    """Policy's answer is left aside for plans that say so, and for no others."""
    if isinstance(intent.decision, Unenforced) != says_shadow(intent.plan.text):
        raise Refused(
            Code.APPROVAL_MISMATCH,
            "the plan does not say what the intent does of whether policy is enforced",
            plan_hash=intent.plan.hash,
        )


def _check_in_force(intent: Intent, standing: Standing) -> None:
    evaluation = intent.decision.evaluation
    if standing.frozen is not None:
        raise Refused(Code.FROZEN, "everything is frozen", hint="an operator can thaw it")
    age = intent.now_ms - evaluation.decided_ms
    if evaluation.revision != standing.revision or not 0 <= age < DECISION_LIFE_MS:
        raise Refused(
            Code.DECISION_STALE,
            "the decision is too old, or of a policy that is no longer active",
            decision_id=evaluation.decision_id,
        )
    if standing.tool_digest is None or standing.tool_digest != intent.tool_digest:
        raise Refused(Code.TOOL_CHANGED, "the tool changed after the decision")
    expires_ms = intent.caller.expires_ms
    if not standing.key_active or (expires_ms is not None and expires_ms <= intent.now_ms):
        raise Refused(Code.CALLER_REVOKED, "the caller's credential is no longer valid")


def _check_approval(intent: Intent, approval: Approval | None) -> None:
    if intent.approval_id is None:
        if isinstance(intent.decision, RequireApproval):
            raise _mismatch(intent, "policy requires an approval and none is named")
        return
    if isinstance(intent.decision, Unenforced):
        raise _mismatch(intent, "nobody is asked about a plan on which policy is not enforced")
    if approval is None:
        raise _mismatch(intent, "the approval that is named does not exist")
    if approval.state is ApprovalState.SPENT:
        raise Refused(Code.GRANT_SPENT, "the approval was used already", approval_id=approval.id)
    if approval.plan_hash != intent.plan.hash or approval.call_digest != intent.call_digest:
        raise _mismatch(intent, "the approval is for another plan")
    if approval.state is ApprovalState.EXPIRED or approval.expires_ms <= intent.now_ms:
        raise Refused(Code.APPROVAL_EXPIRED, "the approval has expired", approval_id=approval.id)
    if approval.state is not ApprovalState.APPROVED:
        raise _mismatch(intent, f"the approval is {approval.state.value}, not approved")


def _mismatch(intent: Intent, why: str) -> Refused:
    return Refused(
        Code.APPROVAL_MISMATCH, why, approval_id=intent.approval_id, plan_hash=intent.plan.hash
    )


def _check_unresolved(intent: Intent, unresolved: Sequence[tuple[str, RunState]]) -> None:
    """A write runs beside no open run of the same call, and after no unknown one.

    The one exception: a tool declared idempotent may run again after an unknown outcome if the
    new run is linked to it as its parent.
    """
    if intent.effect is Effect.READ or intent.plan.kind is not PlanKind.MAIN or not unresolved:
        return
    latest = unresolved[0][0]
    linked = intent.idempotent and intent.parent_run_id == latest
    if linked and all(state is RunState.UNKNOWN for _, state in unresolved):
        return
    raise Refused(
        Code.OUTCOME_UNKNOWN,
        "an earlier run of the same call is open, or its outcome is unknown",
        run_id=latest,
        hint="an operator can say what became of it: remit runs resolve",
    )


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What starting and settling a run depend on."""

    fence: int
    state: RunState
    plan_hash: str
    deadline_ms: int


def check_start(run: RunFacts | None, grant: Grant, now_ms: int) -> None:
    """Refuse to start a run twice, late, or under another grant."""
    if (
        run is None
        or run.state is not RunState.INTENDED
        or run.fence != grant.fence
        or run.plan_hash != grant.plan.hash
    ):
        raise _spent(grant)
    _check_time(grant.run_id, run.deadline_ms, now_ms)


def check_handed(known: Grant | None, grant: Grant, frozen: str | None, now_ms: int) -> None:
    """Refuse to hand over a start that is not there (any more), late, or while all is frozen."""
    if known != grant:
        raise _spent(grant)
    check_thaw(frozen, grant)
    _check_time(grant.run_id, grant.deadline_ms, now_ms)


def check_thaw(frozen: str | None, grant: Grant) -> None:
    """Refuse to start anything while everything is frozen."""
    if frozen is not None:
        raise Refused(Code.FROZEN, "everything is frozen", run_id=grant.run_id)


def _check_time(run_id: str, deadline_ms: int, now_ms: int) -> None:
    if deadline_ms <= now_ms:
        raise Refused(
            Code.DEADLINE_PASSED, "the run's deadline passed before it started", run_id=run_id
        )


def _spent(grant: Grant) -> Refused:
    return Refused(
        Code.GRANT_SPENT, "the grant was used already, or was never given", run_id=grant.run_id
    )


def check_outcome(run: RunFacts | None, outcome: Outcome) -> RunFacts:
    """Refuse a second outcome, one of another fence, and success of what never started."""
    if outcome.state.open:
        raise ValueError("an outcome is not an open state")
    if run is None or not run.state.open or run.fence != outcome.fence:
        raise Conflict(Code.WRONG_STATE, "the run is not open, or has another fence")
    if outcome.state is RunState.SUCCEEDED and run.state is not RunState.STARTED:
        raise Conflict(Code.WRONG_STATE, "a run that never started cannot have succeeded")
    return run


def run_known(run: Run | None) -> Run:
    if run is None:
        raise NotFound(
            Code.NOT_FOUND, "there is no run of that id", hint="list them: `remit runs list`"
        )
    return run


def approval_known(approval: Approval | None) -> Approval:
    if approval is None:
        raise NotFound(
            Code.NOT_FOUND,
            "there is no approval of that id",
            hint="list them: `remit approvals list`",
        )
    return approval


def check_resolution(found: Run | None) -> Run:
    """Refuse to resolve what is not unknown, or was resolved before."""
    run = run_known(found)
    if run.state is not RunState.UNKNOWN or run.resolved_by is not None:
        now = "resolved already" if run.resolved_by is not None else run.state.value
        raise Conflict(
            Code.WRONG_STATE,
            f"only an unknown outcome can be resolved, and only once; this run is {now}",
            hint=f"look at it: `remit runs show {run.id}`",
        )
    return run


def check_vote(found: Approval | None, plan_hash: str, vote: Vote) -> ApprovalState:
    """The state after this vote.

    Raises:
        NotFound; Refused: `approval_mismatch`, `approval_expired`; Conflict: `wrong_state`.
    """
    approval = approval_known(found)
    if approval.plan_hash != plan_hash:
        raise Refused(
            Code.APPROVAL_MISMATCH, "the approval is for another plan", approval_id=approval.id
        )
    expired = approval.state in LIVE and approval.expires_ms <= vote.voted_ms
    if expired or approval.state is ApprovalState.EXPIRED:
        raise Refused(Code.APPROVAL_EXPIRED, "the approval has expired", approval_id=approval.id)
    if approval.state is not ApprovalState.PENDING:
        raise _decided(approval)
    if any(each.subject.casefold() == vote.subject.casefold() for each in approval.votes):
        raise Conflict(
            Code.WRONG_STATE, "this person has voted already", hint="somebody else has to agree too"
        )
    if vote.verdict is Verdict.DENY:
        return ApprovalState.DENIED
    enough = met(approval.rule, (*approval.votes, vote))
    return ApprovalState.APPROVED if enough else ApprovalState.PENDING


def check_withdrawal(found: Approval | None) -> Approval:
    """Refuse to withdraw what is over."""
    approval = approval_known(found)
    if approval.state not in LIVE:
        raise _decided(approval)
    return approval


def _decided(approval: Approval) -> Conflict:
    return Conflict(
        Code.WRONG_STATE,
        f"the approval is {approval.state.value}",
        hint=f"look at it: `remit approvals show {approval.id}`",
    )


def still_serves(approval: Approval, draft: ApprovalDraft) -> bool:
    """Whether a live approval is the one that this draft would open."""
    return approval.plan_hash == draft.plan.hash and approval.expires_ms > draft.opened_ms
