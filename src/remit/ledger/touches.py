"""What a subject's runs touched, counted from their intents: read from the store, then bounded.

The rows are kept by the runs themselves, so that what is told here is as durable as the intents.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from remit.model import Effect, Intent, Taint, Touch

MAX_TOUCHES = 1_000
"""The most touches that are given for one subject."""

FOLDED = "*"
"""The system of the one touch that stands for all that did not fit."""

# The newest, of all that are alike but for their time, says when the caller was there last.
_TOUCHES = """
SELECT session, system, effect, untrusted, sensitive, count(*), max(intended_ms) AS last
FROM run WHERE tenant = ? AND subject = ? AND intended_ms >= ?
GROUP BY session, system, effect, untrusted, sensitive
ORDER BY last DESC, session, system, effect, untrusted, sensitive"""

_STRENGTH = list(Effect)


def touch_columns(intent: Intent) -> Mapping[str, Any]:
    """What a run's row holds so that its touch can be read back."""
    return {
        "tenant": intent.caller.tenant,
        "session": intent.claims.session_id or "",
        "system": intent.system,
        "untrusted": int(Taint.UNTRUSTED in intent.taints),
        "sensitive": int(Taint.SENSITIVE in intent.taints),
    }


def touch_of(intent: Intent) -> Touch:
    """The touch of one intent."""
    return Touch(
        session=intent.claims.session_id or "",
        system=intent.system,
        effect=intent.effect,
        untrusted=Taint.UNTRUSTED in intent.taints,
        sensitive=Taint.SENSITIVE in intent.taints,
        calls=1,
        last_ms=intent.now_ms,
    )


def read_touches(
    db: sqlite3.Connection, tenant: str, subject: str, since_ms: int
) -> Sequence[Touch]:
    """See `Ledger.touches`."""
    rows = db.execute(_TOUCHES, (tenant, subject, since_ms))
    return folded(_touch(row) for row in rows)


def folded(newest_first: Iterable[Touch]) -> list[Touch]:
    """At most `MAX_TOUCHES`: the newest as they are, the others as one that forgets no flag."""
    touches = iter(newest_first)
    kept = list(islice(touches, MAX_TOUCHES))
    rest = next(touches, None)
    if rest is None:
        return kept
    last = replace(kept.pop(), session="", system=FOLDED)
    for each in (rest, *touches):
        last = _both(last, each)
    return [*kept, last]


def _both(one: Touch, other: Touch) -> Touch:
    return replace(
        one,
        effect=max(one.effect, other.effect, key=_STRENGTH.index),
        untrusted=one.untrusted or other.untrusted,
        sensitive=one.sensitive or other.sensitive,
        calls=one.calls + other.calls,
        last_ms=max(one.last_ms, other.last_ms),
    )


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
