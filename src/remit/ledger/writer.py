"""One thread that owns the one writing connection, and commits what has queued up together.

Callers put work in a queue and wait. The thread takes all that is there, runs each piece in a
savepoint of one transaction, so that a refusal undoes only its own piece, commits once, and only
then answers. While the disk flushes, the next batch gathers.

A caller that stops waiting does not undo its work: only a piece that has not begun is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from remit.errors import Code, LedgerFault
from remit.ledger.log import Appender
from remit.ledger.storage import Reserve
from remit.model import EntryDraft

T = TypeVar("T")

MAX_BATCH = 256
TICK_S = 1.0
"""How long the log may rest unsigned, or a checkpoint unstored, when nothing else is written."""

_BUSY = 5
_DISK_FULL = 13
"""SQLite's primary result codes."""


class Transaction:
    """What a piece of work may use; valid only while the work runs."""

    __slots__ = ("_log", "db")

    def __init__(self, db: sqlite3.Connection, log: Appender) -> None:
        self.db = db
        self._log = log

    @property
    def next_index(self) -> int:
        """The number that the next appended entry will get."""
        return self._log.size

    def append(self, drafts: Sequence[EntryDraft]) -> list[int]:
        """Append entries; give their numbers."""
        return self._log.append(self.db, drafts)

    def one(self, sql: str, parameters: Any = ()) -> Any:
        """The first row, or None; the statement is finished when this returns."""
        rows = self.db.execute(sql, parameters).fetchall()
        return rows[0] if rows else None


Work = Callable[[Transaction], T]


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    essential: bool
    future: asyncio.Future[Any]


_Answer = tuple[_Job, Any, BaseException | None]


class Writer:
    """Runs work in durable transactions.

    Args:
        db: a connection from `connect_writer`, used by nobody else from now on.
        log: the writer's side of the log.
        reserve: held already; given up when the disk is full.
    """

    def __init__(self, db: sqlite3.Connection, log: Appender, reserve: Reserve) -> None:
        self._db = db
        self._log = log
        self._reserve = reserve
        self._transaction = Transaction(db, log)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = False
        self._broken: str | None = None
        self._rested = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="remit-ledger", daemon=True)
        self._thread.start()

    async def run(self, work: Work[T], *, essential: bool = False) -> T:
        """Run work in a transaction; return once it is durable.

        Args:
            essential: may use the reserve when the disk is full (outcomes, freezes).

        Raises:
            LedgerFault: it could not be made durable and did not happen.
            Whatever the work raises: then nothing of it happened.
        """
        if self._closing or self._broken is not None:
            raise self._unavailable()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put(_Job(work, essential, future))
        if not self._thread.is_alive():
            self._refuse_queued()  # it ended before it could see this; nobody else will answer
        return cast("T", await future)

    def why_not(self) -> str | None:
        """Why new intents cannot be written; None if they can."""
        if self._broken is not None:
            return self._broken
        if self._closing or not self._thread.is_alive():
            return "the ledger is closed"
        if self._reserve.released:
            return "the disk is full"
        return None

    def close(self) -> None:
        """Write what is queued, sign and store the last checkpoint, and end the thread."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    def _unavailable(self) -> LedgerFault:
        return LedgerFault(Code.LEDGER_UNAVAILABLE, self.why_not() or "the ledger is closed")

    # The thread

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._serve(batch)
            self._rest(last=True)
            self._rest(last=True)  # signs the counts that were written just now
        except BaseException:
            self._broken = self._broken or "the ledger's writer stopped"
            raise
        finally:
            self._closing = True
            self._refuse_queued()
            self._db.close()

    def _next_batch(self) -> list[_Job] | None:
        """What has queued up; an empty batch after a quiet second; None at the end."""
        try:
            first = self._queue.get(timeout=TICK_S if self._log.restless else None)
        except queue.Empty:
            return []
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)
                break
            batch.append(job)
        return batch

    def _serve(self, batch: list[_Job]) -> None:
        if not batch or (self._log.restless and time.monotonic() - self._rested >= TICK_S):
            self._rest()
        if self._broken is not None:
            _deliver([(job, None, self._unavailable()) for job in batch])
            return
        if self._reserve.released:
            self._reserve.try_again(self._db)
        answers: list[_Answer] = []
        if self._reserve.released:
            answers += [(job, None, _full()) for job in batch if not job.essential]
            batch = [job for job in batch if job.essential]
        try:
            answers += self._commit(batch)
        except sqlite3.Error as fault:
            answers += self._after_failure(batch, fault)
        _deliver(answers)

    def _rest(self, *, last: bool = False) -> None:
        """Sign what is durable, and store that with the counts of refusals that are complete."""
        self._rested = time.monotonic()
        if self._broken is not None:
            return
        with contextlib.suppress(LedgerFault):  # whoever asks for a receipt hears of it
            self._log.sign()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._log.begin(self._db)
            self._log.idle(self._db, last=last)
            self._db.execute("COMMIT")
            self._log.committed()
        except sqlite3.Error as fault:
            self._roll_back()
            self._note(fault)

    def _commit(self, batch: Sequence[_Job]) -> list[_Answer]:
        if not batch:
            return []
        self._db.execute("BEGIN IMMEDIATE")
        self._log.begin(self._db)
        wanted = [job for job in batch if not job.future.cancelled()]
        if len(wanted) == 1:
            return self._commit_one(wanted[0])
        answers = [self._attempt(job) for job in wanted]
        self._db.execute("COMMIT")
        self._log.committed()
        return answers

    def _commit_one(self, job: _Job) -> list[_Answer]:
        """A piece that is alone needs no savepoint: what undoes it undoes the transaction."""
        try:
            result = job.work(self._transaction)
        except Exception as error:
            if _of_the_store(error):
                raise
            self._roll_back()
            return [(job, None, _given(error))]
        self._db.execute("COMMIT")
        self._log.committed()
        return [(job, result, None)]

    def _attempt(self, job: _Job) -> _Answer:
        mark = self._log.mark()
        self._db.execute("SAVEPOINT piece")
        try:
            result = job.work(self._transaction)
        except Exception as error:
            if _of_the_store(error):
                raise
            self._db.execute("ROLLBACK TO piece")
            self._db.execute("RELEASE piece")
            self._log.back_to(mark)
            return job, None, _given(error)
        self._db.execute("RELEASE piece")
        return job, result, None

    def _after_failure(self, batch: Sequence[_Job], fault: sqlite3.Error) -> list[_Answer]:
        """Nothing of the batch happened. Try the essential pieces again if the disk is full."""
        self._roll_back()
        if self._note(fault):
            retry = [job for job in batch if job.essential]
            answers: list[_Answer] = [(job, None, _full()) for job in batch if not job.essential]
            try:
                return answers + self._commit(retry)
            except sqlite3.Error as again:
                self._roll_back()
                return answers + [(job, None, _fault(again)) for job in retry]
        return [(job, None, _fault(fault)) for job in batch]

    def _note(self, fault: sqlite3.Error) -> bool:
        """Whether the disk is full and the reserve was just given up; else stop writing for good.

        After any other failure nobody knows what the disk holds: only opening anew, which reads
        it again, makes the store writable.
        """
        if _is(_DISK_FULL, fault):
            first = not self._reserve.released
            self._reserve.release(self._db)
            return first
        if not _is(_BUSY, fault):
            self._broken = "the ledger could not be written"
        return False

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            self._broken = "the ledger could not be written"
        self._log.rolled_back()

    def _refuse_queued(self) -> None:
        answers: list[_Answer] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                answers.append((job, None, self._unavailable()))
        _deliver(answers)


def _of_the_store(error: Exception) -> bool:
    """Whether the store failed, so that nothing of the batch can be written."""
    return isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError)


def _given(error: Exception) -> Exception:
    """What a caller is given for what its work raised."""
    if isinstance(error, sqlite3.IntegrityError):
        return LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger's tables refused a row")
    return error


def _is(code: int, fault: sqlite3.Error) -> bool:
    return bool(getattr(fault, "sqlite_errorcode", 0) & 0xFF == code)


def _full() -> LedgerFault:
    return LedgerFault(
        Code.LEDGER_FULL,
        "the ledger has no room for new runs",
        hint="free disk space; outcomes and freezes are still written",
    )


def _fault(fault: sqlite3.Error) -> LedgerFault:
    if _is(_DISK_FULL, fault):
        return _full()
    return LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger could not be written")


def _deliver(answers: Sequence[_Answer]) -> None:
    """Answer all who wait, with one wake-up for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        loops.setdefault(answer[0].future.get_loop(), []).append(answer)
    for loop, theirs in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:  # the loop was closed: nobody waits any more
            continue


def _resolve(answers: Sequence[_Answer]) -> None:
    for job, result, error in answers:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
