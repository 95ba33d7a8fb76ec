"""The ledger in one SQLite file: the composition of the modules beside this one.

Reads of one row happen on the caller's thread, from a read-only connection; reads that may be
long happen in a worker thread with a connection of their own; every write goes to the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from remit.errors import Code, LedgerFault
from remit.ledger import approvals, force, opening, reading, requests, runs, touches
from remit.ledger.export import export_lines
from remit.ledger.head import Head
from remit.ledger.log import Appender
from remit.ledger.refusals import RefusalCounts
from remit.ledger.schema import connect_reader
from remit.ledger.starts import Starts
from remit.ledger.storage import RESERVE_BYTES, Lock
from remit.ledger.writer import Writer
from remit.model import (
    AccessRequest,
    Activation,
    Approval,
    ApprovalDraft,
    ApprovalState,
    Caller,
    Checkpoint,
    Entry,
    EntryDraft,
    Grant,
    Intent,
    Outcome,
    Receipt,
    Repeat,
    RequestState,
    Run,
    RunState,
    Touch,
    Vote,
)
from remit.ports import Clock, Signer

T = TypeVar("T")

READY_WITHIN_S = 2.0


class SqliteLedger:
    """The `Ledger` port over one SQLite file, for one gateway process at a time."""

    def __init__(
        self,
        *,
        path: Path,
        lock: Lock,
        reader: sqlite3.Connection,
        head: Head,
        writer: Writer,
        refusals: RefusalCounts,
    ) -> None:
        self._path = path
        self._lock = lock
        self._reader = reader
        self._head = head
        self._writer = writer
        self._refusals = refusals
        self._starts = Starts()
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        signer: Signer,
        gateway: str,
        clock: Clock,
        reserve_bytes: int = RESERVE_BYTES,
        max_bytes: int | None = None,
    ) -> SqliteLedger:
        """Open the ledger at `path`, or make a new one; its directory must exist.

        Args:
            path: the database file; `-wal`, `-shm`, `.lock` and `.reserve` lie beside it.
            signer: signs checkpoints; its name is the log's origin.
            gateway: the id that each entry says it was written by.
            clock: gives each entry its time.
            reserve_bytes: room kept for outcomes and freezes when the disk is full.
            max_bytes: the most the database may grow to; None leaves it to the disk.

        Raises:
            LedgerFault: another process has it open, it lies on a network file system, a newer
                Remit wrote it, or its last entries do not agree with its last checkpoint.
                Nothing is repaired.
        """
        parts = opening.open_store(path, signer, reserve_bytes=reserve_bytes, max_bytes=max_bytes)
        refusals = RefusalCounts()
        log = Appender(parts.head, refusals, gateway=gateway, clock=clock)
        writer = Writer(parts.db, log, parts.reserve)
        return cls(
            path=path,
            lock=parts.lock,
            reader=parts.reader,
            head=parts.head,
            writer=writer,
            refusals=refusals,
        )

    async def aclose(self) -> None:
        """Write what is queued, sign and store a last checkpoint, let the files go; idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._writer.close)
            self._reader.close()
            self._lock.release()

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._reader)
        except sqlite3.Error:
            raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger could not be read") from None

    async def _scan(self, query: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            db = connect_reader(self._path)
            try:
                return query(db)
            finally:
                db.close()

        try:
            return await asyncio.to_thread(work)
        except sqlite3.Error:
            raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger could not be read") from None

    # The log

    async def append(self, drafts: Sequence[EntryDraft]) -> Sequence[int]:
        return await self._writer.run(lambda tx: tx.append(drafts))

    async def count_refusal(self, source: str, code: str, now_ms: int) -> None:
        """Count a refusal; the entry is written when its minute is over, or at `aclose`.

        This alone is not durable when it returns: a flood must not cost a flush each.
        """
        self._refusals.count(source, code, now_ms)
        due = self._refusals.take(now_ms) if self._refusals.due(now_ms) else []
        if due:
            await self._writer.run(lambda tx: tx.append(due))

    async def entries(self, start: int, end: int) -> Sequence[Entry]:
        return await self._scan(lambda db: reading.read_entries(db, start, end))

    async def search(self, match: Mapping[str, str], *, limit: int) -> Sequence[Entry]:
        size = self._head.durable.size
        return await self._scan(lambda db: reading.search(db, match, size=size, limit=limit))

    async def value(self, commitment: str) -> bytes | None:
        opened = self._read(lambda db: reading.read_opening(db, commitment))
        return None if opened is None else opened[1]

    async def opening(self, commitment: str) -> tuple[bytes, bytes] | None:
        return self._read(lambda db: reading.read_opening(db, commitment))

    async def checkpoint(self) -> Checkpoint:
        return self._head.checkpoint()

    async def checkpoints(self) -> Sequence[Checkpoint]:
        unsaved = self._head.unsaved()
        stored = await self._scan(opening.read_checkpoints)
        known = {each.size for each in stored}
        return [*stored, *(each for each in unsaved if each.size not in known)]

    async def receipt(self, index: int) -> Receipt:
        return self._read(lambda _: self._head.receipt(index))

    @property
    def verifier_key(self) -> str:
        """The key that checkpoints verify with; whoever verifies gets it from elsewhere."""
        return self._head.verifier_key

    async def export(self) -> AsyncIterator[bytes]:
        """The log as `remit.export/1`, up to a checkpoint made now; no values and no plans."""
        last = self._head.checkpoint()
        checkpoints = [each for each in await self.checkpoints() if each.size <= last.size]
        db = connect_reader(self._path)
        try:
            lines = export_lines(reading.iterate_entries(db, last.size), checkpoints)
            while piece := await asyncio.to_thread(list, islice(lines, reading.READ_STEP)):
                for line in piece:
                    yield line
        finally:
            db.close()

    async def plan_text(self, plan_hash: str) -> bytes | None:
        return self._read(lambda db: reading.read_plan(db, plan_hash))

    # Runs

    async def repeat(
        self, caller: Caller, tool_name: str, call_digest: str, idempotency_key: str | None
    ) -> Repeat | None:
        return self._read(
            lambda db: runs.read_repeat(db, caller, tool_name, call_digest, idempotency_key)
        )

    async def commit_intent(self, intent: Intent, drafts: Sequence[EntryDraft]) -> Grant:
        grant = await self._writer.run(lambda tx: runs.commit_intent(tx, intent, drafts))
        return self._starts.written(grant)

    async def start(self, grant: Grant, now_ms: int) -> None:
        if grant.started:
            self._starts.hand_over(grant, self._read(force.read_frozen), now_ms)
        else:
            await self._writer.run(lambda tx: runs.start(tx, grant, now_ms))

    async def settle(
        self, outcome: Outcome, draft: EntryDraft, drafts: Sequence[EntryDraft] = ()
    ) -> int:
        self._starts.over(outcome.run_id)
        return await self._writer.run(
            lambda tx: runs.settle(tx, outcome, draft, drafts), essential=True
        )

    async def run(self, run_id: str) -> Run | None:
        return self._read(lambda db: runs.read_run(db, run_id))

    async def runs(
        self, *, states: frozenset[RunState] | None = None, limit: int = 100
    ) -> Sequence[Run]:
        return await self._scan(lambda db: runs.read_runs(db, states, limit))

    async def resolve(
        self, run_id: str, *, operator: str, succeeded: bool, note: str, now_ms: int
    ) -> Run:
        return await self._writer.run(
            lambda tx: runs.resolve(tx, run_id, operator=operator, succeeded=succeeded, note=note),
            essential=True,
        )

    async def touches(self, tenant: str, subject: str, *, since_ms: int) -> Sequence[Touch]:
        return await self._scan(lambda db: touches.read_touches(db, tenant, subject, since_ms))

    # Requests for access

    async def file_request(
        self, request: AccessRequest, drafts: Sequence[EntryDraft]
    ) -> AccessRequest:
        return await self._writer.run(lambda tx: requests.file_request(tx, request, drafts))

    async def access_requests(
        self, *, states: frozenset[RequestState] | None = None, limit: int = 100
    ) -> Sequence[AccessRequest]:
        return await self._scan(lambda db: requests.read_requests(db, states, limit))

    async def close_request(
        self, request_id: str, *, operator: str, note: str, now_ms: int
    ) -> AccessRequest:
        return await self._writer.run(
            lambda tx: requests.close_request(
                tx, request_id, operator=operator, note=note, now_ms=now_ms
            ),
            essential=True,
        )

    # Approvals

    async def open_approval(self, draft: ApprovalDraft, drafts: Sequence[EntryDraft]) -> Approval:
        return await self._writer.run(lambda tx: approvals.open_approval(tx, draft, drafts))

    async def approval(self, approval_id: str) -> Approval | None:
        return self._read(lambda db: approvals.read_approval(db, approval_id))

    async def approvals(
        self, *, states: frozenset[ApprovalState] | None = None, limit: int = 100
    ) -> Sequence[Approval]:
        return await self._scan(lambda db: approvals.read_approvals(db, states, limit))

    async def approval_for(self, call_digest: str, plan_hash: str) -> Approval | None:
        return self._read(lambda db: approvals.read_approval_for(db, call_digest, plan_hash))

    async def approvals_of(self, call_digest: str) -> Sequence[Approval]:
        return self._read(lambda db: approvals.read_approvals_of(db, call_digest))

    async def vote(self, approval_id: str, plan_hash: str, vote: Vote) -> Approval:
        return await self._writer.run(lambda tx: approvals.cast(tx, approval_id, plan_hash, vote))

    async def revoke_approval(self, approval_id: str, *, operator: str, now_ms: int) -> Approval:
        return await self._writer.run(
            lambda tx: approvals.withdraw(tx, approval_id, operator=operator), essential=True
        )

    async def expire_approvals(self, now_ms: int) -> Sequence[str]:
        return await self._writer.run(lambda tx: approvals.expire(tx, now_ms), essential=True)

    # What is in force

    async def activate(self, activation: Activation, now_ms: int) -> None:
        await self._writer.run(lambda tx: force.activate(tx, activation))

    async def freeze(self, frozen: bool, *, operator: str, reason: str, now_ms: int) -> None:
        await self._writer.run(
            lambda tx: force.freeze(tx, frozen=frozen, operator=operator, reason=reason),
            essential=True,
        )

    async def frozen(self) -> str | None:
        return self._read(force.read_frozen)

    async def ready(self) -> str | None:
        if (why := self._writer.why_not()) is not None:
            return why
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._writer.run(lambda tx: tx.one("SELECT 1"))
        except TimeoutError:
            return "the ledger did not answer in time"
        except LedgerFault as fault:
            return fault.message
        return self._writer.why_not()
