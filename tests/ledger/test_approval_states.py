"""Whatever people and callers do in whatever order, an approval keeps its promises."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from remit.errors import Conflict, Refused
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import Approval, ApprovalRule, ApprovalState, RunState, Verdict
from remit.testing import ledger_samples as sample
from remit.testing.ledger import MemoryLedger
from remit.testing.ledger_samples import NOTHING, SetClock

SERVICES = st.sampled_from(["web", "db"])
NOTES = st.sampled_from(["", "changed"])
PEOPLE = st.sampled_from(["olga", "pete", "quin"])
LIVE = {ApprovalState.PENDING, ApprovalState.APPROVED}


class Approvals(RuleBasedStateMachine):
    """Two ledgers take the same steps; they must agree, and the promises hold in both."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = SetClock()
        signer = FileSigner("gateway.example/log", Ed25519PrivateKey.from_private_bytes(b"s" * 32))
        path = Path(self.folder.name) / "ledger.db"
        self.store = SqliteLedger.open(
            path, signer=signer, gateway="gw-1", clock=self.clock, reserve_bytes=4096
        )
        self.memory = MemoryLedger(signer=signer, gateway="gw-1", clock=self.clock)
        self.ids: list[str] = []
        self.spent: dict[str, str] = {}
        self.seen: dict[str, list[ApprovalState]] = {}
        for ledger in (self.store, self.memory):
            self.do(ledger.activate(sample.activation(), self.clock.now_ms()))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.store.aclose())
            self.loop.close()
            self.folder.cleanup()

    def do(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(step)

    def both(self, step: Any) -> Any:
        """Take a step on both ledgers; they must answer alike, also in refusing."""
        answers = []
        for ledger in (self.store, self.memory):
            try:
                answers.append(self.do(step(ledger)))
            except (Refused, Conflict) as refusal:
                answers.append(refusal.code)
        assert answers[0] == answers[1]
        return answers[0]

    @rule(service=SERVICES, note=NOTES, required=st.integers(1, 2))
    def ask(self, service: str, note: str, required: int) -> None:
        draft = sample.approval_draft(
            self.clock, sample.plan(service, note=note), rule=ApprovalRule(required=required)
        )
        opened: Approval = self.both(lambda ledger: ledger.open_approval(draft, NOTHING))
        assert opened.state in LIVE
        assert opened.expires_ms > self.clock.now_ms()
        if opened.id not in self.ids:
            self.ids.append(opened.id)

    @rule(pick=st.integers(0, 99), person=PEOPLE, verdict=st.sampled_from(list(Verdict)))
    def vote(self, pick: int, person: str, verdict: Verdict) -> None:
        approval = self.pick(pick)
        if approval is not None:
            ballot = sample.vote(self.clock, person, verdict)
            self.both(lambda ledger: ledger.vote(approval.id, approval.plan_hash, ballot))

    @rule(pick=st.integers(0, 99))
    def withdraw(self, pick: int) -> None:
        approval = self.pick(pick)
        if approval is not None:
            now = self.clock.now_ms()
            self.both(
                lambda ledger: ledger.revoke_approval(approval.id, operator="olga", now_ms=now)
            )

    @rule(pick=st.integers(0, 99), service=SERVICES, note=NOTES)
    def run(self, pick: int, service: str, note: str) -> None:
        approval = self.pick(pick)
        if approval is None:
            return
        plan = sample.plan(service, note=note)
        decision = sample.require(self.clock)
        intent = sample.intent(self.clock, plan=plan, decision=decision, approval_id=approval.id)
        grant = self.both(lambda ledger: ledger.commit_intent(intent, NOTHING))
        if isinstance(grant, str):
            return
        assert approval.state is ApprovalState.APPROVED
        assert approval.id not in self.spent
        assert plan.hash == approval.plan_hash
        assert approval.expires_ms > self.clock.now_ms()
        self.spent[approval.id] = grant.run_id
        outcome = sample.outcome(self.clock, grant, RunState.FAILED)
        self.both(lambda ledger: ledger.settle(outcome, sample.outcome_entry()))

    @rule(minutes=st.sampled_from([1, 10, 15]))
    def wait(self, minutes: int) -> None:
        self.clock.move(60_000 * minutes)

    @rule()
    def sweep(self) -> None:
        now = self.clock.now_ms()
        self.both(lambda ledger: ledger.expire_approvals(now))

    def pick(self, number: int) -> Approval | None:
        if not self.ids:
            return None
        found: Approval = self.do(self.store.approval(self.ids[number % len(self.ids)]))
        return found

    @invariant()
    def promises_hold(self) -> None:
        live_calls: list[str] = []
        for name in getattr(self, "ids", []):
            found: Approval = self.both(lambda ledger, name=name: ledger.approval(name))
            history = self.seen.setdefault(name, [])
            if not history or history[-1] is not found.state:
                history.append(found.state)
            ended = [state for state in history if state not in LIVE]
            assert len(ended) <= 1, history
            assert not ended or history[-1] is ended[0], history
            if found.state is ApprovalState.SPENT:
                assert self.spent[name] == found.run_id
            agreed = {v.subject for v in found.votes if v.verdict is Verdict.APPROVE}
            if found.state in {ApprovalState.APPROVED, ApprovalState.SPENT}:
                assert len(agreed) >= found.rule.required
            if any(v.verdict is Verdict.DENY for v in found.votes):
                assert found.state is ApprovalState.DENIED
            live_calls += [found.call_digest] if found.state in LIVE else []
        assert len(live_calls) == len(set(live_calls))


Approvals.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.threat("T-08")
class TestApprovals(Approvals.TestCase):  # type: ignore[misc, valid-type]
    pass
