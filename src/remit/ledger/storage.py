"""The files of a ledger: who may open them, on what file system, with what room to spare."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from pathlib import Path

from remit.errors import Code, LedgerFault
from remit.ledger.schema import WAL_PAGES

NETWORK = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
    ]
)
"""File systems on which SQLite's locks and shared memory cannot be trusted."""

RESERVE_BYTES = 16 * 1024 * 1024

FULL_WAL_PAGES = 100
"""How far the write-ahead log may grow when the disk is full, before it is copied back."""


def file_system(path: Path, mounts: str = "/proc/self/mountinfo") -> str | None:
    """The type of the file system that holds `path`; None where this cannot be told."""
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    target = Path(os.path.realpath(path))
    best: tuple[int, str | None] = (-1, None)
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = Path(fields[4].replace("\\040", " "))
        if target.is_relative_to(point) and len(point.parts) >= best[0]:
            best = (len(point.parts), right.split(" ")[0])
    return best[1]


def refuse_network(path: Path) -> None:
    """Refuse a file system over the network; where the type cannot be told, go on.

    Raises:
        LedgerFault: `ledger_unavailable`.
    """
    kind = file_system(path.parent)
    if kind in NETWORK:
        raise LedgerFault(
            Code.LEDGER_UNAVAILABLE,
            f"the ledger would lie on a network file system ({kind})",
            place=str(path),
            hint="keep it on a local disk; locks over a network can lose writes",
        )


class Lock:
    """The right to write a ledger: one process at a time; the kernel frees it when it dies."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise LedgerFault(
                Code.LEDGER_UNAVAILABLE,
                f"the ledger cannot be opened: {exc.strerror}",
                place=str(path),
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise LedgerFault(
                Code.LEDGER_UNAVAILABLE,
                "another process has this ledger open",
                place=str(path),
                hint="stop the other gateway first; reading and verifying need no stop",
            ) from None

    def release(self) -> None:
        os.close(self._descriptor)


class Reserve:
    """Room kept so that outcomes and freezes can still be written when intents cannot.

    Two things are held back: a file of its own on the disk, given up when the disk is full; and,
    where `max_bytes` bounds the database, its last pages.
    """

    def __init__(
        self, path: Path, *, size: int = RESERVE_BYTES, max_bytes: int | None = None
    ) -> None:
        self._path = path
        self._size = size
        self._max_bytes = max_bytes
        self._looked = 0.0
        self.released = False

    def hold(self, db: sqlite3.Connection) -> bool:
        """Take the reserve; False (and it counts as released) where there is no room for it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            self.release(db)
            return False
        self.released = False
        self._limit(db, held_back=self._size)
        db.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        return True

    def release(self, db: sqlite3.Connection) -> None:
        """Give the room up for what must still be written; not within a transaction."""
        self.released = True
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)
        self._limit(db, held_back=0)
        db.execute(f"PRAGMA wal_autocheckpoint={FULL_WAL_PAGES}")
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def try_again(self, db: sqlite3.Connection) -> bool:
        """Take the reserve again if there is clearly room; looks at most once a second."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return False
        self._looked = now
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        if disk.f_bavail * disk.f_frsize < 2 * self._size or self._bounded_full(db):
            return False
        return self.hold(db)

    def _bounded_full(self, db: sqlite3.Connection) -> bool:
        """Whether the bound on the database leaves less than twice the reserve."""
        if self._max_bytes is None:
            return False
        page_size, pages = _pages(db)
        return pages * page_size >= self._max_bytes - 2 * self._size

    def _limit(self, db: sqlite3.Connection, *, held_back: int) -> None:
        if self._max_bytes is not None:
            page_size, _ = _pages(db)
            db.execute(f"PRAGMA max_page_count={(self._max_bytes - held_back) // page_size}")


def _pages(db: sqlite3.Connection) -> tuple[int, int]:
    return (
        int(db.execute("PRAGMA page_size").fetchone()[0]),
        int(db.execute("PRAGMA page_count").fetchone()[0]),
    )
