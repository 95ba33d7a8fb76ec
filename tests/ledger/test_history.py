"""What a subject touched, in the store: kept over restarts, and for ledgers from before it was."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from remit.ledger.checkpoint import VerifierKey
from remit.ledger.records import read_store
from remit.ledger.schema import HEAD, version
from remit.ledger.sqlite import SqliteLedger
from remit.ledger.verify import verify
from remit.model import Claims, Effect, Taint, Touch
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import SetClock, granted
from tests.ledger.conftest import Reopen, tell_story

pytestmark = pytest.mark.anyio

ADDED = ("tenant", "session", "system", "untrusted", "sensitive")


def back_to_0001(store: Path) -> None:
    """Make the file what the first version of the tables had."""
    with contextlib.closing(sqlite3.connect(store)) as db:
        db.execute("DROP INDEX run_subject")
        for column in ADDED:
            db.execute(f"ALTER TABLE run DROP COLUMN {column}")
        db.execute("DROP TABLE access_request")
        db.execute("UPDATE alembic_version SET version_num = '0001'")
        db.commit()


@pytest.mark.threat("T-30")
async def test_a_restart_forgets_nothing_that_was_touched(
    ledger: SqliteLedger, reopen: Reopen, clock: SetClock
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    await granted(ledger, clock, system="tickets", taints=(Taint.UNTRUSTED,))
    before = await ledger.touches("acme", "agent-7", since_ms=0)
    await ledger.aclose()
    again = reopen()
    assert await again.touches("acme", "agent-7", since_ms=0) == before != []
    await again.aclose()


async def test_a_ledger_from_before_touches_were_kept_opens_and_goes_on(
    ledger: SqliteLedger, store: Path, reopen: Reopen, clock: SetClock, key: VerifierKey
) -> None:
    await tell_story(ledger, clock)
    runs = await ledger.runs()
    await ledger.aclose()
    back_to_0001(store)
    again = reopen()
    assert await again.runs() == runs
    former = Touch(
        session="",
        system="command",
        effect=Effect.WRITE,
        untrusted=False,
        sensitive=False,
        calls=len(runs),
        last_ms=clock.now_ms(),
    )
    assert await again.touches("acme", "agent-7", since_ms=0) == [former]
    clock.move(1)
    plan, decision = sample.plan("new"), sample.allow(clock)
    new = sample.intent(
        clock, plan=plan, decision=decision, system="ci", claims=Claims(session_id="s")
    )
    await again.commit_intent(new, [sample.decision_entry(plan, decision)])
    systems = [touch.system for touch in await again.touches("acme", "agent-7", since_ms=0)]
    assert systems == ["ci", "command"]
    assert await again.access_requests() == []
    await again.aclose()
    with contextlib.closing(sqlite3.connect(store)) as db:
        assert version(db) == HEAD
    assert verify(read_store(store), key).problem is None


async def test_what_was_touched_is_found_by_an_index(ledger: SqliteLedger, store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store)) as db:
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT count(*) FROM run "
            "WHERE tenant = ? AND subject = ? AND intended_ms >= ?",
            ("acme", "agent-7", 0),
        ).fetchall()
    assert "run_subject" in plan[0][3]
