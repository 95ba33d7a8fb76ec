"""Runs in the store: intents, starts, outcomes, and what a person says of the unknown ones.

Each function that writes is one piece of work for the writer: it reads the facts, asks
`remit.ledger.rules`, and writes rows and entries that commit or vanish together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from remit.errors import Code
from remit.ledger import events, rules
from remit.ledger.approvals import read_approval, spend
from remit.ledger.log import pack, unpack
from remit.ledger.tables import UNSETTLED, columns, insert_into, plan, reply, run
from remit.ledger.touches import touch_columns
from remit.ledger.writer import Transaction
from remit.model import (
    Approval,
    Caller,
    Effect,
    Ending,
    EntryDraft,
    Frozen,
    Grant,
    Intent,
    Outcome,
    PlanKind,
    Repeat,
    Run,
    RunState,
)

# The texts below are made of constants of this package; every value is a parameter.
# ruff: noqa: S608
_OWN = frozenset({"idempotency", "tenant", "session", "system", "untrusted", "sensitive"})
"""Columns that are looked up by, and are no part of a run as others see it."""

_NAMES = tuple(c.name for c in run.c if c.name not in _OWN)
_BLANK: Mapping[str, Any] = dict.fromkeys(c.name for c in run.c)
_COLUMNS = columns(run, without=_OWN)
_OPEN = "CASE WHEN started_ms IS NULL THEN 'intended' ELSE 'started' END"
_FACTS = f"""
SELECT fence, coalesce(state, {_OPEN}), plan_hash, deadline_ms, (SELECT frozen FROM control)
FROM run WHERE id = :id"""
_BY_ID = f"SELECT {_COLUMNS} FROM run WHERE id = :id"
_STANDING = """
SELECT control.frozen, control.revision,
       (SELECT digest FROM active_tool WHERE name = :tool),
       (SELECT count(*) FROM active_key WHERE id = :key)
FROM control"""
_UNRESOLVED = f"""
SELECT id, coalesce(state, {_OPEN}) FROM run
WHERE call_digest = :call AND kind = 'main' AND resolved_by IS NULL AND {UNSETTLED}
ORDER BY fence DESC"""
_INSERT_PLAN = insert_into(plan, ignore=True)
_INSERT_REPLY = insert_into(reply)
_INSERT_RUN = "INSERT INTO run ({names}) VALUES ({values})".format(
    names=", ".join(c.name for c in run.c if c.name != "fence"),
    values=", ".join(f":{c.name}" for c in run.c if c.name != "fence"),
)
_START = "UPDATE run SET started_ms = :now WHERE fence = :fence"
_SETTLE = """
UPDATE run SET state = :state, outcome_index = :outcome_index, settled_ms = :settled_ms,
               code = :code, ending = :ending, exit_code = :exit_code, wall_ms = :wall_ms
WHERE fence = :fence"""
_RESOLVE = "UPDATE run SET resolved_by = :operator, resolved_as = :as WHERE fence = :fence"
_BY_KEY = f"""
SELECT {_COLUMNS}, reply.packed, reply.value FROM run LEFT JOIN reply USING (fence)
WHERE idempotency = :key AND kind = 'main' ORDER BY fence DESC LIMIT 1"""
_BY_CALL = f"""
SELECT {_COLUMNS}, reply.packed, reply.value FROM run LEFT JOIN reply USING (fence)
WHERE call_digest = :call AND kind = 'main' ORDER BY fence DESC LIMIT 1"""


def commit_intent(tx: Transaction, intent: Intent, drafts: Sequence[EntryDraft]) -> Grant:
    """Check everything, spend the approval, write the intent; see `Ledger.commit_intent`."""
    approval = None
    if intent.approval_id is not None:
        approval = read_approval(tx.db, intent.approval_id)
    rules.check_intent(intent, _standing(tx, intent, approval))
    if approval is not None:
        spend(tx, approval, intent.run_id)
    tx.db.execute(_INSERT_PLAN, {"hash": intent.plan.hash, "text": intent.plan.text})
    index = tx.next_index + len(drafts)
    fence = tx.db.execute(_INSERT_RUN, _row(intent, index)).lastrowid or 0
    tx.append([*drafts, events.intent(intent, fence, approval)])
    return Grant(
        run_id=intent.run_id,
        plan=intent.plan,
        fence=fence,
        deadline_ms=intent.deadline_ms,
        intent_index=index,
        approval_id=intent.approval_id,
        started=intent.starts,
    )


def _standing(tx: Transaction, intent: Intent, approval: Approval | None) -> rules.Standing:
    frozen, revision, tool_digest, keys = tx.one(
        _STANDING, {"tool": intent.tool_name, "key": intent.caller.key_id}
    )
    unresolved: list[tuple[str, RunState]] = []
    if intent.effect is not Effect.READ:
        rows = tx.db.execute(_UNRESOLVED, {"call": intent.call_digest}).fetchall()
        unresolved = [(run_id, RunState(state)) for run_id, state in rows]
    return rules.Standing(
        frozen=frozen,
        revision=revision,
        tool_digest=tool_digest,
        key_active=keys > 0,
        approval=approval,
        unresolved=unresolved,
    )


def _row(intent: Intent, index: int) -> dict[str, Any]:
    row = dict(_BLANK)
    row.update(
        id=intent.run_id,
        kind=intent.plan.kind.value,
        plan_hash=intent.plan.hash,
        call_digest=intent.call_digest,
        caller_id=intent.caller.id,
        subject=intent.caller.subject,
        tool_name=intent.tool_name,
        effect=intent.effect.value,
        idempotent=int(intent.idempotent),
        environment=intent.environment,
        intent_index=index,
        approval_id=intent.approval_id,
        intended_ms=intent.now_ms,
        started_ms=intent.now_ms if intent.starts else None,
        deadline_ms=intent.deadline_ms,
        parent_run_id=intent.parent_run_id,
        idempotency=events.idempotency_digest(
            intent.caller.id, intent.tool_name, intent.idempotency_key
        ),
    )
    row.update(touch_columns(intent))
    return row


def start(tx: Transaction, grant: Grant, now_ms: int) -> None:
    """Compare-and-set from intended to started; see `Ledger.start`."""
    facts, frozen = _facts(tx, grant.run_id)
    rules.check_thaw(frozen, grant)
    rules.check_start(facts, grant, now_ms)
    tx.db.execute(_START, {"fence": grant.fence, "now": now_ms})


def _facts(tx: Transaction, run_id: str) -> tuple[rules.RunFacts | None, str | None]:
    row = tx.one(_FACTS, {"id": run_id})
    if row is None:
        return None, None
    fence, state, plan_hash, deadline_ms, frozen = row
    return rules.RunFacts(fence, RunState(state), plan_hash, deadline_ms), frozen


def settle(
    tx: Transaction, outcome: Outcome, draft: EntryDraft, drafts: Sequence[EntryDraft] = ()
) -> int:
    """Write the outcome of an open run; see `Ledger.settle`."""
    found = rules.check_outcome(_facts(tx, outcome.run_id)[0], outcome)
    result = outcome.result
    values: Mapping[str, Any] = {
        "fence": outcome.fence,
        "state": outcome.state.value,
        "outcome_index": tx.next_index + len(drafts),
        "settled_ms": outcome.settled_ms,
        "code": None if outcome.code is None else outcome.code.value,
        "ending": None if result is None else result.ending.value,
        "exit_code": None if result is None else result.exit_code,
        "wall_ms": None if result is None else result.wall_ms,
    }
    tx.db.execute(_SETTLE, values)
    if outcome.reply is not None:
        packed, value = pack(outcome.reply.text)
        tx.db.execute(_INSERT_REPLY, {"fence": outcome.fence, "packed": packed, "value": value})
    return tx.append([*drafts, events.outcome(outcome, found.plan_hash, draft)])[-1]


def resolve(tx: Transaction, run_id: str, *, operator: str, succeeded: bool, note: str) -> Run:
    """Record what a person says of an unknown outcome; see `Ledger.resolve`."""
    found = rules.check_resolution(read_run(tx.db, run_id))
    said = "succeeded" if succeeded else "failed"
    tx.db.execute(_RESOLVE, {"fence": found.fence, "operator": operator, "as": said})
    tx.append([events.resolved(found, operator=operator, succeeded=succeeded, note=note)])
    return rules.run_known(read_run(tx.db, run_id))


def read_run(db: sqlite3.Connection, run_id: str) -> Run | None:
    rows = db.execute(_BY_ID, {"id": run_id}).fetchall()
    return _run(rows[0]) if rows else None


def read_runs(
    db: sqlite3.Connection, states: frozenset[RunState] | None, limit: int
) -> Sequence[Run]:
    """Runs in these states (all, if None), newest first."""
    where = ""
    if states is not None:
        where = f"WHERE coalesce(state, {_OPEN}) IN ({', '.join(map(repr, _values(states)))})"
        if all(s.open or s is RunState.UNKNOWN for s in states):
            where += f" AND {UNSETTLED}"  # lets SQLite use the small index
    sql = f"SELECT {_COLUMNS} FROM run {where} ORDER BY fence DESC LIMIT ?"
    return [_run(row) for row in db.execute(sql, (limit,)).fetchall()]


def _values(states: frozenset[RunState]) -> list[str]:
    return sorted(state.value for state in states)


def read_repeat(
    db: sqlite3.Connection, caller: Caller, tool_name: str, call_digest: str, key: str | None
) -> Repeat | None:
    """See `Ledger.repeat`."""
    rows: list[Any] = []
    if key is not None:
        scoped = events.idempotency_digest(caller.id, tool_name, key)
        rows = db.execute(_BY_KEY, {"key": scoped}).fetchall()
    by_key = bool(rows)
    if not rows:
        rows = db.execute(_BY_CALL, {"call": call_digest}).fetchall()
    if not rows:
        return None
    *row, packed, value = rows[0]
    reply = None if value is None else Frozen(unpack(packed, value))
    return Repeat(run=_run(row), reply=reply, by_key=by_key)


def _run(row: Sequence[Any]) -> Run:
    fields: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    fields["kind"] = PlanKind(fields["kind"])
    opened = RunState.INTENDED if fields["started_ms"] is None else RunState.STARTED
    fields["state"] = RunState(fields["state"] or opened)
    fields["effect"] = Effect(fields["effect"])
    fields["idempotent"] = bool(fields["idempotent"])
    if fields["code"] is not None:
        fields["code"] = Code(fields["code"])
    if fields["ending"] is not None:
        fields["ending"] = Ending(fields["ending"])
    return Run(**fields)
