"""Opening a store: look before use, and repair nothing."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.errors import Code, LedgerFault, Unverified
from remit.ledger.checkpoint import VerifierKey, open_checkpoint, split_checkpoint
from remit.ledger.head import Head
from remit.ledger.merkle import HASH_BYTES, Frontier, frontier, leaf_hash
from remit.ledger.schema import connect_reader, connect_writer, migrate
from remit.ledger.storage import Lock, Reserve, refuse_network
from remit.model import Checkpoint
from remit.ports import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """An opened store, before its writer runs."""

    lock: Lock
    db: sqlite3.Connection
    reader: sqlite3.Connection
    head: Head
    reserve: Reserve


def refuse_second(path: Path) -> None:
    """Refuse where another process writes this ledger, before anything of it is touched.

    Whoever opens it afterwards is held to the lock all the same.

    Raises:
        LedgerFault: `ledger_unavailable`.
    """
    refuse_network(path)
    Lock(_beside(path, ".lock")).release()


def open_store(path: Path, signer: Signer, *, reserve_bytes: int, max_bytes: int | None) -> Parts:
    """Lock, migrate and look at the store; see `SqliteLedger.open`."""
    refuse_network(path)
    lock = Lock(_beside(path, ".lock"))
    try:
        return _open(path, lock, signer, reserve_bytes, max_bytes)
    except BaseException:
        lock.release()
        raise


def _open(
    path: Path, lock: Lock, signer: Signer, reserve_bytes: int, max_bytes: int | None
) -> Parts:
    try:
        path.touch(mode=0o600)
        db = connect_writer(path)
    except (OSError, sqlite3.Error):
        raise _unreadable(path) from None
    try:
        migrate(db)
        reader = connect_reader(path)
    except sqlite3.Error:
        db.close()
        raise _unreadable(path) from None
    except BaseException:
        db.close()
        raise
    try:
        head = _read_head(reader, signer)
        reserve = Reserve(_beside(path, ".reserve"), size=reserve_bytes, max_bytes=max_bytes)
        reserve.hold(db)
    except BaseException:
        db.close()
        reader.close()
        raise
    return Parts(lock=lock, db=db, reader=reader, head=head, reserve=reserve)


def _read_head(reader: sqlite3.Connection, signer: Signer) -> Head:
    reading = threading.Lock()  # whoever signs reads too, and that may be the writer's thread

    def stored(seq: int) -> bytes:
        with reading:
            rows = reader.execute("SELECT nodes FROM entry WHERE seq = ?", (seq,)).fetchall()
        if not rows:
            raise LedgerFault(Code.LOG_TAMPERED, "an entry is missing", place=f"entry {seq}")
        return bytes(rows[0][0])

    head = Head(signer, stored)
    size = int(reader.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry").fetchall()[0][0])
    tree = frontier(size, head.node)
    _check_last_entry(reader, size)
    if signer.signed > size:
        raise LedgerFault(
            Code.LOG_TAMPERED,
            "the log is shorter than what its key has signed",
            place=f"entry {size}",
            hint="entries were lost or this is an older copy; docs/threat-model.md, T-38, has more",
        )
    head.advance(tree, {})
    head.latest = _check_last_checkpoint(reader, signer, head, tree)
    return head


def _check_last_entry(reader: sqlite3.Connection, size: int) -> None:
    if size == 0:
        return
    rows = reader.execute("SELECT nodes, text FROM entry WHERE seq = ?", (size - 1,)).fetchall()
    nodes, text = rows[0]
    if leaf_hash(text) != nodes[:HASH_BYTES] or json.loads(text).get("seq") != size - 1:
        raise _tampered("the last entry is not the one that was written", f"entry {size - 1}")


def _check_last_checkpoint(
    reader: sqlite3.Connection, signer: Signer, head: Head, tree: Frontier
) -> Checkpoint | None:
    rows = reader.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchall()
    if not rows:
        return None
    try:
        last = open_checkpoint(rows[0][0], VerifierKey.parse(signer.verifier_key))
    except Unverified as exc:
        raise LedgerFault(
            exc.code,
            "the last checkpoint is not signed by this gateway's log key",
            hint="look at it with `remit audit verify`; the log key must be the one it began with",
        ) from None
    if last.size > tree.size:
        raise _tampered("the log is shorter than its last checkpoint", f"entry {tree.size}")
    if frontier(last.size, head.node).root() != last.root:
        raise _tampered("the log does not agree with its last checkpoint", None)
    return last


def read_checkpoints(db: sqlite3.Connection) -> Sequence[Checkpoint]:
    """All stored checkpoints, smallest first. Does not verify them."""
    rows = db.execute("SELECT note FROM checkpoint ORDER BY size").fetchall()
    return [split_checkpoint(note) for (note,) in rows]


def _tampered(why: str, place: str | None) -> LedgerFault:
    return LedgerFault(
        Code.LOG_TAMPERED, why, place=place, hint="run `remit audit verify`; nothing was repaired"
    )


def _unreadable(path: Path) -> LedgerFault:
    return LedgerFault(
        Code.LEDGER_UNAVAILABLE,
        "the ledger's file cannot be opened or read",
        place=str(path),
        hint="it was left as it is: look at it, or put a copy of the ledger in its place",
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
