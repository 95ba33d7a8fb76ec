"""What is in force: the active revision, tools and keys, and whether everything is frozen."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from remit.ledger import events
from remit.ledger.writer import Transaction
from remit.model import Activation


def activate(tx: Transaction, activation: Activation) -> None:
    """Put a revision, tools and keys in force in place of those before, with an entry."""
    db = tx.db
    db.execute("UPDATE control SET revision = ?", (activation.revision,))
    put_tools(db, activation.tools)
    db.execute("DELETE FROM active_key")
    db.executemany("INSERT INTO active_key VALUES (?)", [(key,) for key in sorted(activation.keys)])
    tx.append([events.activated(activation)])


def put_tools(db: sqlite3.Connection, tools: Mapping[str, str]) -> None:
    """Have these tools in the table and no others, writing only the rows that are others than now:
    of many servers each that is seen first puts all tools in force once more."""
    held = dict(db.execute("SELECT name, digest FROM active_tool").fetchall())
    gone = sorted(held.keys() - tools.keys())
    db.executemany("DELETE FROM active_tool WHERE name = ?", [(name,) for name in gone])
    other = sorted(each for each in tools.items() if held.get(each[0]) != each[1])
    db.executemany("INSERT OR REPLACE INTO active_tool VALUES (?, ?)", other)


def freeze(tx: Transaction, *, frozen: bool, operator: str, reason: str) -> None:
    """Stop all new effects, or let them go on, with an entry."""
    tx.db.execute("UPDATE control SET frozen = ?", (reason if frozen else None,))
    tx.append([events.freeze(frozen=frozen, operator=operator, reason=reason)])


def read_frozen(db: sqlite3.Connection) -> str | None:
    """Why everything is frozen, or None."""
    rows = db.execute("SELECT frozen FROM control").fetchall()
    return None if rows[0][0] is None else str(rows[0][0])
