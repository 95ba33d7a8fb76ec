"""Stored values: compressed where that is shorter, and never unpacked beyond bounds."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import Code, LedgerFault
from remit.ledger import log
from remit.ledger.log import pack, unpack
from remit.ledger.records import EntryRecord, read_store
from remit.ledger.sqlite import SqliteLedger
from remit.model import RunState
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import SetClock
from tests.ledger.conftest import Reopen

BIG = b"the same line\n" * 100_000


@given(st.binary(max_size=5_000) | st.binary(max_size=50).map(lambda piece: piece * 100))
def test_what_is_packed_is_unpacked_and_never_longer(value: bytes) -> None:
    packed, stored = pack(value)
    assert unpack(packed, stored) == value
    assert len(stored) <= len(value)


@pytest.mark.threat("T-22")
@pytest.mark.parametrize(
    "stored",
    [
        zlib.compress(b"x" * 2_000),
        zlib.compress(b"x" * 999)[:-3],
        zlib.compress(b"x") + b"more",
        b"no zlib",
        b"",
    ],
    ids=["too long", "cut", "more behind it", "something else", "nothing"],
)
def test_what_pack_did_not_make_is_refused(stored: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_VALUE", 1_000)
    assert unpack(1, zlib.compress(b"x" * 1_000)) == b"x" * 1_000
    with pytest.raises(LedgerFault) as refused:
        unpack(1, stored)
    assert refused.value.code is Code.LOG_TAMPERED


@pytest.mark.anyio
async def test_long_output_is_stored_short_and_read_whole(
    ledger: SqliteLedger, store: Path, clock: SetClock
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    grant = await sample.granted(ledger, clock)
    await ledger.start(grant, clock.now_ms())
    ended = sample.outcome(clock, grant, RunState.SUCCEEDED)
    index = await ledger.settle(ended, sample.outcome_entry(BIG))
    commitment = (await sample.document(ledger, index))["commitments"]["stdout"]
    assert await ledger.value(commitment) == BIG
    with sqlite3.connect(store) as db:
        rows = db.execute(
            "SELECT packed, length(value) FROM sealed WHERE commitment = ?", (commitment,)
        ).fetchall()
    db.close()
    ((packed, size),) = rows
    assert packed == 1
    assert size < len(BIG) // 50


@pytest.mark.anyio
@pytest.mark.threat("T-22")
async def test_store_that_unpacks_beyond_bounds_is_read_without_the_value(
    ledger: SqliteLedger,
    store: Path,
    clock: SetClock,
    reopen: Reopen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    grant = await sample.granted(ledger, clock)
    await ledger.start(grant, clock.now_ms())
    ended = sample.outcome(clock, grant, RunState.SUCCEEDED)
    index = await ledger.settle(ended, sample.outcome_entry(BIG))
    commitment = (await sample.document(ledger, index))["commitments"]["stdout"]
    monkeypatch.setattr(log, "MAX_VALUE", 1_000)
    with pytest.raises(LedgerFault):
        await ledger.value(commitment)
    await ledger.aclose()
    (found,) = [
        record
        for record in read_store(store)
        if isinstance(record, EntryRecord) and record.index == index
    ]
    assert found.openings["stdout"][1] == b""
