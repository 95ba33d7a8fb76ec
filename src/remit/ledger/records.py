"""What a verifier reads, whether from an export or from a store: the same records either way.

An export is JSON lines, `remit.export/1` (docs/log-format.md). Each line is read strictly: it
must be, byte for byte, the canonical form of what it says, so that no byte of the file is free.
"""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from remit.canonical import encode
from remit.errors import Code, InputError, LedgerFault, Unverified
from remit.ledger.log import unpack
from remit.ledger.merkle import HASH_BYTES

SCHEMA = "remit.export/1"
MAX_LINE_BYTES = 256 * 1024 * 1024
STORE_STEP = 2_000


@dataclass(frozen=True, slots=True)
class Header:
    """The first record. `size` is None for a live store, which has no end of its own."""

    origin: str | None
    key: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """An entry as it is kept: its text, and what is claimed to be its hash.

    `nodes` are the hashes that a store keeps with it, from the leaf's upward; an export has the
    leaf's only. `openings` maps names of commitments to salt and value.
    """

    index: int
    text: bytes
    nodes: bytes
    openings: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanRecord:
    hash: str
    text: bytes


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    note: str


Record = Header | EntryRecord | PlanRecord | CheckpointRecord


def is_store(path: Path) -> bool:
    """Whether the file is an SQLite database, by its first bytes."""
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


# ------------------------------------------------------------------------------------- an export


def read_export(file: IO[bytes]) -> Iterator[Record]:
    """The records of an export.

    Raises:
        Unverified: `log_malformed` with the line, and the index of the entry that was expected.
    """
    entries = 0
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
        try:
            record = _record(line, first=number == 1)
        except (InputError, ValueError, KeyError, TypeError, RecursionError):
            raise Unverified(
                Code.LOG_MALFORMED,
                "this is not a line that an export can have",
                index=entries,
                place=f"line {number}",
            ) from None
        entries += isinstance(record, EntryRecord)
        yield record


def _record(line: bytes, *, first: bool) -> Record:
    document = json.loads(line)
    if not isinstance(document, dict) or encode(document) + b"\n" != line:
        raise ValueError
    names = set(document)
    if first:
        _require(names == {"schema", "origin", "key", "size"} and document["schema"] == SCHEMA)
        _require(type(document["size"]) is int and document["size"] > 0)
        return Header(_text(document["origin"]), _text(document["key"]), document["size"])
    if names == {"checkpoint"}:
        return CheckpointRecord(_text(document["checkpoint"]))
    if names == {"plan", "hash"}:
        return PlanRecord(_text(document["hash"]), _text(document["plan"]).encode())
    _require(names - {"openings"} == {"index", "leaf", "entry"} and type(document["index"]) is int)
    leaf = _bytes(document["leaf"])
    _require(len(leaf) == HASH_BYTES)
    return EntryRecord(
        document["index"], _text(document["entry"]).encode(), leaf, _openings(document)
    )


def _openings(document: dict[str, Any]) -> dict[str, tuple[bytes, bytes]]:
    openings = {}
    for name, opening in document.get("openings", {}).items():
        _require(set(opening) == {"salt", "value"})
        openings[name] = _bytes(opening["salt"]), _bytes(opening["value"])
    return openings


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _text(value: Any) -> str:
    _require(isinstance(value, str))
    return str(value)


def _bytes(value: Any) -> bytes:
    try:
        data = base64.b64decode(_text(value), validate=True)
    except binascii.Error:
        raise ValueError from None
    _require(base64.b64encode(data).decode("ascii") == value)
    return data


# --------------------------------------------------------------------------------------- a store


def read_store(path: Path) -> Iterator[Record]:
    """The records of a store, which a gateway may be writing to meanwhile; nothing is changed.

    Every value and plan that is still there is among them.

    Raises:
        LedgerFault: the file cannot be read as a ledger.
    """
    try:
        db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        try:
            db.execute("PRAGMA query_only=ON")
            yield from _stored(db)
        finally:
            db.close()
    except sqlite3.Error:
        raise LedgerFault(
            Code.LEDGER_UNAVAILABLE,
            "the file cannot be read as a ledger",
            place=str(path),
            hint="its -wal and -shm files belong to it: copy them too, or make an export",
        ) from None


def _stored(db: sqlite3.Connection) -> Iterator[Record]:
    size = int(db.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry").fetchall()[0][0])
    notes = db.execute("SELECT size, note FROM checkpoint ORDER BY size").fetchall()
    yield Header(None, None, None)
    due = iter([*notes, (None, "")])
    next_size, note = next(due)
    seen = 0
    for start in range(0, size, STORE_STEP):
        end = min(start + STORE_STEP, size)
        for seq, nodes, text in db.execute(_RANGE, (start, end)).fetchall():
            openings = _stored_openings(db, seq, _blob(text, seq))
            yield EntryRecord(seq, text, _blob(nodes, seq), openings)
            seen = seq + 1
            while next_size is not None and next_size <= seen:
                yield CheckpointRecord(str(note))
                next_size, note = next(due)
    for plan_hash, text in db.execute("SELECT hash, text FROM plan"):
        yield PlanRecord(str(plan_hash), _blob(text, None))
    while next_size is not None:
        if next_size > size:  # one that was signed meanwhile is over entries not read here
            found = db.execute("SELECT max(seq) + 1 FROM entry").fetchall()[0][0]
            if found is not None and found >= next_size:
                break
        yield CheckpointRecord(str(note))
        next_size, note = next(due)


_RANGE = "SELECT seq, nodes, text FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq"
_SEALED = "SELECT salt, packed, value FROM sealed WHERE commitment = ?"


def _blob(value: Any, index: int | None) -> bytes:
    """What a store's column must hold; anything may stand in a store that was changed."""
    if not isinstance(value, bytes):
        raise Unverified(Code.LOG_MALFORMED, "a stored row is not what was written", index=index)
    return value


def _stored_openings(
    db: sqlite3.Connection, index: int, text: bytes
) -> dict[str, tuple[bytes, bytes]]:
    openings = {}
    for name, commitment in _commitments(text).items():
        for salt, packed, stored in db.execute(_SEALED, (commitment,)).fetchall():
            value = _blob(stored, index)
            try:
                value = unpack(packed, value)
            except LedgerFault:
                value = b""
            openings[name] = _blob(salt, index), value
    return openings


def _commitments(text: bytes) -> dict[str, str]:
    """The commitments of an entry; none where it is not what an entry must be."""
    if b'"commitments":' not in text:
        return {}
    try:
        found = json.loads(text).get("commitments", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, str)}
