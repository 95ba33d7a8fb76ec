"""The part of the ledger's contract that is about runs: granted, started, ended, each once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from remit.canonical import digest_of
from remit.errors import Code, Conflict, NotFound, Refused
from remit.model import Effect, EntryDraft, Grant, Intent, Outcome, Plan, PlanKind, Repeat, RunState
from remit.ports import Ledger
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import NOTHING, SetClock, document, ended, events, granted


class IntentContract:
    """`commit_intent` checks everything again, in the transaction that writes."""

    async def test_an_intent_that_passes_is_durable_with_its_plan_and_drafts(
        self, active: Ledger, clock: SetClock
    ) -> None:
        intent = sample.intent(clock, idempotency_key="k1")
        entry = sample.decision_entry(intent.plan, intent.decision)
        grant = await active.commit_intent(intent, [entry])
        written = await document(active, grant.intent_index)
        assert await events(active) == ["gateway.activated", "decision", "call.intent"]
        assert (written["run"], written["fence"]) == (intent.run_id, grant.fence)
        assert (written["plan_hash"], written["verdict"]) == (intent.plan.hash, "allow")
        said = await active.value(written["commitments"]["claimed"])
        assert said == b'{"purpose":"restart it"}'
        assert "restart it" not in json.dumps(written)
        assert "k1" not in json.dumps(written)
        assert await active.plan_text(intent.plan.hash) == intent.plan.text
        run = await active.run(intent.run_id)
        assert run is not None
        assert (run.state, run.fence, run.intent_index) == (
            RunState.INTENDED,
            grant.fence,
            grant.intent_index,
        )

    async def test_fences_only_grow(self, active: Ledger, clock: SetClock) -> None:
        fences = [(await granted(active, clock, plan=sample.plan(f"s{n}"))).fence for n in range(4)]
        assert fences == sorted(set(fences))

    @pytest.mark.threat("T-10")
    async def test_nothing_is_granted_before_something_is_active(
        self, ledger: Ledger, clock: SetClock
    ) -> None:
        await _refused(ledger, sample.intent(clock), Code.DECISION_STALE)

    @pytest.mark.threat("T-10")
    async def test_a_frozen_gateway_grants_nothing(self, active: Ledger, clock: SetClock) -> None:
        await active.freeze(True, operator="olga", reason="drill", now_ms=clock.now_ms())
        assert await active.frozen() == "drill"
        await _refused(active, sample.intent(clock), Code.FROZEN)
        await active.freeze(False, operator="olga", reason="over", now_ms=clock.now_ms())
        assert await active.frozen() is None
        await granted(active, clock)

    @pytest.mark.threat("T-10")
    async def test_a_decision_of_another_revision_is_stale(
        self, active: Ledger, clock: SetClock
    ) -> None:
        decision = sample.allow(clock, revision="rev-0")
        await _refused(active, sample.intent(clock, decision=decision), Code.DECISION_STALE)

    @pytest.mark.threat("T-10")
    @pytest.mark.parametrize(("age_ms", "passes"), [(29_999, True), (30_000, False), (-1, False)])
    async def test_a_decision_holds_for_less_than_thirty_seconds(
        self, active: Ledger, clock: SetClock, age_ms: int, passes: bool
    ) -> None:
        decision = sample.allow(clock)
        intent = sample.intent(clock, decision=decision, now_ms=clock.now_ms() + age_ms)
        if passes:
            await active.commit_intent(intent, NOTHING)
        else:
            await _refused(active, intent, Code.DECISION_STALE)

    @pytest.mark.threat("T-10")
    async def test_a_changed_or_removed_tool_is_refused(
        self, active: Ledger, clock: SetClock
    ) -> None:
        changed = digest_of("remit.tool/1", "other")
        await _refused(active, sample.intent(clock, tool_digest=changed), Code.TOOL_CHANGED)
        await _refused(active, sample.intent(clock, tool_name="gone"), Code.TOOL_CHANGED)

    @pytest.mark.threat("T-02")
    async def test_a_revoked_key_is_refused(self, active: Ledger, clock: SetClock) -> None:
        revoked = sample.caller(key_id="key-0")
        await _refused(active, sample.intent(clock, caller=revoked), Code.CALLER_REVOKED)

    @pytest.mark.threat("T-07")
    async def test_a_plan_whose_text_is_not_its_hash_is_refused(
        self, active: Ledger, clock: SetClock
    ) -> None:
        true = sample.plan()
        swapped = replace(true, text=sample.plan("db").text)
        await _refused(active, sample.intent(clock, plan=swapped), Code.APPROVAL_MISMATCH)
        of_another = sample.intent(clock, call_digest=digest_of("remit.call/1", "db"))
        await _refused(active, of_another, Code.APPROVAL_MISMATCH)

    @pytest.mark.threat("T-15")
    async def test_a_write_is_refused_beside_an_open_run_of_the_same_call(
        self, active: Ledger, clock: SetClock
    ) -> None:
        grant = await granted(active, clock)
        await _refused(active, sample.intent(clock), Code.OUTCOME_UNKNOWN)
        await active.start(grant, clock.now_ms())
        await _refused(active, sample.intent(clock), Code.OUTCOME_UNKNOWN)
        await active.settle(sample.outcome(clock, grant), sample.outcome_entry())
        await granted(active, clock)

    async def test_reads_and_previews_run_beside_an_open_run(
        self, active: Ledger, clock: SetClock
    ) -> None:
        await granted(active, clock)
        await granted(active, clock, effect=Effect.READ)
        await granted(active, clock, plan=sample.plan(kind=PlanKind.PREVIEW), effect=Effect.READ)

    @pytest.mark.threat("T-15")
    async def test_an_unknown_outcome_refuses_the_call_until_it_is_resolved(
        self, active: Ledger, clock: SetClock
    ) -> None:
        first = await ended(active, clock, RunState.UNKNOWN)
        linked = sample.intent(clock, parent_run_id=first.run_id)
        await _refused(active, linked, Code.OUTCOME_UNKNOWN)
        await _resolve(active, first.run_id, clock)
        await granted(active, clock)

    @pytest.mark.threat("T-15")
    async def test_an_idempotent_tool_runs_again_only_when_linked_to_the_unknown_run(
        self, active: Ledger, clock: SetClock
    ) -> None:
        first = await ended(active, clock, RunState.UNKNOWN)
        await _refused(active, sample.intent(clock, idempotent=True), Code.OUTCOME_UNKNOWN)
        await granted(active, clock, idempotent=True, parent_run_id=first.run_id)
        open_now = sample.intent(clock, idempotent=True, parent_run_id=first.run_id)
        await _refused(active, open_now, Code.OUTCOME_UNKNOWN)


class RunContract:
    """A run starts at most once and ends at most once."""

    @pytest.mark.threat("T-15")
    async def test_a_grant_starts_once(self, active: Ledger, clock: SetClock) -> None:
        grant = await granted(active, clock)
        await active.start(grant, clock.now_ms())
        run = await active.run(grant.run_id)
        assert run is not None
        assert (run.state, run.started_ms) == (RunState.STARTED, clock.now_ms())
        await _start_refused(active, grant, clock, Code.GRANT_SPENT)

    @pytest.mark.threat("T-15")
    async def test_a_grant_that_was_never_given_does_not_start(
        self, active: Ledger, clock: SetClock
    ) -> None:
        grant = await granted(active, clock)
        other = sample.plan("db")
        for forged in (
            replace(grant, fence=grant.fence + 1),
            replace(grant, run_id="run_none"),
            replace(grant, plan=other),
        ):
            await _start_refused(active, forged, clock, Code.GRANT_SPENT)

    @pytest.mark.threat("T-10")
    async def test_nothing_starts_late_or_frozen(self, active: Ledger, clock: SetClock) -> None:
        grant = await granted(active, clock)
        await active.freeze(True, operator="olga", reason="drill", now_ms=clock.now_ms())
        await _start_refused(active, grant, clock, Code.FROZEN)
        await active.freeze(False, operator="olga", reason="over", now_ms=clock.now_ms())
        clock.move(40_000)
        later = replace(grant, deadline_ms=clock.now_ms() + 1)
        await _start_refused(active, later, clock, Code.DEADLINE_PASSED)

    async def test_an_outcome_is_written_with_what_binds_it_to_its_intent(
        self, active: Ledger, clock: SetClock
    ) -> None:
        grant = await granted(active, clock)
        await active.start(grant, clock.now_ms())
        outcome = sample.outcome(clock, grant, reply={"ok": True})
        lying = EntryDraft(event="call.outcome", public={"run": "run_other", "state": "failed"})
        index = await active.settle(outcome, lying)
        written = await document(active, index)
        assert (written["run"], written["state"]) == (grant.run_id, "succeeded")
        assert (written["fence"], written["plan_hash"]) == (grant.fence, grant.plan.hash)
        run = await active.run(grant.run_id)
        assert run is not None
        assert (run.state, run.outcome_index, run.exit_code) == (RunState.SUCCEEDED, index, 0)

    @pytest.mark.threat("T-15")
    async def test_a_run_has_at_most_one_outcome_and_only_with_its_fence(
        self, active: Ledger, clock: SetClock
    ) -> None:
        grant = await granted(active, clock)
        outcome = sample.outcome(clock, grant)
        await _not_settled(active, outcome)  # it never started, so it cannot have succeeded
        await active.start(grant, clock.now_ms())
        await _not_settled(active, replace(outcome, fence=grant.fence + 1))
        await _not_settled(active, replace(outcome, run_id="run_none"))
        await active.settle(outcome, sample.outcome_entry())
        await _not_settled(active, outcome)
        assert (await events(active)).count("call.outcome") == 1

    async def test_an_open_state_is_no_outcome(self, active: Ledger, clock: SetClock) -> None:
        grant = await granted(active, clock)
        with pytest.raises(ValueError, match="open"):
            await active.settle(
                sample.outcome(clock, grant, RunState.STARTED), sample.outcome_entry()
            )

    async def test_open_runs_are_listed_newest_first(self, active: Ledger, clock: SetClock) -> None:
        grants = [await granted(active, clock, plan=sample.plan(f"s{n}")) for n in range(3)]
        await active.start(grants[1], clock.now_ms())
        await active.start(grants[0], clock.now_ms())
        await active.settle(sample.outcome(clock, grants[0]), sample.outcome_entry())
        still = await active.runs(states=frozenset({RunState.INTENDED, RunState.STARTED}))
        assert [run.id for run in still] == [grants[2].run_id, grants[1].run_id]
        assert len(await active.runs()) == 3
        assert len(await active.runs(limit=1)) == 1

    async def test_a_repeat_is_found_by_key_first_then_by_call(
        self, active: Ledger, clock: SetClock
    ) -> None:
        keyed = await ended(active, clock, RunState.SUCCEEDED, idempotency_key="k")
        newer = await ended(active, clock, RunState.SUCCEEDED, plan=sample.plan("db"))
        by_key = await _repeat(active, newer.plan, "k")
        assert (by_key.run.id, by_key.reply) == (keyed.run_id, None)
        assert (await _repeat(active, newer.plan, "other")).run.id == newer.run_id
        assert (await _repeat(active, keyed.plan, None)).run.id == keyed.run_id
        stranger = sample.caller("agent-8")
        of_db = newer.plan.call_digest
        elsewhere = await active.repeat(stranger, sample.TOOL, of_db, "k")
        assert elsewhere is not None
        assert elsewhere.run.id == newer.run_id

    async def test_only_an_unknown_outcome_is_resolved_and_once(
        self, active: Ledger, clock: SetClock
    ) -> None:
        done = await ended(active, clock, RunState.SUCCEEDED)
        lost = await ended(active, clock, RunState.UNKNOWN, plan=sample.plan("db"))
        with pytest.raises(Conflict):
            await _resolve(active, done.run_id, clock)
        with pytest.raises(NotFound):
            await _resolve(active, "run_none", clock)
        await _resolve(active, lost.run_id, clock)
        run = await active.run(lost.run_id)
        assert run is not None
        assert (run.state, run.resolved_by, run.resolved_as) == (RunState.UNKNOWN, "olga", "failed")
        with pytest.raises(Conflict):
            await _resolve(active, lost.run_id, clock)


class StartWithIntentContract:
    """An intent may write the start too, under all of its checks; it is handed over once."""

    async def test_a_run_that_its_intent_starts_was_never_only_intended(
        self, active: Ledger, clock: SetClock
    ) -> None:
        plain = await granted(active, clock, plan=sample.plan("db"))
        grant = await granted(active, clock, starts=True)
        assert (plain.started, grant.started) == (False, True)
        run = await active.run(grant.run_id)
        assert run is not None
        assert (run.state, run.started_ms) == (RunState.STARTED, clock.now_ms())
        assert await events(active) == ["gateway.activated", "call.intent", "call.intent"]
        await active.start(grant, clock.now_ms())
        await active.settle(sample.outcome(clock, grant), sample.outcome_entry())

    @pytest.mark.threat("T-15")
    async def test_a_start_that_its_intent_wrote_is_handed_over_once_and_to_its_grant_alone(
        self, active: Ledger, clock: SetClock
    ) -> None:
        plain = await granted(active, clock, plan=sample.plan("db"))
        await _start_refused(active, replace(plain, started=True), clock, Code.GRANT_SPENT)
        await active.start(plain, clock.now_ms())
        first = await granted(active, clock, starts=True)
        await _start_refused(active, replace(first, started=False), clock, Code.GRANT_SPENT)
        await active.start(first, clock.now_ms())
        await _start_refused(active, first, clock, Code.GRANT_SPENT)
        for changed in ({"fence": 99}, {"run_id": "run_none"}, {"plan": sample.plan("db")}):
            grant = await granted(active, clock, plan=sample.plan(str(changed)), starts=True)
            forged: Any = replace(grant, **changed)
            await _start_refused(active, forged, clock, Code.GRANT_SPENT)

    @pytest.mark.threat("T-15")
    async def test_a_start_that_its_intent_wrote_ends_with_the_outcome(
        self, active: Ledger, clock: SetClock
    ) -> None:
        grant = await granted(active, clock, starts=True)
        never = sample.outcome(clock, grant, RunState.NEVER_STARTED)
        await active.settle(never, sample.outcome_entry())
        await _start_refused(active, grant, clock, Code.GRANT_SPENT)

    @pytest.mark.threat("T-10")
    async def test_no_intent_starts_what_is_frozen_or_late(
        self, active: Ledger, clock: SetClock
    ) -> None:
        late = sample.intent(clock, starts=True, deadline_ms=clock.now_ms())
        await _refused(active, late, Code.DEADLINE_PASSED)
        await active.freeze(True, operator="olga", reason="drill", now_ms=clock.now_ms())
        await _refused(active, sample.intent(clock, starts=True), Code.FROZEN)

    @pytest.mark.threat("T-10")
    async def test_freeze_and_deadline_are_looked_at_once_more_where_a_start_is_handed_over(
        self, active: Ledger, clock: SetClock
    ) -> None:
        grant = await granted(active, clock, starts=True)
        late = await granted(active, clock, plan=sample.plan("db"), starts=True)
        await active.freeze(True, operator="olga", reason="drill", now_ms=clock.now_ms())
        await _start_refused(active, grant, clock, Code.FROZEN)
        await active.freeze(False, operator="olga", reason="over", now_ms=clock.now_ms())
        await _start_refused(active, grant, clock, Code.GRANT_SPENT)
        clock.move(40_000)
        await _start_refused(active, late, clock, Code.DEADLINE_PASSED)

    @pytest.mark.threat("T-15")
    async def test_a_write_is_refused_beside_a_run_that_its_intent_started(
        self, active: Ledger, clock: SetClock
    ) -> None:
        await granted(active, clock, starts=True)
        await _refused(active, sample.intent(clock, starts=True), Code.OUTCOME_UNKNOWN)


async def _refused(ledger: Ledger, intent: Intent, code: Code) -> None:
    """The intent is refused with this code, and nothing of it was written."""
    before = await events(ledger)
    with pytest.raises(Refused) as caught:
        await ledger.commit_intent(intent, [EntryDraft(event="decision", public={})])
    assert caught.value.code is code
    assert await events(ledger) == before
    assert await ledger.run(intent.run_id) is None


async def _start_refused(ledger: Ledger, grant: Grant, clock: SetClock, code: Code) -> None:
    with pytest.raises(Refused) as caught:
        await ledger.start(grant, clock.now_ms())
    assert caught.value.code is code


async def _not_settled(ledger: Ledger, outcome: Outcome) -> None:
    before = await events(ledger)
    with pytest.raises(Conflict) as caught:
        await ledger.settle(outcome, sample.outcome_entry())
    assert caught.value.code is Code.WRONG_STATE
    assert await events(ledger) == before


async def _resolve(ledger: Ledger, run_id: str, clock: SetClock) -> None:
    await ledger.resolve(
        run_id, operator="olga", succeeded=False, note="it did not", now_ms=clock.now_ms()
    )


async def _repeat(ledger: Ledger, plan: Plan, key: str | None) -> Repeat:
    found = await ledger.repeat(sample.caller(), sample.TOOL, plan.call_digest, key)
    assert found is not None
    return found
