"""What a person reads before agreeing to a call of an MCP server."""

from __future__ import annotations

from typing import Any

from remit.cli.approval_text import approval_text
from remit.stages.approve import difference


def approval(upstream: dict[str, Any] | None, *argv: str) -> dict[str, Any]:
    return {
        "id": "apr_1",
        "state": "pending",
        "expires_ms": 60_000,
        "plan_hash": "sha256:" + "a" * 64,
        "caller": {"subject": "agent", "kind": "agent", "tenant": "default", "chain": []},
        "rule": {"required": 1, "groups": [], "reason_required": False},
        "votes": [],
        "shown": {
            "consequence": "",
            "tool": "crm_rename",
            "effect": "destructive",
            "risk": "high",
            "environment": "",
            "arguments": {"name": "a"},
            "command": {"argv": list(argv), "env": {}, "stdin": "", "files": {}, "mounts": []},
            "upstream": upstream,
            "runner": {"profile": "http", "tier": "none"},
            "limits": {},
            "egress": [],
            "credentials": [],
        },
    }


def test_a_call_of_a_server_names_the_server_the_tool_there_and_its_definition() -> None:
    upstream = {
        "server": "crm",
        "tool": "rename",
        "definition": "sha256:" + "d" * 64,
        "url": "https://crm.example.com/mcp",
    }
    text = approval_text(approval(upstream), 0)
    assert "MCP server:   crm, at https://crm.example.com/mcp" in text
    assert f"asked for:    rename, as defined by sha256:{'d' * 64}" in text
    assert "What would run" not in text
    started = approval_text(approval({**upstream, "url": None}, "/usr/bin/server"), 0)
    assert "MCP server:   crm\n" in started
    assert 'What would run, exactly:\n  "/usr/bin/server"' in started


def test_a_command_is_shown_as_what_would_run() -> None:
    text = approval_text(approval(None, "/bin/true"), 0)
    assert "MCP server" not in text
    assert 'What would run, exactly:\n  "/bin/true"' in text


def test_what_changed_since_an_approval_shows_that_the_tool_is_defined_otherwise() -> None:
    one = {"server": "crm", "tool": "rename", "definition": "sha256:" + "d" * 64, "url": None}
    other = {**one, "definition": "sha256:" + "e" * 64}
    before, after = approval(one)["shown"], approval(other)["shown"]
    assert "e" * 64 in difference(before, after)
    assert "upstream" not in difference(
        approval(None, "/a")["shown"], approval(None, "/b")["shown"]
    )
