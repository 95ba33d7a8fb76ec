"""The part of the ledger's contract that is about approvals: one plan, in time, used once."""

from __future__ import annotations

import pytest

from remit.errors import Code, Conflict, NotFound, Refused
from remit.model import (
    Approval,
    ApprovalRule,
    ApprovalState,
    EntryDraft,
    Intent,
    Quorum,
    Verdict,
)
from remit.ports import Ledger
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import NOTHING, SetClock, document, events

LATER_MS = 900_000


class ApprovalContract:
    """Approvals are rows in a state machine; each step has its entry."""

    async def test_an_approval_is_opened_pending_with_its_plan(
        self, active: Ledger, clock: SetClock
    ) -> None:
        draft = sample.approval_draft(clock)
        opened = await active.open_approval(draft, [EntryDraft(event="decision", public={})])
        assert opened == await active.approval(draft.id)
        assert (opened.state, opened.caller, opened.rule) == (
            ApprovalState.PENDING,
            draft.caller,
            draft.rule,
        )
        assert await active.plan_text(draft.plan.hash) == draft.plan.text
        assert (await events(active))[1:] == ["decision", "approval.opened"]

    async def test_the_same_request_gives_the_approval_that_is_there(
        self, active: Ledger, clock: SetClock
    ) -> None:
        first = await _opened(active, clock)
        again = await active.open_approval(
            sample.approval_draft(clock), [EntryDraft(event="decision", public={})]
        )
        await active.vote(first.id, first.plan_hash, sample.vote(clock))
        approved = await _opened(active, clock)
        assert (again.id, approved.id) == (first.id, first.id)
        assert (await events(active)).count("approval.opened") == 1
        assert (await events(active)).count("decision") == 1

    @pytest.mark.threat("T-07")
    async def test_another_plan_of_the_same_call_supersedes(
        self, active: Ledger, clock: SetClock
    ) -> None:
        old = await _approved(active, clock)
        changed = sample.plan(note="changed")
        new = await active.open_approval(sample.approval_draft(clock, changed), NOTHING)
        assert new.supersedes == old.id
        assert await _state(active, old.id) is ApprovalState.SUPERSEDED
        assert (await events(active))[-2:] == ["approval.superseded", "approval.opened"]
        await _refused(active, _intent(clock, old), Code.APPROVAL_MISMATCH)

    async def test_one_of_another_call_is_left_alone(self, active: Ledger, clock: SetClock) -> None:
        old = await _opened(active, clock)
        other = sample.approval_draft(clock, sample.plan("db"))
        assert (await active.open_approval(other, NOTHING)).supersedes is None
        assert await _state(active, old.id) is ApprovalState.PENDING

    async def test_as_many_people_as_asked_for_must_agree(
        self, active: Ledger, clock: SetClock
    ) -> None:
        opened = await _opened(active, clock, rule=ApprovalRule(required=2))
        one = await active.vote(opened.id, opened.plan_hash, sample.vote(clock, "olga"))
        assert one.state is ApprovalState.PENDING
        with pytest.raises(Conflict):
            await active.vote(opened.id, opened.plan_hash, sample.vote(clock, "olga"))
        two = await active.vote(opened.id, opened.plan_hash, sample.vote(clock, "pete"))
        assert two.state is ApprovalState.APPROVED
        assert [vote.subject for vote in two.votes] == ["olga", "pete"]
        with pytest.raises(Conflict):
            await active.vote(opened.id, opened.plan_hash, sample.vote(clock, "quin"))

    async def test_every_quorum_has_to_be_met(self, active: Ledger, clock: SetClock) -> None:
        rule = ApprovalRule(
            required=2, groups=("sre",), also=(Quorum(required=1, groups=("security",)),)
        )
        opened = await _opened(active, clock, rule=rule)
        assert opened.rule == rule
        for subject, groups, state in (
            ("olga", ("sre",), ApprovalState.PENDING),
            ("sam", ("security",), ApprovalState.PENDING),
            ("nobody", (), ApprovalState.PENDING),
            ("pete", ("sre",), ApprovalState.APPROVED),
        ):
            given = sample.vote(clock, subject, groups=groups)
            after = await active.vote(opened.id, opened.plan_hash, given)
            assert after.state is state, subject

    async def test_one_person_may_count_for_several_quorums(
        self, active: Ledger, clock: SetClock
    ) -> None:
        rule = ApprovalRule(groups=("sre",), also=(Quorum(groups=("security",)),))
        opened = await _opened(active, clock, rule=rule)
        both = sample.vote(clock, groups=("security", "sre"))
        after = await active.vote(opened.id, opened.plan_hash, both)
        assert after.state is ApprovalState.APPROVED

    async def test_one_denial_denies_for_good(self, active: Ledger, clock: SetClock) -> None:
        opened = await _opened(active, clock, rule=ApprovalRule(required=2))
        await active.vote(opened.id, opened.plan_hash, sample.vote(clock, "olga"))
        no = sample.vote(clock, "pete", Verdict.DENY)
        assert (await active.vote(opened.id, opened.plan_hash, no)).state is ApprovalState.DENIED
        with pytest.raises(Conflict):
            await active.vote(opened.id, opened.plan_hash, sample.vote(clock, "quin"))
        await _refused(active, _intent(clock, opened), Code.APPROVAL_MISMATCH)

    @pytest.mark.threat("T-07")
    async def test_a_vote_names_the_plan_it_is_for(self, active: Ledger, clock: SetClock) -> None:
        opened = await _opened(active, clock)
        with pytest.raises(Refused) as caught:
            await active.vote(opened.id, sample.plan("db").hash, sample.vote(clock))
        assert caught.value.code is Code.APPROVAL_MISMATCH
        with pytest.raises(NotFound):
            await active.vote("apr_none", opened.plan_hash, sample.vote(clock))
        assert await _state(active, opened.id) is ApprovalState.PENDING

    async def test_a_vote_past_its_time_is_refused(self, active: Ledger, clock: SetClock) -> None:
        opened = await _opened(active, clock)
        clock.move(LATER_MS)
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                await active.vote(opened.id, opened.plan_hash, sample.vote(clock))
            assert caught.value.code is Code.APPROVAL_EXPIRED
            await active.expire_approvals(clock.now_ms())

    async def test_what_is_past_its_time_expires_once(
        self, active: Ledger, clock: SetClock
    ) -> None:
        pending = await _opened(active, clock)
        approved = await _approved(active, clock, "db")
        assert await active.expire_approvals(clock.now_ms() + LATER_MS - 1) == []
        clock.move(LATER_MS)
        assert await active.expire_approvals(clock.now_ms()) == [pending.id, approved.id]
        assert await active.expire_approvals(clock.now_ms()) == []
        assert (await events(active)).count("approval.expired") == 2

    async def test_an_expired_one_is_not_reused_for_a_new_request(
        self, active: Ledger, clock: SetClock
    ) -> None:
        old = await _approved(active, clock)
        clock.move(LATER_MS)
        new = await _opened(active, clock)
        assert new.id != old.id
        assert await _state(active, old.id) is ApprovalState.EXPIRED

    async def test_a_withdrawn_approval_is_over(self, active: Ledger, clock: SetClock) -> None:
        approved = await _approved(active, clock)
        now = clock.now_ms()
        await active.revoke_approval(approved.id, operator="olga", now_ms=now)
        assert await _state(active, approved.id) is ApprovalState.WITHDRAWN
        await _refused(active, _intent(clock, approved), Code.APPROVAL_MISMATCH)
        with pytest.raises(Conflict):
            await active.revoke_approval(approved.id, operator="olga", now_ms=now)
        with pytest.raises(NotFound):
            await active.revoke_approval("apr_none", operator="olga", now_ms=now)

    @pytest.mark.threat("T-08")
    async def test_an_approval_is_spent_by_one_run(self, active: Ledger, clock: SetClock) -> None:
        approved = await _approved(active, clock)
        grant = await active.commit_intent(_intent(clock, approved), NOTHING)
        spent = await active.approval(approved.id)
        assert spent is not None
        assert (spent.state, spent.run_id) == (ApprovalState.SPENT, grant.run_id)
        assert (await document(active, grant.intent_index))["approval"] == approved.id
        await active.start(grant, clock.now_ms())
        await active.settle(sample.outcome(clock, grant), sample.outcome_entry())
        await _refused(active, _intent(clock, approved), Code.GRANT_SPENT)

    @pytest.mark.threat("T-07")
    async def test_an_approval_serves_only_its_own_plan(
        self, active: Ledger, clock: SetClock
    ) -> None:
        approved = await _approved(active, clock)
        for other in (sample.plan(note="changed"), sample.plan("db")):
            intent = _intent(clock, approved, plan=other)
            await _refused(active, intent, Code.APPROVAL_MISMATCH)
        assert await _state(active, approved.id) is ApprovalState.APPROVED

    @pytest.mark.threat("T-10")
    async def test_an_approval_past_its_time_serves_nothing(
        self, active: Ledger, clock: SetClock
    ) -> None:
        approved = await _approved(active, clock)
        clock.move(LATER_MS)
        await _refused(active, _intent(clock, approved), Code.APPROVAL_EXPIRED)
        await active.expire_approvals(clock.now_ms())
        await _refused(active, _intent(clock, approved), Code.APPROVAL_EXPIRED)

    async def test_a_pending_or_missing_approval_serves_nothing(
        self, active: Ledger, clock: SetClock
    ) -> None:
        pending = await _opened(active, clock)
        await _refused(active, _intent(clock, pending), Code.APPROVAL_MISMATCH)
        missing = sample.intent(clock, approval_id="apr_none", decision=sample.require(clock))
        await _refused(active, missing, Code.APPROVAL_MISMATCH)
        unnamed = sample.intent(clock, decision=sample.require(clock))
        await _refused(active, unnamed, Code.APPROVAL_MISMATCH)

    async def test_approvals_are_listed_newest_first(self, active: Ledger, clock: SetClock) -> None:
        first = await _opened(active, clock)
        second = await _approved(active, clock, "db")
        pending = await active.approvals(states=frozenset({ApprovalState.PENDING}))
        assert [each.id for each in pending] == [first.id]
        assert [each.id for each in await active.approvals()] == [second.id, first.id]
        assert [each.id for each in await active.approvals_of(first.call_digest)] == [first.id]
        found = await active.approval_for(second.call_digest, second.plan_hash)
        assert found == second
        assert await active.approval_for(second.call_digest, first.plan_hash) is None


def _intent(clock: SetClock, approval: Approval, **changes: object) -> Intent:
    decision = sample.require(clock)
    return sample.intent(clock, approval_id=approval.id, decision=decision, **changes)


async def _opened(
    ledger: Ledger, clock: SetClock, service: str = "web", **more: object
) -> Approval:
    draft = sample.approval_draft(clock, sample.plan(service), **more)
    return await ledger.open_approval(draft, NOTHING)


async def _approved(ledger: Ledger, clock: SetClock, service: str = "web") -> Approval:
    opened = await _opened(ledger, clock, service)
    return await ledger.vote(opened.id, opened.plan_hash, sample.vote(clock))


async def _state(ledger: Ledger, approval_id: str) -> ApprovalState:
    found = await ledger.approval(approval_id)
    assert found is not None
    return found.state


async def _refused(ledger: Ledger, intent: Intent, code: Code) -> None:
    before = await events(ledger)
    with pytest.raises(Refused) as caught:
        await ledger.commit_intent(intent, NOTHING)
    assert caught.value.code is code
    assert await events(ledger) == before
