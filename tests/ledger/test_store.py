"""The store: opened only as it was left, written in batches, and never half."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from remit.clock import SystemClock
from remit.errors import Code, LedgerFault, Refused
from remit.ledger.schema import HEAD, connect_reader
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.ledger.storage import Reserve, file_system, refuse_network
from remit.ledger.tables import metadata
from remit.ledger.writer import Transaction
from remit.model import EntryDraft, RunState
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import NOTHING, SetClock, events, granted
from tests.ledger.conftest import Reopen, tell_story

pytestmark = pytest.mark.anyio


def draft(event: str = "e", size: int = 0) -> EntryDraft:
    return EntryDraft(event=event, public={"text": "x" * size})


def change(store: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(store)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def refused(reopen: Reopen, code: Code) -> LedgerFault:
    with pytest.raises(LedgerFault) as caught:
        reopen()
    assert caught.value.code is code
    return caught.value


# ----------------------------------------------------------------------------------------- opening


async def test_what_was_written_is_there_after_closing_and_opening(
    ledger: SqliteLedger, reopen: Reopen, clock: SetClock
) -> None:
    await tell_story(ledger, clock)
    before = await ledger.entries(0, 99)
    await ledger.aclose()
    again = reopen()
    assert await again.entries(0, 99) == before
    assert (await again.checkpoint()).size == len(before)
    assert (await again.receipt(5)).leaf_hash == before[5].leaf_hash
    assert [run.state for run in await again.runs(states=frozenset({RunState.INTENDED}))] == [
        RunState.INTENDED
    ]
    grant = await granted(again, clock)
    assert grant.fence == 4
    await again.aclose()


async def test_the_migrations_make_exactly_the_tables(ledger: SqliteLedger, store: Path) -> None:
    await ledger.aclose()
    engine = create_engine(f"sqlite:///{store}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(
    ledger: SqliteLedger, store: Path, reopen: Reopen
) -> None:
    await ledger.aclose()
    change(store, "UPDATE alembic_version SET version_num = '9999'")
    assert "newer" in refused(reopen, Code.LEDGER_UNAVAILABLE).message


async def test_a_second_process_is_refused(ledger: SqliteLedger, reopen: Reopen) -> None:
    assert "another process" in refused(reopen, Code.LEDGER_UNAVAILABLE).message
    await ledger.aclose()
    await reopen().aclose()


async def test_a_file_that_is_not_a_ledger_is_refused(store: Path, reopen: Reopen) -> None:
    store.write_bytes(b"this is not a database, but long enough to be read as one" * 20)
    refused(reopen, Code.LEDGER_UNAVAILABLE)


@pytest.mark.threat("T-22")
async def test_a_log_cut_since_its_last_checkpoint_does_not_open(
    ledger: SqliteLedger, store: Path, reopen: Reopen, clock: SetClock
) -> None:
    await tell_story(ledger, clock)
    await ledger.aclose()
    change(store, "DROP TRIGGER entry_no_delete", "DELETE FROM entry WHERE seq >= 11")
    assert "shorter" in refused(reopen, Code.LOG_TAMPERED).message


@pytest.mark.threat("T-21")
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entry SET text = CAST(replace(text, 'dec', 'Dec') AS BLOB) WHERE seq = 12",
        "UPDATE entry SET nodes = zeroblob(length(nodes)) WHERE seq = 7",
        "DELETE FROM entry WHERE seq = 7",
    ],
)
async def test_a_log_changed_where_opening_looks_does_not_open(
    ledger: SqliteLedger, store: Path, reopen: Reopen, clock: SetClock, sql: str
) -> None:
    await tell_story(ledger, clock)
    await ledger.aclose()
    change(store, "DROP TRIGGER entry_no_delete", "DROP TRIGGER entry_no_update", sql)
    refused(reopen, Code.LOG_TAMPERED)


@pytest.mark.threat("T-02")
async def test_a_log_does_not_go_on_under_another_key(
    ledger: SqliteLedger, store: Path, clock: SetClock, tmp_path: Path
) -> None:
    await tell_story(ledger, clock)
    await ledger.aclose()
    other = FileSigner.create(tmp_path / "other.key", "gateway.example/log")
    with pytest.raises(LedgerFault) as caught:
        SqliteLedger.open(store, signer=other, gateway="gw-1", clock=clock)
    assert caught.value.code is Code.SIGNATURE_INVALID


@pytest.mark.threat("T-21")
async def test_the_store_itself_forbids_changing_entries(
    ledger: SqliteLedger, store: Path, clock: SetClock
) -> None:
    await tell_story(ledger, clock)
    await ledger.aclose()
    for statement in ("UPDATE entry SET text = x'00'", "DELETE FROM entry"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            change(store, statement)


@pytest.mark.threat("T-01")
async def test_its_files_are_the_owners_alone(ledger: SqliteLedger, store: Path) -> None:
    await ledger.append([draft()])
    for path in store.parent.glob("ledger.db*"):
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"22 21 0:40 / {tmp_path} rw,relatime shared:1 - nfs4 server:/export rw\n"
    )
    assert file_system(tmp_path / "ledger.db", str(mounts)) == "nfs4"
    assert file_system(Path("/elsewhere"), str(mounts)) == "ext4"
    assert file_system(tmp_path, str(tmp_path / "none")) is None
    monkeypatch.setattr("remit.ledger.storage.file_system", lambda path: "nfs4")
    with pytest.raises(LedgerFault, match="network"):
        refuse_network(tmp_path / "ledger.db")


# ----------------------------------------------------------------------------------------- writing


async def test_a_refused_piece_does_not_harm_those_written_with_it(
    ledger: SqliteLedger, clock: SetClock
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    good = [sample.intent(clock, plan=sample.plan(f"s{n}")) for n in range(20)]
    bad = [sample.intent(clock, plan=sample.plan(f"s{n}"), tool_name="gone") for n in range(20)]
    mixed = [each for pair in zip(good, bad, strict=True) for each in pair]
    results = await asyncio.gather(
        *(ledger.commit_intent(each, [draft("decision")]) for each in mixed), return_exceptions=True
    )
    assert [isinstance(each, Refused) for each in results] == [False, True] * 20
    assert (await events(ledger)).count("call.intent") == 20
    assert (await events(ledger)).count("decision") == 20
    for index in range(41):
        await ledger.receipt(index)


@pytest.mark.threat("T-08")
async def test_of_many_at_once_one_spends_the_approval(
    ledger: SqliteLedger, clock: SetClock
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    opened = await ledger.open_approval(sample.approval_draft(clock), NOTHING)
    await ledger.vote(opened.id, opened.plan_hash, sample.vote(clock))
    intents = [
        sample.intent(clock, approval_id=opened.id, decision=sample.require(clock))
        for _ in range(10)
    ]
    results = await asyncio.gather(
        *(ledger.commit_intent(each, NOTHING) for each in intents), return_exceptions=True
    )
    assert sum(not isinstance(each, Refused) for each in results) == 1


async def test_a_row_that_the_tables_refuse_is_a_fault_and_nothing_is_written(
    ledger: SqliteLedger, clock: SetClock
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    first = await granted(ledger, clock)
    with pytest.raises(LedgerFault):
        await granted(ledger, clock, run_id=first.run_id, plan=sample.plan("db"))
    assert (await events(ledger)).count("call.intent") == 1
    assert await ledger.ready() is None


async def test_what_was_cancelled_before_it_began_is_not_written(ledger: SqliteLedger) -> None:
    tasks = [asyncio.ensure_future(ledger.append([draft(f"e{n}")])) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[25:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await ledger.ready() is None
    written = await events(ledger)
    assert written[:25] == [f"e{n}" for n in range(25)]
    size = (await ledger.checkpoint()).size
    assert size == len(written)


async def test_writing_after_closing_is_refused(ledger: SqliteLedger) -> None:
    await ledger.aclose()
    with pytest.raises(LedgerFault):
        await ledger.append([draft()])
    assert await ledger.ready() is not None


async def test_readers_cannot_write(ledger: SqliteLedger, store: Path) -> None:
    reader = connect_reader(store)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM plan")
    reader.close()


async def test_a_quiet_log_is_signed_within_seconds(
    store: Path, signer: FileSigner, tmp_path: Path
) -> None:
    ledger = SqliteLedger.open(store, signer=signer, gateway="gw-1", clock=SystemClock())
    await ledger.append([draft()])
    reader = connect_reader(store)
    async with asyncio.timeout(10):
        while not reader.execute("SELECT * FROM checkpoint").fetchall():
            await asyncio.sleep(0.05)
    reader.close()
    await ledger.aclose()


class BrokenSigner:
    """A signer whose key is out of reach."""

    def __init__(self, verifier_key: str) -> None:
        self.verifier_key = verifier_key
        self.signed = 0

    def sign(self, text: bytes, proof: Sequence[bytes] = ()) -> str:
        raise OSError("no key")


async def test_without_its_key_a_ledger_still_writes_but_gives_no_receipts(
    store: Path, signer: FileSigner, clock: SetClock, reopen: Reopen
) -> None:
    broken = BrokenSigner(signer.verifier_key)
    ledger = SqliteLedger.open(store, signer=broken, gateway="gw-1", clock=clock)
    assert list(await ledger.append([draft()])) == [0]
    with pytest.raises(LedgerFault):
        await ledger.receipt(0)
    await ledger.aclose()
    again = reopen()
    assert (await again.receipt(0)).checkpoint.size == 1
    await again.aclose()


async def test_counts_of_refusals_are_written_at_the_end(
    ledger: SqliteLedger, reopen: Reopen, clock: SetClock
) -> None:
    await ledger.count_refusal("10.0.0.9", "unauthenticated", clock.now_ms())
    await ledger.aclose()
    again = reopen()
    assert await events(again) == ["refusals.counted"]
    assert [c.size for c in await again.checkpoints()] == [1]
    await again.aclose()


# --------------------------------------------------------------------------------------- a full disk


async def test_when_the_store_is_full_intents_stop_and_outcomes_go_on(
    store: Path, signer: FileSigner, clock: SetClock
) -> None:
    ledger = SqliteLedger.open(
        store,
        signer=signer,
        gateway="gw-1",
        clock=clock,
        reserve_bytes=200_000,
        max_bytes=600_000,
    )
    await ledger.activate(sample.activation(), clock.now_ms())
    grants = []
    with pytest.raises(LedgerFault) as caught:
        for n in range(10_000):
            grants.append(await granted(ledger, clock, plan=sample.plan(f"s{n}")))
    assert caught.value.code is Code.LEDGER_FULL
    assert await ledger.ready() == "the disk is full"
    written = (await ledger.checkpoint()).size
    assert written == 1 + len(grants)
    with pytest.raises(LedgerFault):
        await ledger.append([draft()])
    for grant in grants[:20]:
        outcome = sample.outcome(clock, grant, RunState.UNKNOWN)
        await ledger.settle(outcome, sample.outcome_entry())
    await ledger.freeze(True, operator="olga", reason="full", now_ms=clock.now_ms())
    assert (await ledger.checkpoint()).size == written + 21
    await ledger.aclose()
    again = SqliteLedger.open(store, signer=signer, gateway="gw-1", clock=clock)
    assert await again.frozen() == "full"
    assert await again.ready() is None
    await again.aclose()


async def test_the_reserve_is_room_on_the_disk(ledger: SqliteLedger, store: Path) -> None:
    held = os.stat(store.with_name("ledger.db.reserve"))
    assert held.st_blocks * 512 >= 65_536


async def test_the_reserve_is_taken_again_once_there_is_room(
    ledger: SqliteLedger, store: Path
) -> None:
    path = store.with_name("ledger.db.reserve")
    await ledger._writer.run(lambda tx: tx.append([draft()]))
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as db:
        reserve = Reserve(path, size=65_536)
        reserve.release(db)
        assert (reserve.released, path.stat().st_size) == (True, 0)
        assert reserve.try_again(db)
        assert (reserve.released, path.stat().st_size) == (False, 65_536)


async def test_a_failing_store_fails_all_that_were_written_together(ledger: SqliteLedger) -> None:
    def failing(tx: Transaction) -> None:
        tx.append([draft("with it")])
        tx.db.execute("SELECT * FROM no_such_table")

    results = await asyncio.gather(
        ledger.append([draft("before")]),
        ledger._writer.run(failing),
        ledger.append([draft("after")]),
        return_exceptions=True,
    )
    written = [each for each in results if not isinstance(each, LedgerFault)]
    assert await events(ledger) == ["before"] * len(written)  # alone in a batch before, or not
    assert len(written) <= 1


async def test_a_store_that_fails_is_not_written_again_until_it_is_opened_anew(
    ledger: SqliteLedger, reopen: Reopen, store: Path
) -> None:
    await ledger.append([draft("before")])
    await ledger._writer.run(lambda tx: tx.db.execute("PRAGMA writable_schema=OFF"))
    with pytest.raises(LedgerFault) as caught:
        await ledger._writer.run(lambda tx: tx.db.execute("SELECT * FROM no_such_table"))
    assert caught.value.code is Code.LEDGER_UNAVAILABLE
    with pytest.raises(LedgerFault):
        await ledger.append([draft("after")])
    assert await ledger.ready() == "the ledger could not be written"
    await ledger.aclose()
    again = reopen()
    assert await events(again) == ["before"]
    await again.aclose()
