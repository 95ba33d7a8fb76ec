"""`remit runs show` says where a run went, what it was lent, and what was seen gone."""

from __future__ import annotations

from typing import Any

from remit.cli.run_record import recorded

WENT: dict[str, Any] = {
    "host": "api.example.com", "port": 443, "kind": "https", "requests": 2, "sent": 10,
    "received": 20, "injected": ["api"], "echoed": True, "address": "192.0.2.1",
}  # fmt: skip
REFUSED = {"host": "other.example.com", "port": 443, "kind": "connect", "refused": "not_allowed"}
GONE = {
    "complete": True, "took_us": 1500, "processes_left": 0, "mounts_left": 0, "credentials_left": 0,
    "cgroup_removed": True, "directory_removed": True, "proxy_closed": True,
}  # fmt: skip


def lines(entry: dict[str, Any]) -> str:
    return "\n".join(recorded(entry))


def test_each_connection_and_each_refusal_has_a_line() -> None:
    told = lines({"traffic": {"connections": [WENT, REFUSED], "more": 3}})
    assert "reached:          api.example.com:443 (https), requests 2, 10 B sent, 20 B" in told
    assert "injected api, sent a secret back, which was blanked" in told
    assert "refused:          other.example.com:443, not_allowed" in told
    assert "3 connections more" in told


def test_where_it_ran_is_named_with_its_tier() -> None:
    runner = {"name": "sandbox", "version": "0.12.0", "tier": "sandbox"}
    told = lines({"runner": {**runner, "profile": "small", "slot": "warm"}})
    assert told == "ran in:           small (sandbox 0.12.0, tier sandbox), warm"


def test_what_was_lent_says_whether_it_is_dead() -> None:
    loan = {"ref": "db", "broker": "vault", "delivered": "proxy", "revoked": True}
    note = "it ends by itself"
    told = lines({"loans": [loan, {**loan, "revoked": False, "note": note, "expires_ms": 0x10000}]})
    assert "credential:       db from vault, by proxy, revoked\n" in told + "\n"
    assert "not revoked, ends at 1970-01-01T00:01:05Z: it ends by itself" in told


def test_what_is_left_of_a_run_is_named() -> None:
    assert "nothing is left, after 1.5 ms" in lines({"destruction": GONE})
    left = {**GONE, "complete": False, "processes_left": 2, "cgroup_removed": False}
    assert "LEFT: processes 2, control group 1" in lines({"destruction": left})


def test_a_hosts_name_cannot_write_on_the_terminal() -> None:
    told = lines({"traffic": {"connections": [{**REFUSED, "host": "a\x1b[2Jb"}]}})
    assert "\x1b" not in told


def test_a_call_of_a_server_names_the_server_its_session_and_what_becomes_of_it() -> None:
    runner = {
        "name": "sandbox",
        "version": "0.12.0",
        "tier": "sandbox",
        "profile": "small",
        "server": "files",
        "revision": "2026-07-28",
        "session": "session_1",
        "session_age_ms": "12500",
    }
    session = {"id": "session_1", "server": "files", "opened_ms": 1, "calls": 3, "ended": None}
    goes_on = {"complete": True, "took_us": 0, "session": session}
    assert list(recorded({"runner": runner, "destruction": goes_on})) == [
        "ran in:           small (sandbox 0.12.0, tier sandbox)",
        "server:           files (MCP 2026-07-28, in session session_1, 12.5 s old)",
        "destroyed:        nothing for this call alone: session session_1 goes on",
    ]
    over = goes_on | {"session": session | {"ended": "a call of it ended with upstream_gone"}}
    [line] = recorded({"destruction": over})
    assert line.endswith("session session_1 is ended: a call of it ended with upstream_gone")
