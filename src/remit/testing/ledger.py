"""The ledger in memory: the same rules and the same log, kept nowhere.

For tests of what stands above the ledger. Nothing here is durable, and what a crash would lose is
lost when the object is; all else passes the same contract suite as the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from remit.history import folded, touch_of
from remit.ledger import events, requests, rules
from remit.model import (
    AccessRequest,
    Activation,
    Approval,
    ApprovalDraft,
    ApprovalState,
    Caller,
    Effect,
    EntryDraft,
    Grant,
    Intent,
    Outcome,
    PlanKind,
    Repeat,
    RequestState,
    Run,
    RunState,
    Touch,
    Vote,
)
from remit.testing.ledger_log import MemoryLog


class MemoryLedger(MemoryLog):
    """The `Ledger` port without a store."""

    # Runs

    async def repeat(
        self, caller: Caller, tool_name: str, call_digest: str, idempotency_key: str | None
    ) -> Repeat | None:
        key = events.idempotency_digest(caller.id, tool_name, idempotency_key)
        runs = [run for run in reversed(self._state.runs.values()) if run.kind is PlanKind.MAIN]
        of_key = [run for run in runs if key is not None and self._state.keys.get(run.id) == key]
        for run in of_key or [run for run in runs if run.call_digest == call_digest]:
            return Repeat(run=run, reply=self._state.replies.get(run.id))
        return None

    async def commit_intent(self, intent: Intent, drafts: Sequence[EntryDraft]) -> Grant:
        return self._starts.written(self._write(lambda: self._commit_intent(intent, drafts)))

    def _commit_intent(self, intent: Intent, drafts: Sequence[EntryDraft]) -> Grant:
        state = self._state
        approval = state.approvals.get(intent.approval_id or "")
        rules.check_intent(intent, self._standing(intent, approval))
        if approval is not None:
            spent = replace(approval, state=ApprovalState.SPENT, run_id=intent.run_id)
            state.approvals[approval.id] = spent
        state.plans[intent.plan.hash] = intent.plan.text
        key = events.idempotency_digest(intent.caller.id, intent.tool_name, intent.idempotency_key)
        if key is not None:
            state.keys[intent.run_id] = key
        fence = len(state.runs) + 1
        index = self._append([*drafts, events.intent(intent, fence, approval)])[-1]
        state.runs[intent.run_id] = _run(intent, fence, index)
        who = intent.caller.tenant, intent.caller.subject
        state.touches[intent.run_id] = (*who, touch_of(intent))
        return Grant(
            run_id=intent.run_id,
            plan=intent.plan,
            fence=fence,
            deadline_ms=intent.deadline_ms,
            intent_index=index,
            approval_id=intent.approval_id,
            started=intent.starts,
        )

    def _standing(self, intent: Intent, approval: Approval | None) -> rules.Standing:
        active = self._state.active or Activation(revision="", tools={}, keys=frozenset())
        unresolved = [
            (run.id, run.state)
            for run in reversed(self._state.runs.values())
            if run.call_digest == intent.call_digest
            and run.kind is PlanKind.MAIN
            and run.resolved_by is None
            and (run.state.open or run.state is RunState.UNKNOWN)
        ]
        return rules.Standing(
            frozen=self._state.frozen,
            revision=active.revision or None,
            tool_digest=active.tools.get(intent.tool_name),
            key_active=intent.caller.key_id in active.keys,
            approval=approval,
            unresolved=[] if intent.effect is Effect.READ else unresolved,
        )

    def _facts(self, run_id: str) -> rules.RunFacts | None:
        run = self._state.runs.get(run_id)
        if run is None:
            return None
        return rules.RunFacts(run.fence, run.state, run.plan_hash, run.deadline_ms)

    async def start(self, grant: Grant, now_ms: int) -> None:
        if grant.started:
            self._starts.hand_over(grant, self._state.frozen, now_ms)
            return
        rules.check_thaw(self._state.frozen, grant)
        rules.check_start(self._facts(grant.run_id), grant, now_ms)
        run = self._state.runs[grant.run_id]
        self._state.runs[run.id] = replace(run, state=RunState.STARTED, started_ms=now_ms)

    async def settle(
        self, outcome: Outcome, draft: EntryDraft, drafts: Sequence[EntryDraft] = ()
    ) -> int:
        self._starts.over(outcome.run_id)
        return self._write(lambda: self._settle(outcome, draft, drafts))

    def _settle(self, outcome: Outcome, draft: EntryDraft, drafts: Sequence[EntryDraft]) -> int:
        found = rules.check_outcome(self._facts(outcome.run_id), outcome)
        index = self._append([*drafts, events.outcome(outcome, found.plan_hash, draft)])[-1]
        result = outcome.result
        if outcome.reply is not None:
            self._state.replies[outcome.run_id] = outcome.reply
        self._state.runs[outcome.run_id] = replace(
            self._state.runs[outcome.run_id],
            state=outcome.state,
            outcome_index=index,
            settled_ms=outcome.settled_ms,
            code=outcome.code,
            ending=None if result is None else result.ending,
            exit_code=None if result is None else result.exit_code,
            wall_ms=None if result is None else result.wall_ms,
        )
        return index

    async def run(self, run_id: str) -> Run | None:
        return self._state.runs.get(run_id)

    async def runs(
        self, *, states: frozenset[RunState] | None = None, limit: int = 100
    ) -> Sequence[Run]:
        newest = reversed(self._state.runs.values())
        return [run for run in newest if states is None or run.state in states][:limit]

    async def resolve(
        self, run_id: str, *, operator: str, succeeded: bool, note: str, now_ms: int
    ) -> Run:
        run = rules.check_resolution(self._state.runs.get(run_id))
        entry = events.resolved(run, operator=operator, succeeded=succeeded, note=note)
        self._write(lambda: self._append([entry]))
        said = "succeeded" if succeeded else "failed"
        self._state.runs[run_id] = replace(run, resolved_by=operator, resolved_as=said)
        return self._state.runs[run_id]

    async def touches(self, tenant: str, subject: str, *, since_ms: int) -> Sequence[Touch]:
        merged: dict[Touch, Touch] = {}
        for of_tenant, of_subject, touch in self._state.touches.values():
            if (of_tenant, of_subject) == (tenant, subject) and touch.last_ms >= since_ms:
                alike = replace(touch, calls=0, last_ms=0)
                known = merged.get(alike, alike)
                last = max(known.last_ms, touch.last_ms)
                merged[alike] = replace(touch, calls=known.calls + 1, last_ms=last)
        return folded(sorted(merged.values(), key=_newest_first))

    # Requests for access

    async def file_request(
        self, request: AccessRequest, drafts: Sequence[EntryDraft]
    ) -> AccessRequest:
        return self._write(lambda: self._file(request, drafts))

    def _file(self, request: AccessRequest, drafts: Sequence[EntryDraft]) -> AccessRequest:
        requests.check_size(request)
        every = self._state.requests.values()
        pending = [each for each in every if each.state is RequestState.PENDING]
        asked = requests.asked(request)
        same = [each for each in pending if requests.asked(each) == asked]
        if same:
            self._append(drafts)
            return same[0]
        requests.check_pending(sum(each.caller.id == request.caller.id for each in pending))
        self._append([*drafts, events.requested(request)])
        self._state.requests[request.id] = request
        return request

    async def access_requests(
        self, *, states: frozenset[RequestState] | None = None, limit: int = 100
    ) -> Sequence[AccessRequest]:
        newest = reversed(self._state.requests.values())
        return [each for each in newest if states is None or each.state in states][:limit]

    async def close_request(
        self, request_id: str, *, operator: str, note: str, now_ms: int
    ) -> AccessRequest:
        found = requests.check_closing(self._state.requests.get(request_id))
        note = note[: requests.MAX_NOTE]
        self._write(lambda: self._append([events.closed(found, operator=operator, note=note)]))
        self._state.requests[request_id] = replace(
            found, state=RequestState.CLOSED, closed_ms=now_ms, closed_by=operator, note=note
        )
        return self._state.requests[request_id]

    # Approvals

    async def open_approval(self, draft: ApprovalDraft, drafts: Sequence[EntryDraft]) -> Approval:
        return self._write(lambda: self._open(draft, drafts))

    def _open(self, draft: ApprovalDraft, drafts: Sequence[EntryDraft]) -> Approval:
        rules.check_plan(draft.plan, draft.call_digest)
        self._append(drafts)
        supersedes = None
        for old in self._live(draft.call_digest):
            if rules.still_serves(old, draft):
                return old
            if old.expires_ms <= draft.opened_ms:
                self._end(old, ApprovalState.EXPIRED, events.expired(old))
            else:
                self._end(old, ApprovalState.SUPERSEDED, events.superseded(old, draft.id))
                supersedes = old.id
        self._state.plans[draft.plan.hash] = draft.plan.text
        self._append([events.opened(draft, supersedes)])
        opened = Approval(
            id=draft.id,
            state=ApprovalState.PENDING,
            plan_hash=draft.plan.hash,
            call_digest=draft.call_digest,
            caller=draft.caller,
            tool_name=draft.tool_name,
            environment=draft.environment,
            rule=draft.rule,
            opened_ms=draft.opened_ms,
            expires_ms=draft.expires_ms,
            shown=draft.shown,
            supersedes=supersedes,
        )
        self._state.approvals[draft.id] = opened
        return opened

    def _live(self, call_digest: str) -> list[Approval]:
        every = self._state.approvals.values()
        return [a for a in every if a.call_digest == call_digest and a.state in rules.LIVE]

    def _end(self, approval: Approval, state: ApprovalState, entry: EntryDraft) -> Approval:
        self._append([entry])
        self._state.approvals[approval.id] = replace(approval, state=state)
        return self._state.approvals[approval.id]

    async def approval(self, approval_id: str) -> Approval | None:
        return self._state.approvals.get(approval_id)

    async def approvals(
        self, *, states: frozenset[ApprovalState] | None = None, limit: int = 100
    ) -> Sequence[Approval]:
        newest = reversed(self._state.approvals.values())
        return [each for each in newest if states is None or each.state in states][:limit]

    async def approval_for(self, call_digest: str, plan_hash: str) -> Approval | None:
        every = await self.approvals_of(call_digest)
        return next((each for each in every if each.plan_hash == plan_hash), None)

    async def approvals_of(self, call_digest: str) -> Sequence[Approval]:
        newest = reversed(self._state.approvals.values())
        return [each for each in newest if each.call_digest == call_digest][:20]

    async def vote(self, approval_id: str, plan_hash: str, vote: Vote) -> Approval:
        found = self._state.approvals.get(approval_id)
        state = rules.check_vote(found, plan_hash, vote)
        approval = rules.approval_known(found)
        voted = replace(approval, votes=(*approval.votes, vote))
        return self._write(lambda: self._end(voted, state, events.voted(approval, vote, state)))

    async def revoke_approval(self, approval_id: str, *, operator: str, now_ms: int) -> Approval:
        found = rules.check_withdrawal(self._state.approvals.get(approval_id))
        entry = events.withdrawn(found, operator)
        return self._write(lambda: self._end(found, ApprovalState.WITHDRAWN, entry))

    async def expire_approvals(self, now_ms: int) -> Sequence[str]:
        every = self._state.approvals.values()
        past = [a for a in every if a.state in rules.LIVE and a.expires_ms <= now_ms]
        for each in past:
            self._end(each, ApprovalState.EXPIRED, events.expired(each))
        return [each.id for each in past]

    # What is in force

    async def activate(self, activation: Activation, now_ms: int) -> None:
        self._write(lambda: self._append([events.activated(activation)]))
        self._state.active = activation

    async def freeze(self, frozen: bool, *, operator: str, reason: str, now_ms: int) -> None:
        entry = events.freeze(frozen=frozen, operator=operator, reason=reason)
        self._write(lambda: self._append([entry]))
        self._state.frozen = reason if frozen else None

    async def frozen(self) -> str | None:
        return self._state.frozen

    async def ready(self) -> str | None:
        return None


def _newest_first(touch: Touch) -> tuple[int, str, str, str, bool, bool]:
    alike = touch.effect.value, touch.untrusted, touch.sensitive
    return -touch.last_ms, touch.session, touch.system, *alike


def _run(intent: Intent, fence: int, index: int) -> Run:
    return Run(
        id=intent.run_id,
        kind=intent.plan.kind,
        state=RunState.STARTED if intent.starts else RunState.INTENDED,
        plan_hash=intent.plan.hash,
        call_digest=intent.call_digest,
        caller_id=intent.caller.id,
        subject=intent.caller.subject,
        tool_name=intent.tool_name,
        effect=intent.effect,
        idempotent=intent.idempotent,
        environment=intent.environment,
        fence=fence,
        intent_index=index,
        outcome_index=None,
        approval_id=intent.approval_id,
        intended_ms=intent.now_ms,
        started_ms=intent.now_ms if intent.starts else None,
        settled_ms=None,
        deadline_ms=intent.deadline_ms,
        parent_run_id=intent.parent_run_id,
    )
