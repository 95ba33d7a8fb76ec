"""Opening the store: connections with their settings, and the migrations."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from remit.errors import Code, LedgerFault

HEAD = "0002"
"""The newest migration that this code knows."""

KNOWN = frozenset({"0001", HEAD})

BUSY_TIMEOUT_MS = 5_000
WAL_PAGES = 4_000
"""Pages in the write-ahead log before they are copied back (16 MiB with 4 KiB pages)."""


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes: WAL, a flush for each commit, foreign keys on."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    db.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        db.close()
        raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the ledger's file system cannot hold a WAL")
    for pragma in (
        "synchronous=FULL",
        "fullfsync=ON",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "temp_store=MEMORY",
        f"wal_autocheckpoint={WAL_PAGES}",
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, and sees only what is durable."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    db = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    db.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    db.execute("PRAGMA query_only=ON")
    db.execute("PRAGMA trusted_schema=OFF")
    return db


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to this code's, in one transaction.

    Raises:
        LedgerFault: if a newer Remit wrote the store; it is left as it is.
    """
    found = version(db)
    if found == HEAD:
        return
    if found is not None and found not in KNOWN:
        raise LedgerFault(
            Code.LEDGER_UNAVAILABLE,
            "the ledger was written by a newer version of Remit",
            hint="start the version that wrote it, or a newer one",
        )
    _run_alembic(db)


def version(db: sqlite3.Connection) -> str | None:
    """The migration that the store is at; None for a new one."""
    named = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
    if not named:
        return None
    rows = db.execute("SELECT version_num FROM alembic_version").fetchall()
    return str(rows[0][0]) if rows else None


def _run_alembic(db: sqlite3.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", creator=lambda: db, poolclass=StaticPool)
    # The driver must not begin or end transactions by itself, or a migration is not all-or-nothing.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
