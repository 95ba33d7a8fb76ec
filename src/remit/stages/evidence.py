"""What the log says openly of a run's end: that it is gone, what it had, and where it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from remit.model import Connection, Destruction, EntryDraft, Loan, RunResult, Traffic

SWEPT = "runner.swept"
MAX_CONNECTIONS = 256
"""Most connections that an entry names; the rest are counted."""
MAX_LOANS = 64


def destruction_public(evidence: Destruction) -> dict[str, Any]:
    """What was looked at, what was found, and when each was seen gone."""
    facts: dict[str, Any] = {
        "complete": evidence.complete,
        "processes_left": evidence.processes_left,
        "mounts_left": evidence.mounts_left,
        "cgroup_removed": evidence.cgroup_removed,
        "directory_removed": evidence.directory_removed,
        "proxy_closed": evidence.proxy_closed,
        "credentials_left": evidence.credentials_left,
        "destroyed_ms": evidence.destroyed_ms,
        "seen_ms": dict(evidence.seen_ms),
        "took_us": evidence.took_us,
        "note": evidence.note,
    }
    if evidence.session is not None:
        facts["session"] = asdict(evidence.session)
    return facts


def reached_public(result: RunResult) -> dict[str, Any]:
    """What a run was lent and where it went; nothing for one that had neither."""
    found: dict[str, Any] = {}
    if result.loans:
        found["loans"] = loans_public(result.loans)
    if result.traffic is not None:
        found["traffic"] = traffic_public(result.traffic)
    if result.blanked:
        found["blanked"] = result.blanked
    return found


def loans_public(loans: Sequence[Loan]) -> list[dict[str, Any]]:
    """Each loan by its handle, and how it ended."""
    return [
        {
            "ref": loan.ref,
            "broker": loan.broker,
            "delivered": loan.delivered,
            "lent_ms": loan.lent_ms,
            "expires_ms": loan.expires_ms,
            "lease": loan.lease,
            "returned_ms": loan.returned_ms,
            "revoked": loan.revoked,
            "note": loan.note,
        }
        for loan in loans[:MAX_LOANS]
    ]


def traffic_public(traffic: Traffic) -> dict[str, Any]:
    """Every connection and refusal with its bytes. Hosts that a run tried by itself are its own
    words: they are cut to what a host can be."""
    shown = traffic.connections[:MAX_CONNECTIONS]
    return {
        "connections": [_connection(each) for each in shown],
        "more": traffic.more + len(traffic.connections) - len(shown),
        "refused": traffic.refused,
        "sent": traffic.sent,
        "received": traffic.received,
        "echoed": traffic.echoed,
        "closed_ms": traffic.closed_ms,
    }


def _connection(each: Connection) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "host": "".join(c if c.isascii() and c.isprintable() else "?" for c in each.host[:253]),
        "port": each.port,
        "kind": each.kind,
        "opened_ms": each.opened_ms,
        "closed_ms": each.closed_ms,
        "requests": each.requests,
        "sent": each.sent,
        "received": each.received,
    }
    optional = {
        "address": each.address,
        "refused": each.refused,
        "injected": list(each.injected),
        "echoed": each.echoed,
    }
    return facts | {name: value for name, value in optional.items() if value}


def swept_entry(evidence: Destruction, *, when: str) -> EntryDraft:
    """The entry of what was found without a live lease and removed, or could not be.

    `when` is `recovery` or `sweep`; of a session that was ended in its time it is `session`.
    """
    when = when if evidence.session is None else "session"
    public = {"run": evidence.lease_id, "when": when, "destruction": destruction_public(evidence)}
    return EntryDraft(event=SWEPT, public=public)


def left_entry(*, when: str, more: int, loans: Sequence[Loan]) -> EntryDraft:
    """The entry of loans that were ended without their runs, and of runners that are only counted."""
    public = {
        "run": None,
        "when": when,
        "more": more,
        "loans": loans_public(loans),
        "loans_more": max(0, len(loans) - MAX_LOANS),
    }
    return EntryDraft(event=SWEPT, public=public)
