"""The verifier notices each way in which a log can be changed, and says where."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from pathlib import Path

import pytest

from remit.canonical import encode
from remit.errors import Code
from remit.ledger.checkpoint import VerifierKey, open_checkpoint
from remit.ledger.export import export_store
from remit.ledger.receipt import open_receipt, receipt_json
from remit.ledger.records import read_store
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.ledger.verify import verify
from remit.model import EntryDraft
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import SetClock
from tests.ledger.conftest import tell_story
from tests.ledger.forging import Lines, broken, check, edit, resign, texts, where

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lines(ledger: SqliteLedger, store: Path, clock: SetClock) -> Lines:
    """An export with everything in it."""
    await tell_story(ledger, clock)
    await ledger.aclose()
    exported, newer = export_store(store, with_values=True, with_plans=True)
    assert newer == 0
    return list(exported)


async def test_a_whole_log_holds_and_says_what_it_holds(lines: Lines, key: VerifierKey) -> None:
    report = check(lines, key)
    assert report.problem is None
    assert (report.entries, report.signed) == (13, 13)
    assert report.checkpoints >= 3  # one more for each second that this took
    assert (report.intents, report.outcomes, len(report.open_runs)) == (3, 2, 1)
    assert (report.plans, report.sealed) == (3, 0)
    assert report.opened > 5


@pytest.mark.slow
@pytest.mark.threat("T-21")
async def test_one_changed_bit_of_any_byte_is_noticed(lines: Lines, key: VerifierKey) -> None:
    whole = b"".join(lines)
    assert len(whole) > 5_000
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        assert not check([bytes(changed)], key).ok, position


@pytest.mark.threat("T-21")
async def test_an_edited_entry_is_named(lines: Lines, key: VerifierKey) -> None:
    at = where(lines, 2)
    lines[at] = lines[at].replace(b"call.intent", b"call.intenT")
    broken(lines, key, Code.LOG_TAMPERED, 2)


@pytest.mark.threat("T-21")
async def test_an_edit_with_its_hash_is_found_by_the_next_checkpoint(
    lines: Lines, key: VerifierKey
) -> None:
    edit(lines, 6, lambda entry: entry.update(groups=["mallory"]))
    problem = check(lines, key).problem
    assert problem is not None
    assert problem.code is Code.LOG_TAMPERED
    assert problem.index in {4, 5, 6}  # the first that the checkpoint before does not cover


@pytest.mark.threat("T-21")
async def test_a_deleted_entry_is_noticed(lines: Lines, key: VerifierKey) -> None:
    del lines[where(lines, 5)]
    broken(lines, key, Code.LOG_TAMPERED, 5)


@pytest.mark.threat("T-21")
async def test_swapped_entries_are_noticed(lines: Lines, key: VerifierKey) -> None:
    one, two = where(lines, 5), where(lines, 6)
    lines[one], lines[two] = lines[two], lines[one]
    broken(lines, key, Code.LOG_TAMPERED, 5)


@pytest.mark.threat("T-21")
async def test_an_inserted_entry_is_noticed(lines: Lines, key: VerifierKey) -> None:
    lines.insert(where(lines, 6), lines[where(lines, 5)])
    broken(lines, key, Code.LOG_TAMPERED, 6)


@pytest.mark.threat("T-21")
async def test_an_entry_with_anothers_number_is_noticed(
    lines: Lines, key: VerifierKey, signer: FileSigner
) -> None:
    edit(lines, 6, lambda entry: entry.update(seq=7))
    broken(resign(texts(lines), signer), key, Code.LOG_TAMPERED, 6)


@pytest.mark.threat("T-22")
async def test_a_cut_export_is_noticed(lines: Lines, key: VerifierKey) -> None:
    for end in range(1, len(lines)):
        assert not check(lines[:end], key).ok, end
    broken(lines[: where(lines, 12)], key, Code.LOG_TRUNCATED, 12)
    assert not check([], key).ok


@pytest.mark.threat("T-22")
async def test_a_log_cut_at_an_older_checkpoint_is_noticed_only_with_one_from_outside(
    lines: Lines, key: VerifierKey
) -> None:
    last = open_checkpoint(json.loads(lines[-1])["checkpoint"], key)
    end = where(lines, 4)
    header = json.loads(lines[0]) | {"size": 4}
    cut = [encode(header) + b"\n", *lines[1:end]]
    report = check(cut, key)
    assert report.ok
    assert report.outside is None
    problem = check(cut, key, checkpoint=last).problem
    assert problem is not None
    assert (problem.code, problem.index) == (Code.LOG_TRUNCATED, 4)


@pytest.mark.threat("T-22")
async def test_a_log_cut_and_written_on_does_not_agree_with_a_receipt(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey, signer: FileSigner
) -> None:
    await tell_story(ledger, clock)
    given = receipt_json(await ledger.receipt(11))
    await ledger.aclose()
    lines = list(export_store(store)[0])
    kept = open_receipt(given, key)
    edit(lines, 10, lambda entry: entry.update(operator="mallory"))
    resumed = resign(texts(lines), signer)
    assert check(resumed, key).ok  # by itself the forged log is whole: the key was stolen
    problem = check(resumed, key, receipt=kept).problem
    assert problem is not None
    assert problem.code is Code.LOG_INCONSISTENT


@pytest.mark.threat("T-22")
async def test_a_fork_does_not_agree_with_the_checkpoint_of_the_other_side(
    lines: Lines, key: VerifierKey, signer: FileSigner
) -> None:
    other = [*texts(lines)[:-1]]
    theirs = open_checkpoint(json.loads(lines[-1])["checkpoint"], key)
    changed = json.loads(texts(lines)[-1]) | {"environment": "production"}
    problem = check(resign([*other, encode(changed)], signer), key, checkpoint=theirs).problem
    assert problem is not None
    assert problem.code is Code.LOG_INCONSISTENT
    assert check(lines, key, checkpoint=theirs).outside == 13


@pytest.mark.threat("T-22")
async def test_another_key_is_refused(lines: Lines, tmp_path: Path) -> None:
    other = FileSigner.create(tmp_path / "other.key", "gateway.example/log")
    stranger = FileSigner.create(tmp_path / "stranger.key", "elsewhere.example/log")
    for signer in (other, stranger):
        broken(lines, VerifierKey.parse(signer.verifier_key), Code.SIGNATURE_INVALID, None)


@pytest.mark.threat("T-22")
async def test_a_swapped_key_is_refused_even_where_the_header_was_kept(
    lines: Lines, key: VerifierKey, tmp_path: Path
) -> None:
    thief = FileSigner.create(tmp_path / "thief.key", "gateway.example/log")
    forged = resign(texts(lines), thief)
    broken([lines[0], *forged[1:]], key, Code.SIGNATURE_INVALID, None)


@pytest.mark.threat("T-22")
async def test_a_twice_signed_checkpoint_is_refused(lines: Lines, key: VerifierKey) -> None:
    note = json.loads(lines[-1])["checkpoint"]
    doubled = note + note.split("\n\n")[1]
    lines[-1] = encode({"checkpoint": doubled}) + b"\n"
    broken(lines, key, Code.LOG_MALFORMED, None)


@pytest.mark.threat("T-21")
@pytest.mark.parametrize("tail", [b"\n", b"x", b"{}\n", b'{"checkpoint":"x"}\n', b"\x00"])
async def test_trailing_bytes_are_refused(lines: Lines, key: VerifierKey, tail: bytes) -> None:
    assert not check([*lines, tail], key).ok


@pytest.mark.threat("T-21")
async def test_repeated_lines_are_refused(lines: Lines, key: VerifierKey) -> None:
    plan = next(line for line in lines if b'"plan":' in line)
    for extra in (lines[-1], lines[0], lines[where(lines, 12)], plan):
        assert not check([*lines, extra], key).ok


@pytest.mark.threat("T-21")
async def test_a_value_that_does_not_open_its_commitment_is_noticed(
    lines: Lines, key: VerifierKey
) -> None:
    at = where(lines, 3)
    line = json.loads(lines[at])
    line["openings"]["stdout"]["value"] = base64.b64encode(b"nothing\n").decode()
    lines[at] = encode(line) + b"\n"
    broken(lines, key, Code.LOG_TAMPERED, 3)


@pytest.mark.threat("T-21")
async def test_a_plan_that_is_not_its_hashs_or_nobodys_is_noticed(
    lines: Lines, key: VerifierKey
) -> None:
    at = next(n for n, line in enumerate(lines) if b'"plan":' in line)
    swapped = json.loads(lines[at]) | {"plan": "{}"}
    assert not check([*lines[:at], encode(swapped) + b"\n", *lines[at + 1 :]], key).ok
    foreign = sample.plan("nobody's")
    stray = encode({"hash": foreign.hash, "plan": foreign.text.decode()}) + b"\n"
    assert not check([*lines[:at], stray, *lines[at:]], key).ok


@pytest.mark.threat("T-22")
async def test_a_rewritten_entry_that_someone_has_a_receipt_for_is_named(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey, signer: FileSigner
) -> None:
    await tell_story(ledger, clock)
    given = open_receipt(receipt_json(await ledger.receipt(9)), key)
    await ledger.aclose()
    lines = list(export_store(store)[0])
    edit(lines, 9, lambda entry: entry.update(exit_code=1))
    problem = check(resign(texts(lines), signer), key, receipt=given).problem
    assert problem is not None
    assert (problem.code, problem.index) == (Code.LOG_INCONSISTENT, 9)


@pytest.mark.threat("T-21")
async def test_a_live_store_verifies_while_it_is_written(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey
) -> None:
    await tell_story(ledger, clock)
    report = verify(read_store(store), key)
    assert report.problem is None
    assert report.live
    assert (report.entries, report.plans) == (13, 3)
    assert report.entries >= report.signed


@pytest.mark.threat("T-21")
async def test_a_store_verifies_at_every_moment_of_being_written(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey
) -> None:
    await tell_story(ledger, clock)
    writing = asyncio.ensure_future(_write_on(ledger))
    seen = 0
    while seen < 100:
        report = await asyncio.to_thread(lambda: verify(read_store(store), key))
        assert report.problem is None
        seen = report.entries
    writing.cancel()


async def _write_on(ledger: SqliteLedger) -> None:
    while True:
        index = (await ledger.append([EntryDraft(event="e", public={}, sealed={"v": b"x"})]))[0]
        await ledger.receipt(index)


@pytest.mark.threat("T-21")
@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("UPDATE entry SET text = CAST(replace(text, 'rest', 'best') AS BLOB) WHERE seq = 2", 2),
        ("UPDATE entry SET text = 'other' WHERE seq = 3", 3),
        ("UPDATE entry SET nodes = zeroblob(32) WHERE seq = 4", 4),
        ("DELETE FROM entry WHERE seq = 5", 5),
        ("DELETE FROM entry WHERE seq >= 11", 11),
        ("UPDATE sealed SET value = 'other' WHERE id = 1", 0),
        ("UPDATE sealed SET value = CAST('other' AS BLOB) WHERE id = 1", 0),
        ("UPDATE sealed SET packed = 1 WHERE id = 1", 0),
        ("UPDATE plan SET text = 'other'", None),
        ("UPDATE plan SET text = CAST('other' AS BLOB)", None),
    ],
)
async def test_a_change_in_the_store_is_named(
    ledger: SqliteLedger,
    store: Path,
    clock: SetClock,
    key: VerifierKey,
    sql: str,
    index: int | None,
) -> None:
    await tell_story(ledger, clock)
    await ledger.aclose()
    db = sqlite3.connect(store)
    db.execute("DROP TRIGGER entry_no_update")
    db.execute("DROP TRIGGER entry_no_delete")
    assert db.execute(sql).rowcount > 0
    db.commit()
    db.close()
    problem = verify(read_store(store), key).problem
    assert problem is not None
    assert problem.index == index
