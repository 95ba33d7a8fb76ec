"""Requests for access in the store: filed by callers, closed by people, each step with its entry.

A request grants nothing. What the caller says stands in the table for people to read, and in the
log as a commitment.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from remit.canonical import digest_of
from remit.errors import Code, Conflict, NotFound, Refused
from remit.ledger import events
from remit.ledger.callers import caller_of, caller_text
from remit.ledger.tables import PENDING, access_request, columns
from remit.ledger.writer import Transaction
from remit.model import AccessRequest, EntryDraft, Frozen, RequestState

MAX_PENDING = 50
"""How many requests of one caller may wait for people at once."""

MAX_REASON = 1_000
MAX_NOTE = 1_000
"""Longest texts, in characters."""

MAX_ARGUMENTS = 65_536
"""The most that the arguments of a request may hold, in bytes."""

# The texts below are made of constants of this package; every value is a parameter.
# ruff: noqa: S608
_ROW = tuple(c.name for c in access_request.c if c.name != "number")
_READ = frozenset({"number", "caller_id", "asked"})
_NAMES = tuple(c.name for c in access_request.c if c.name not in _READ)
_COLUMNS = columns(access_request, without=_READ)
_BY_ID = f"SELECT {_COLUMNS} FROM access_request WHERE id = ?"
_SAME = f"SELECT {_COLUMNS} FROM access_request WHERE asked = ? AND {PENDING}"
_COUNT = f"SELECT count(*) FROM access_request WHERE caller_id = ? AND {PENDING}"
_INSERT = f"""
INSERT INTO access_request ({", ".join(_ROW)}) VALUES ({", ".join(f":{name}" for name in _ROW)})"""
_CLOSE = """
UPDATE access_request SET state = 'closed', closed_ms = ?, closed_by = ?, note = ? WHERE id = ?"""


def file_request(
    tx: Transaction, request: AccessRequest, drafts: Sequence[EntryDraft]
) -> AccessRequest:
    """File a request, or give the one that waits already; see `Ledger.file_request`."""
    check_size(request)
    same = _read(tx.db, _SAME, (asked(request),))
    if same:
        tx.append(drafts)
        return same[0]
    check_pending(tx.one(_COUNT, (request.caller.id,))[0])
    tx.db.execute(_INSERT, _row(request))
    tx.append([*drafts, events.requested(request)])
    return request


def close_request(
    tx: Transaction, request_id: str, *, operator: str, note: str, now_ms: int
) -> AccessRequest:
    """Close a request; see `Ledger.close_request`."""
    found = check_closing(next(iter(_read(tx.db, _BY_ID, (request_id,))), None))
    note = note[:MAX_NOTE]
    tx.db.execute(_CLOSE, (now_ms, operator, note, request_id))
    tx.append([events.closed(found, operator=operator, note=note)])
    return _read(tx.db, _BY_ID, (request_id,))[0]


def read_requests(
    db: sqlite3.Connection, states: frozenset[RequestState] | None, limit: int
) -> Sequence[AccessRequest]:
    """Requests in these states (all, if None), newest first."""
    where = ""
    if states is not None:
        where = f"WHERE state IN ({', '.join(sorted(repr(state.value) for state in states))})"
    sql = f"SELECT {_COLUMNS} FROM access_request {where} ORDER BY number DESC LIMIT ?"
    return _read(db, sql, (limit,))


def asked(request: AccessRequest) -> str:
    """What makes two requests the same: who asks, with the whole chain, for what."""
    return digest_of(
        "remit.access-request/1",
        [request.caller.id, request.tool_name, request.arguments.value()],
    )


def check_size(request: AccessRequest) -> None:
    """Refuse a request too large for people to read.

    Raises:
        Refused: `invalid_arguments`.
    """
    if len(request.reason) > MAX_REASON or len(request.arguments.text) > MAX_ARGUMENTS:
        raise Refused(
            Code.INVALID_ARGUMENTS,
            "the request is too large",
            hint=f"say why in {MAX_REASON} characters or fewer",
        )


def check_pending(count: int) -> None:
    """Refuse a caller who waits for too many answers already.

    Raises:
        Refused: `rate_limited`.
    """
    if count >= MAX_PENDING:
        raise Refused(
            Code.RATE_LIMITED,
            f"{MAX_PENDING} of your requests wait for people already",
            hint="wait until a person has dealt with some of them",
        )


def check_closing(found: AccessRequest | None) -> AccessRequest:
    """Refuse to close what is not there, or is closed.

    Raises:
        NotFound; Conflict: `wrong_state`.
    """
    if found is None:
        raise NotFound(
            Code.NOT_FOUND,
            "there is no request for access of that id",
            hint="list them: `remit approvals list`",
        )
    if found.state is not RequestState.PENDING:
        raise Conflict(Code.WRONG_STATE, "the request for access is closed already")
    return found


def _row(request: AccessRequest) -> dict[str, Any]:
    return {
        "id": request.id,
        "state": request.state.value,
        "caller_id": request.caller.id,
        "asked": asked(request),
        "caller": caller_text(request.caller),
        "tool_name": request.tool_name,
        "environment": request.environment,
        "arguments": request.arguments.text,
        "reason": request.reason,
        "decision_id": request.decision_id,
        "codes": json.dumps(request.codes),
        "filed_ms": request.filed_ms,
        "closed_ms": None,
        "closed_by": None,
        "note": "",
    }


def _read(db: sqlite3.Connection, sql: str, parameters: tuple[Any, ...]) -> list[AccessRequest]:
    return [_request(row) for row in db.execute(sql, parameters).fetchall()]


def _request(row: Sequence[Any]) -> AccessRequest:
    fields: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    fields["state"] = RequestState(fields["state"])
    fields["caller"] = caller_of(fields["caller"])
    fields["arguments"] = Frozen(fields["arguments"])
    fields["codes"] = tuple(json.loads(fields["codes"]))
    return AccessRequest(**fields)
