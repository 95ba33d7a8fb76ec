"""What a subject's runs touched, counted from their intents: read from the store, then bounded.

The rows are kept by the runs themselves, so that what is told here is as durable as the intents.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from remit.history import folded
from remit.model import Effect, Intent, Taint, Touch

# The newest, of all that are alike but for their time, says when the caller was there last.
_TOUCHES = """
SELECT session, system, effect, untrusted, sensitive, count(*), max(intended_ms) AS last
FROM run WHERE tenant = ? AND subject = ? AND intended_ms >= ?
GROUP BY session, system, effect, untrusted, sensitive
ORDER BY last DESC, session, system, effect, untrusted, sensitive"""


def touch_columns(intent: Intent) -> Mapping[str, Any]:
    """What a run's row holds so that its touch can be read back."""
    return {
        "tenant": intent.caller.tenant,
        "session": intent.claims.session_id or "",
        "system": intent.system,
        "untrusted": int(Taint.UNTRUSTED in intent.taints),
        "sensitive": int(Taint.SENSITIVE in intent.taints),
    }


def read_touches(
    db: sqlite3.Connection, tenant: str, subject: str, since_ms: int
) -> Sequence[Touch]:
    """See `Ledger.touches`."""
    rows = db.execute(_TOUCHES, (tenant, subject, since_ms))
    return folded(_touch(row) for row in rows)


def _touch(row: Sequence[Any]) -> Touch:
    session, system, effect, untrusted, sensitive, calls, last_ms = row
    return Touch(
        session=session,
        system=system,
        effect=Effect(effect),
        untrusted=bool(untrusted),
        sensitive=bool(sensitive),
        calls=calls,
        last_ms=last_ms,
    )
