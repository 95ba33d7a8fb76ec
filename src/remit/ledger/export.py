"""Writes a log as `remit.export/1`: JSON lines that `remit audit verify` checks offline.

A header; then each entry, followed by the checkpoint over the log up to it where there is one,
and on request by the plan that it names. An export ends with a checkpoint over all of it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from remit.canonical import encode
from remit.errors import Code, LedgerFault, Unverified
from remit.ledger.checkpoint import signed_by
from remit.ledger.opening import read_checkpoints
from remit.ledger.reading import iterate_entries, read_opening, read_plan
from remit.ledger.records import SCHEMA
from remit.ledger.schema import connect_reader
from remit.model import Checkpoint, Entry

Opening = Callable[[str], tuple[bytes, bytes] | None]
PlanText = Callable[[str], bytes | None]

NAMES_A_PLAN = (b'"event":"call.intent"', b'"event":"approval.opened"')


def export_lines(
    entries: Iterable[Entry],
    checkpoints: Sequence[Checkpoint],
    *,
    opening: Opening | None = None,
    plan_text: PlanText | None = None,
) -> Iterator[bytes]:
    """The lines of an export, each with its newline.

    Args:
        entries: all entries under the last checkpoint, in order.
        checkpoints: smallest first, at least one; the last ends the export.
        opening: gives salts and values to include; they may hold secrets.
        plan_text: gives the plans to include; they hold the arguments of calls.
    """
    last = checkpoints[-1]
    name, key = signed_by(last.note)
    due = {each.size: each.note for each in checkpoints}
    yield _line(schema=SCHEMA, origin=name, key=key, size=last.size)
    written: set[str] = set()
    for entry in entries:
        yield _entry_line(entry, opening)
        if plan_text is not None and any(name in entry.text for name in NAMES_A_PLAN):
            plan_hash = json.loads(entry.text)["plan_hash"]
            text = None if plan_hash in written else plan_text(plan_hash)
            if text is not None:
                written.add(plan_hash)
                yield _line(hash=plan_hash, plan=text.decode())
        if (note := due.get(entry.index + 1)) is not None:
            yield _line(checkpoint=note)


def _entry_line(entry: Entry, opening: Opening | None) -> bytes:
    fields: dict[str, Any] = {
        "index": entry.index,
        "leaf": _base64(entry.leaf_hash),
        "entry": entry.text.decode(),
    }
    if opening is not None:
        openings = {}
        for name, commitment in json.loads(entry.text).get("commitments", {}).items():
            opened = opening(commitment)
            if opened is not None:
                openings[name] = {"salt": _base64(opened[0]), "value": _base64(opened[1])}
        if openings:
            fields["openings"] = openings
    return _line(**fields)


def _line(**fields: Any) -> bytes:
    return encode(fields) + b"\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def export_store(
    path: Path, *, with_values: bool = False, with_plans: bool = False
) -> tuple[Iterator[bytes], int]:
    """An export of a store's file, and how many newer entries it leaves out.

    Nothing is signed: it ends at the last checkpoint that is stored.

    Raises:
        LedgerFault: the file cannot be read as a ledger, or holds no checkpoint.
    """
    try:
        db = connect_reader(path)
    except sqlite3.Error:
        raise _unreadable(path) from None
    try:
        checkpoints = read_checkpoints(db)
        size = int(db.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry").fetchall()[0][0])
    except (sqlite3.Error, Unverified):
        db.close()
        raise _unreadable(path) from None
    checkpoints = [each for each in checkpoints if 0 < each.size <= size]
    if not checkpoints:
        db.close()
        raise LedgerFault(
            Code.NOT_FOUND,
            "nothing in the ledger is under a checkpoint yet",
            place=str(path),
            hint="a running gateway signs within a second; start it once",
        )
    end = checkpoints[-1].size
    lines = export_lines(
        iterate_entries(db, end),
        checkpoints,
        opening=(lambda name: read_opening(db, name)) if with_values else None,
        plan_text=(lambda name: read_plan(db, name)) if with_plans else None,
    )
    return _then_close(lines, db), size - end


def _unreadable(path: Path) -> LedgerFault:
    return LedgerFault(
        Code.LEDGER_UNAVAILABLE, "the file cannot be read as a ledger", place=str(path)
    )


def _then_close(lines: Iterator[bytes], db: sqlite3.Connection) -> Iterator[bytes]:
    with contextlib.closing(db):
        yield from lines
