"""A ledger in a file, and a small log with a whole story in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from remit.ledger.checkpoint import VerifierKey
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import RunState
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import NOTHING, SetClock

Reopen = Callable[[], SqliteLedger]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    return FileSigner.create(tmp_path / "log.key", "gateway.example/log")


@pytest.fixture
def key(signer: FileSigner) -> VerifierKey:
    return VerifierKey.parse(signer.verifier_key)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def reopen(store: Path, signer: FileSigner, clock: SetClock) -> Reopen:
    def open_it() -> SqliteLedger:
        return SqliteLedger.open(
            store, signer=signer, gateway="gw-1", clock=clock, reserve_bytes=65_536
        )

    return open_it


@pytest.fixture
async def ledger(reopen: Reopen) -> AsyncIterator[SqliteLedger]:
    opened = reopen()
    yield opened
    await opened.aclose()


async def tell_story(ledger: SqliteLedger, clock: SetClock) -> None:
    """An allowed run, an approved one, one denied approval, one open run: a log of 13 entries."""
    await ledger.activate(sample.activation(), clock.now_ms())
    plan, decision = sample.plan("web"), sample.allow(clock)
    intent = sample.intent(clock, plan=plan, decision=decision)
    grant = await ledger.commit_intent(intent, [sample.decision_entry(plan, decision)])
    await ledger.start(grant, clock.now_ms())
    await ledger.settle(sample.outcome(clock, grant), sample.outcome_entry())
    await ledger.receipt(3)
    plan, asked = sample.plan("db"), sample.require(clock)
    draft = sample.approval_draft(clock, plan, decision_id=asked.evaluation.decision_id)
    opened = await ledger.open_approval(draft, [sample.decision_entry(plan, asked)])
    await ledger.vote(opened.id, opened.plan_hash, sample.vote(clock))
    again = sample.require(clock)
    intent = sample.intent(clock, plan=plan, decision=again, approval_id=opened.id)
    grant = await ledger.commit_intent(intent, [sample.decision_entry(plan, again)])
    await ledger.start(grant, clock.now_ms())
    await ledger.settle(sample.outcome(clock, grant, RunState.UNKNOWN), sample.outcome_entry())
    await ledger.receipt(9)
    await ledger.resolve(
        grant.run_id, operator="olga", succeeded=True, note="seen", now_ms=clock.now_ms()
    )
    plan, last = sample.plan("mail"), sample.allow(clock)
    intent = sample.intent(clock, plan=plan, decision=last)
    await ledger.commit_intent(intent, [*NOTHING, sample.decision_entry(plan, last)])
