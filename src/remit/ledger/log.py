"""Appending to the log inside the writer's transaction, and taking it back when that fails."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence

from remit.errors import Code, LedgerFault
from remit.ledger.entry import entry_text, seal
from remit.ledger.head import Head
from remit.ledger.merkle import Frontier, leaf_hash
from remit.ledger.refusals import RefusalCounts
from remit.ledger.tables import checkpoint, entry, insert_into, sealed
from remit.model import Checkpoint, EntryDraft
from remit.ports import Clock

PACK_ABOVE = 1024
"""Values longer than this are stored compressed, if that makes them shorter."""

_INSERT_ENTRY = insert_into(entry)
_INSERT_CHECKPOINT = insert_into(checkpoint, ignore=True)
_INSERT_SEALED = f"INSERT INTO {sealed.name} (commitment, salt, packed, value) VALUES (?, ?, ?, ?)"  # noqa: S608

MAX_VALUE = 256 * 1024 * 1024
"""Longest value that is unpacked, in bytes: more than the longest line of an export holds."""

Mark = tuple[Frontier, int]
"""A point to which the log can be taken back within one transaction."""


def pack(value: bytes) -> tuple[int, bytes]:
    """Whether the value is stored compressed, and what is stored."""
    if len(value) > PACK_ABOVE:
        packed = zlib.compress(value, 1)
        if len(packed) < len(value):
            return 1, packed
    return 0, value


def unpack(packed: int, stored: bytes) -> bytes:
    """What `pack` was given.

    Raises:
        LedgerFault: `log_tampered` if it is not what `pack` made, or longer than any value is.
    """
    return unpacked(stored) if packed else stored


def unpacked(stored: bytes) -> bytes:
    """What was compressed, bounded: a few bytes in a store that was changed must not fill memory.

    Raises:
        LedgerFault: `log_tampered`.
    """
    reader = zlib.decompressobj()
    try:
        value = reader.decompress(stored, MAX_VALUE)
    except zlib.error:
        raise _damaged() from None
    if not reader.eof or reader.unconsumed_tail or reader.unused_data:
        raise _damaged()
    return value


def _damaged() -> LedgerFault:
    return LedgerFault(Code.LOG_TAMPERED, "a stored value cannot be unpacked")


class Appender:
    """The writer's side of the log. Used by the writer thread only."""

    def __init__(self, head: Head, refusals: RefusalCounts, *, gateway: str, clock: Clock) -> None:
        self._head = head
        self._refusals = refusals
        self._gateway = gateway
        self._clock = clock
        self._frontier = head.durable
        self._fresh: dict[int, bytes] = {}
        self._saving: list[Checkpoint] = []

    @property
    def size(self) -> int:
        """The number that the next entry will get."""
        return self._frontier.size

    def append(self, db: sqlite3.Connection, drafts: Sequence[EntryDraft]) -> list[int]:
        """Insert entries in this order; give their numbers."""
        rows: list[dict[str, object]] = []
        values: list[tuple[str, bytes, int, bytes]] = []
        now = self._clock.now_ms()
        for draft in drafts:
            commitments: dict[str, str] = {}
            for name, value in draft.sealed.items():
                salt, commitment = seal(value)
                commitments[name] = commitment
                values.append((commitment, salt, *pack(value)))
            seq = self._frontier.size
            text = entry_text(
                seq=seq,
                time_ms=now,
                gateway=self._gateway,
                event=draft.event,
                public=draft.public,
                commitments=commitments,
            )
            self._frontier, made = self._frontier.append(leaf_hash(text))
            nodes = b"".join(made)
            self._fresh[seq] = nodes
            rows.append({"seq": seq, "nodes": nodes, "text": text})
        db.executemany(_INSERT_ENTRY, rows)
        if values:
            db.executemany(_INSERT_SEALED, values)
        return [int(str(row["seq"])) for row in rows]

    # What the writer does around each transaction

    def begin(self, db: sqlite3.Connection) -> None:
        """Store the checkpoints that were signed since the last commit."""
        self._saving = self._head.take_unsaved()
        if self._saving:
            rows = [{"size": each.size, "note": each.note} for each in self._saving]
            db.executemany(_INSERT_CHECKPOINT, rows)

    def mark(self) -> Mark:
        return self._frontier, len(self._fresh)

    def back_to(self, mark: Mark) -> None:
        self._frontier, count = mark
        while len(self._fresh) > count:
            self._fresh.popitem()

    def committed(self) -> None:
        """Let everyone see what has just become durable."""
        if self._fresh:
            self._head.advance(self._frontier, self._fresh)
            self._fresh = {}
        self._saving = []

    def rolled_back(self) -> None:
        """Forget a transaction that did not happen."""
        self._frontier = self._head.durable
        self._fresh = {}
        self._head.give_back(self._saving)
        self._saving = []

    # What it does when there is nothing to do

    @property
    def restless(self) -> bool:
        """Whether something should be signed or stored within the next second or minute."""
        return self._head.unsigned or self._head.has_unsaved or self._refusals.pending

    def idle(self, db: sqlite3.Connection, *, last: bool = False) -> None:
        """Write the counts of minutes that are over; all counts, when this is the last time."""
        due = self._refusals.take(None if last else self._clock.now_ms())
        if due:
            self.append(db, due)

    def sign(self) -> None:
        """Put what is durable under a checkpoint."""
        if self._head.unsigned:
            self._head.checkpoint()
