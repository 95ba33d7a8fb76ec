"""Reading the log from the store: entries, searches, values behind commitments."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.canonical import encode
from remit.errors import Code, LedgerFault
from remit.ledger.entry import commitment
from remit.ledger.log import unpack
from remit.ledger.merkle import HASH_BYTES
from remit.model import Entry

SEARCH_STEP = 20_000
"""Entries looked at in one read, so that a long search never holds a snapshot for long."""

READ_STEP = 1_000

_RANGE = "SELECT seq, nodes, text FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq"
_SEALED = "SELECT salt, packed, value FROM sealed WHERE commitment = ?"


def read_entries(db: sqlite3.Connection, start: int, end: int) -> Sequence[Entry]:
    """Entries start <= index < end, as far as they exist."""
    return [_entry(row) for row in db.execute(_RANGE, (start, end)).fetchall()]


def iterate_entries(db: sqlite3.Connection, end: int) -> Iterator[Entry]:
    """All entries before `end`, read a piece at a time."""
    for start in range(0, end, READ_STEP):
        yield from read_entries(db, start, min(start + READ_STEP, end))


def search(
    db: sqlite3.Connection, match: Mapping[str, str], *, size: int, limit: int
) -> Sequence[Entry]:
    """The newest entries whose public fields equal all of `match`, newest first.

    A name with dots goes into nested objects: `tool.name`. A field that is not a string is
    compared by its JSON text. Reads the log backwards until enough is found.
    """
    needles = [_needle(name, value) for name, value in match.items()]
    where = "".join(" AND (instr(text, ?) OR instr(text, ?))" for _ in needles)
    sql = f"SELECT seq, nodes, text FROM entry WHERE seq >= ? AND seq < ?{where} ORDER BY seq DESC"  # noqa: S608
    parameters = [part for needle in needles for part in needle]
    found: list[Entry] = []
    end = size
    while end > 0 and len(found) < limit:
        start = max(0, end - SEARCH_STEP)
        rows = db.execute(sql, (start, end, *parameters)).fetchall()
        found += [_entry(row) for row in rows if matches(row[2], match)]
        end = start
    return found[:limit]


def read_opening(db: sqlite3.Connection, wanted: str) -> tuple[bytes, bytes] | None:
    """The salt and value behind a commitment; None if they were erased or never were.

    Raises:
        LedgerFault: `log_tampered` if what is stored does not open the commitment.
    """
    rows = db.execute(_SEALED, (wanted,)).fetchall()
    if not rows:
        return None
    salt, packed, stored = rows[0]
    value = unpack(packed, stored)
    if commitment(salt, value) != wanted:
        raise LedgerFault(Code.LOG_TAMPERED, "a stored value does not open its commitment")
    return bytes(salt), value


def _entry(row: Sequence[Any]) -> Entry:
    seq, nodes, text = row
    return Entry(index=seq, text=text, leaf_hash=nodes[:HASH_BYTES])


def _needle(name: str, value: str) -> tuple[bytes, bytes]:
    """What the text of every match holds: the field as a string, or as any other JSON."""
    key = encode(name.rpartition(".")[2]) + b":"
    return key + encode(value), key + value.encode()


def matches(text: bytes, match: Mapping[str, str]) -> bool:
    """Whether an entry's fields equal all of `match`."""
    document = json.loads(text)
    return all(_field(document, name) == value for name, value in match.items())


def _field(document: Any, name: str) -> str | None:
    for part in name.split("."):
        if not isinstance(document, dict) or part not in document:
            return None
        document = document[part]
    return document if isinstance(document, str) else encode(document).decode()


def read_plan(db: sqlite3.Connection, plan_hash: str) -> bytes | None:
    """The stored bytes of a plan."""
    rows = db.execute("SELECT text FROM plan WHERE hash = ?", (plan_hash,)).fetchall()
    return bytes(rows[0][0]) if rows else None
