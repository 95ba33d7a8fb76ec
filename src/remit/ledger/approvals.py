"""Approvals in the store: opened, voted on, and ended once, each step with its entry.

The state machine is `remit.ledger.rules`; an index in the store allows one live approval for a
call, whatever this code thinks.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from remit.canonical import encode
from remit.ledger import events, rules
from remit.ledger.callers import caller_of, caller_text
from remit.ledger.tables import LIVE, approval, columns, insert_into, plan, vote
from remit.ledger.writer import Transaction
from remit.model import (
    Approval,
    ApprovalDraft,
    ApprovalRule,
    ApprovalState,
    EntryDraft,
    Frozen,
    Quorum,
    Verdict,
    Vote,
)

# The texts below are made of constants of this package; every value is a parameter.
# ruff: noqa: S608
_COLUMNS = columns(approval, without=frozenset({"number"}))
_BY_ID = f"SELECT {_COLUMNS} FROM approval WHERE id = ?"
_LIVE_OF_CALL = f"SELECT {_COLUMNS} FROM approval WHERE call_digest = ? AND {LIVE}"
_NEWEST_FOR = f"""
SELECT {_COLUMNS} FROM approval WHERE call_digest = ? AND plan_hash = ?
ORDER BY number DESC LIMIT 1"""
_OF_CALL = f"SELECT {_COLUMNS} FROM approval WHERE call_digest = ? ORDER BY number DESC LIMIT 20"
_PAST = f"SELECT {_COLUMNS} FROM approval WHERE {LIVE} AND expires_ms <= ? ORDER BY number"
_VOTES = "SELECT * FROM vote WHERE approval_id = ? ORDER BY rowid"
_INSERT = "INSERT INTO approval ({names}) VALUES ({values})".format(
    names=", ".join(c.name for c in approval.c if c.name != "number"),
    values=", ".join(f":{c.name}" for c in approval.c if c.name != "number"),
)
_INSERT_PLAN = insert_into(plan, ignore=True)
_INSERT_VOTE = insert_into(vote)
_SET_STATE = "UPDATE approval SET state = ? WHERE id = ?"
_SPEND = "UPDATE approval SET state = 'spent', run_id = ? WHERE id = ?"


def open_approval(tx: Transaction, draft: ApprovalDraft, drafts: Sequence[EntryDraft]) -> Approval:
    """Open an approval or give the one that serves; see `Ledger.open_approval`."""
    rules.check_plan(draft.plan, draft.call_digest)
    live = _read(tx.db, _LIVE_OF_CALL, (draft.call_digest,))
    serving = next((each for each in live if rules.still_serves(each, draft)), None)
    entries = list(drafts)
    if serving is not None:
        tx.append(entries)
        return serving
    supersedes = None
    for old in live:
        if old.expires_ms <= draft.opened_ms:
            _set_state(tx, old.id, ApprovalState.EXPIRED)
            entries.append(events.expired(old))
        else:
            _set_state(tx, old.id, ApprovalState.SUPERSEDED)
            entries.append(events.superseded(old, draft.id))
            supersedes = old.id
    tx.db.execute(_INSERT_PLAN, {"hash": draft.plan.hash, "text": draft.plan.text})
    tx.db.execute(_INSERT, _row(draft, supersedes))
    tx.append([*entries, events.opened(draft, supersedes)])
    return rules.approval_known(read_approval(tx.db, draft.id))


def cast(tx: Transaction, approval_id: str, plan_hash: str, ballot: Vote) -> Approval:
    """Record a vote; see `Ledger.vote`."""
    found = read_approval(tx.db, approval_id)
    state = rules.check_vote(found, plan_hash, ballot)
    current = rules.approval_known(found)
    tx.db.execute(
        _INSERT_VOTE,
        {
            "approval_id": approval_id,
            "subject": ballot.subject,
            "verdict": ballot.verdict.value,
            "voted_ms": ballot.voted_ms,
            "groups": json.dumps(ballot.groups),
            "reason": ballot.reason,
        },
    )
    _set_state(tx, approval_id, state)
    tx.append([events.voted(current, ballot, state)])
    return rules.approval_known(read_approval(tx.db, approval_id))


def withdraw(tx: Transaction, approval_id: str, *, operator: str) -> Approval:
    """Withdraw a live approval; see `Ledger.revoke_approval`."""
    found = rules.check_withdrawal(read_approval(tx.db, approval_id))
    _set_state(tx, approval_id, ApprovalState.WITHDRAWN)
    tx.append([events.withdrawn(found, operator)])
    return rules.approval_known(read_approval(tx.db, approval_id))


def expire(tx: Transaction, now_ms: int) -> Sequence[str]:
    """Expire what is past its time; give the ids."""
    past = _read(tx.db, _PAST, (now_ms,))
    for each in past:
        _set_state(tx, each.id, ApprovalState.EXPIRED)
    tx.append([events.expired(each) for each in past])
    return [each.id for each in past]


def spend(tx: Transaction, found: Approval, run_id: str) -> None:
    """Use an approval up for a run; `rules.check_intent` has let it through."""
    tx.db.execute(_SPEND, (run_id, found.id))


def read_approval(db: sqlite3.Connection, approval_id: str) -> Approval | None:
    found = _read(db, _BY_ID, (approval_id,))
    return found[0] if found else None


def read_approval_for(db: sqlite3.Connection, call_digest: str, plan_hash: str) -> Approval | None:
    found = _read(db, _NEWEST_FOR, (call_digest, plan_hash))
    return found[0] if found else None


def read_approvals_of(db: sqlite3.Connection, call_digest: str) -> Sequence[Approval]:
    return _read(db, _OF_CALL, (call_digest,))


def read_approvals(
    db: sqlite3.Connection, states: frozenset[ApprovalState] | None, limit: int
) -> Sequence[Approval]:
    """Approvals in these states (all, if None), newest first."""
    where = ""
    if states is not None:
        names = sorted(state.value for state in states)
        where = f"WHERE state IN ({', '.join(map(repr, names))})"
        if states <= rules.LIVE:
            where += f" AND {LIVE}"  # lets SQLite use the small index
    sql = f"SELECT {_COLUMNS} FROM approval {where} ORDER BY number DESC LIMIT ?"
    return _read(db, sql, (limit,))


def _set_state(tx: Transaction, approval_id: str, state: ApprovalState) -> None:
    tx.db.execute(_SET_STATE, (state.value, approval_id))


def _row(draft: ApprovalDraft, supersedes: str | None) -> dict[str, Any]:
    return {
        "id": draft.id,
        "state": ApprovalState.PENDING.value,
        "plan_hash": draft.plan.hash,
        "call_digest": draft.call_digest,
        "caller": caller_text(draft.caller),
        "tool_name": draft.tool_name,
        "environment": draft.environment,
        "rule": _rule_text(draft.rule),
        "opened_ms": draft.opened_ms,
        "expires_ms": draft.expires_ms,
        "shown": draft.shown.text,
        "supersedes": supersedes,
        "run_id": None,
    }


def _read(db: sqlite3.Connection, sql: str, parameters: tuple[Any, ...]) -> list[Approval]:
    rows = db.execute(sql, parameters).fetchall()
    return [_approval(row, db.execute(_VOTES, (row[0],)).fetchall()) for row in rows]


def _approval(row: Sequence[Any], votes: Sequence[Any]) -> Approval:
    names = (c.name for c in approval.c if c.name != "number")
    fields: dict[str, Any] = dict(zip(names, row, strict=True))
    fields["state"] = ApprovalState(fields["state"])
    fields["caller"] = caller_of(fields["caller"])
    fields["rule"] = _rule(fields["rule"])
    fields["shown"] = Frozen(fields["shown"])
    return Approval(**fields, votes=tuple(_vote(each) for each in votes))


def _vote(row: Sequence[Any]) -> Vote:
    _, subject, verdict, voted_ms, groups, reason = row
    return Vote(
        subject=subject,
        verdict=Verdict(verdict),
        voted_ms=voted_ms,
        groups=tuple(json.loads(groups)),
        reason=reason,
    )


def _rule_text(rule: ApprovalRule) -> str:
    document = {
        "required": rule.required,
        "groups": list(rule.groups),
        "exclude": list(rule.exclude),
        "separation_of_duties": rule.separation_of_duties,
        "ttl_s": rule.ttl_s,
        "reason_required": rule.reason_required,
        "also": [[each.required, list(each.groups)] for each in rule.also],
    }
    return encode(document).decode()


def _rule(text: str) -> ApprovalRule:
    fields: dict[str, Any] = json.loads(text)
    fields["groups"] = tuple(fields["groups"])
    fields["exclude"] = tuple(fields["exclude"])
    # A rule that was stored before there could be several quorums has one.
    fields["also"] = tuple(
        Quorum(required=required, groups=tuple(groups))
        for required, groups in fields.get("also", ())
    )
    return ApprovalRule(**fields)
