"""What is in force: the active revision, tools and keys, and whether everything is frozen."""

from __future__ import annotations

import sqlite3

from remit.ledger import events
from remit.ledger.writer import Transaction
from remit.model import Activation


def activate(tx: Transaction, activation: Activation) -> None:
    """Put a revision, tools and keys in force in place of those before, with an entry."""
    db = tx.db
    db.execute("UPDATE control SET revision = ?", (activation.revision,))
    db.execute("DELETE FROM active_tool")
    db.executemany("INSERT INTO active_tool VALUES (?, ?)", sorted(activation.tools.items()))
    db.execute("DELETE FROM active_key")
    db.executemany("INSERT INTO active_key VALUES (?)", [(key,) for key in sorted(activation.keys)])
    tx.append([events.activated(activation)])


def freeze(tx: Transaction, *, frozen: bool, operator: str, reason: str) -> None:
    """Stop all new effects, or let them go on, with an entry."""
    tx.db.execute("UPDATE control SET frozen = ?", (reason if frozen else None,))
    tx.append([events.freeze(frozen=frozen, operator=operator, reason=reason)])


def read_frozen(db: sqlite3.Connection) -> str | None:
    """Why everything is frozen, or None."""
    rows = db.execute("SELECT frozen FROM control").fetchall()
    return None if rows[0][0] is None else str(rows[0][0])
