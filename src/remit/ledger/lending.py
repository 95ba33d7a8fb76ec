"""What the keeper reads of a ledger that a gateway is writing: runs, and that the log has them.

Read-only, with nothing imported but what a small process can afford. One connection is kept open
for good: the keeper may lose the right to open the files, never what it has open.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.canonical import digest, parse
from remit.errors import InputError
from remit.ledger.entry import rfc3339
from remit.ledger.merkle import HASH_BYTES, inclusion_proof, leaf_hash, verify_inclusion
from remit.ledger.schema import connect_reader

PLAN = "remit.plan/1"

_RUN = """
SELECT run.fence, run.kind, run.state, run.started_ms, run.plan_hash, run.call_digest, run.effect,
       run.deadline_ms, run.intent_index, run.approval_id, run.intended_ms, plan.text,
       (SELECT max(other.fence) FROM run AS other WHERE other.call_digest = run.call_digest),
       (SELECT frozen FROM control)
FROM run JOIN plan ON plan.hash = run.plan_hash WHERE run.id = ?"""
_ENTRY = "SELECT text FROM entry WHERE seq = ?"
_NODES = "SELECT nodes FROM entry WHERE seq = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One run as the ledger has it now, all read at one moment.

    `started` says that it was let go and is not over; `newest_fence` is the highest of any run of
    the same call digest. `plan` is the plan's text as JSON, which was checked against `plan_hash`;
    `intent` is the entry that was written before the run.
    """

    run_id: str
    fence: int
    kind: str
    started: bool
    plan_hash: str
    call_digest: str
    effect: str
    intended_ms: int
    deadline_ms: int
    newest_fence: int
    frozen: bool
    plan: dict[str, Any]
    intent: dict[str, Any]
    intent_index: int
    approval_id: str | None
    approvers: tuple[str, ...]


class LendingReader:
    """Reads runs for the keeper.

    Raises:
        sqlite3.Error: from any method; the ledger cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect_reader(path)
        # Opens all of its files now: the database, its write-ahead log and their shared memory.
        self._db.execute("SELECT count(*) FROM control").fetchall()

    def close(self) -> None:
        self._db.close()

    def standing(self, run_id: str) -> Standing | None:
        """The run; None if there is none, or if what is stored does not fit together.

        Checks that the plan's text has the plan's hash and that the intent's entry is of this run,
        this plan, this fence, effect and deadline, and of the approval that the run used.
        """
        self._db.execute("BEGIN")
        try:
            return self._standing(run_id)
        finally:
            self._db.execute("COMMIT")

    def _standing(self, run_id: str) -> Standing | None:
        rows = self._db.execute(_RUN, (run_id,)).fetchall()
        if not rows:
            return None
        row = dict(zip(_COLUMNS, rows[0], strict=True))
        text = bytes(row["plan"])
        intent = self._intent(row, run_id)
        if intent is None or digest(PLAN, text) != row["plan_hash"]:
            return None
        plan = _read(text)
        effect = "read" if row["kind"] == "preview" else plan.get("effect")
        if plan.get("call_digest") != row["call_digest"] or effect != row["effect"]:
            return None
        return Standing(
            run_id=run_id,
            fence=row["fence"],
            kind=row["kind"],
            started=row["state"] is None and row["started_ms"] is not None,
            plan_hash=row["plan_hash"],
            call_digest=row["call_digest"],
            effect=row["effect"],
            intended_ms=row["intended_ms"],
            deadline_ms=row["deadline_ms"],
            newest_fence=row["newest_fence"],
            frozen=row["frozen"] is not None,
            plan=plan,
            intent=intent,
            intent_index=row["intent_index"],
            approval_id=row["approval_id"],
            approvers=tuple(intent.get("approvers", ())),
        )

    def _intent(self, row: dict[str, Any], run_id: str) -> dict[str, Any] | None:
        entries = self._db.execute(_ENTRY, (row["intent_index"],)).fetchall()
        if not entries:
            return None
        found = _read(bytes(entries[0][0]))
        wanted = {
            "event": "call.intent",
            "seq": row["intent_index"],
            "run": run_id,
            "plan_hash": row["plan_hash"],
            "call_digest": row["call_digest"],
            "fence": row["fence"],
            "kind": row["kind"],
            "effect": row["effect"],
            "approval": row["approval_id"],
            "deadline": rfc3339(row["deadline_ms"]),
        }
        same = all(found.get(name) == value for name, value in wanted.items())
        return found if same else None

    def covered(self, index: int, size: int, root: bytes) -> bool:
        """Whether the entry at `index` is in the tree of `size` leaves with this root.

        Raises:
            Unverified: what is stored does not lead to that root.
        """
        if not 0 <= index < size:
            return False
        rows = self._db.execute(_ENTRY, (index,)).fetchall()
        if not rows:
            return False
        proof = inclusion_proof(index, size, self._node)
        verify_inclusion(index, size, leaf_hash(bytes(rows[0][0])), proof, root)
        return True

    def _node(self, level: int, index: int) -> bytes:
        seq = ((index + 1) << level) - 1
        rows = self._db.execute(_NODES, (seq,)).fetchall()
        nodes = bytes(rows[0][0]) if rows else b""
        return nodes[level * HASH_BYTES : (level + 1) * HASH_BYTES]


def _read(text: bytes) -> dict[str, Any]:
    """A document, read strictly: nothing in it can be read in two ways.

    Raises:
        ValueError: it is none.
    """
    try:
        found = parse(text)
    except InputError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("not a document")  # noqa: TRY004
    return found


_COLUMNS = (
    "fence",
    "kind",
    "state",
    "started_ms",
    "plan_hash",
    "call_digest",
    "effect",
    "deadline_ms",
    "intent_index",
    "approval_id",
    "intended_ms",
    "plan",
    "newest_fence",
    "frozen",
)
