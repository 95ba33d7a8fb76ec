"""From the operator's word and a server's accepted definition to a tool."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from remit.catalog.server_spec import ServerSpec
from remit.command import render_command
from remit.errors import ConfigError
from remit.model import (
    CredentialRule,
    Effect,
    EgressRule,
    EnvironmentRule,
    ResultKind,
    Risk,
    SessionMode,
    Taint,
    Tool,
)
from remit.servers.tools import ServerTools
from remit.upstreams.definitions import read_definition
from tests.servers.make import item, spec


def made(of: ServerSpec | None = None, **listed: Any) -> Tool:
    of = of or spec()
    return ServerTools(of).tool(read_definition(of.name, item(**listed)))


def test_a_tool_is_the_servers_own_words_behind_the_operators_prefix() -> None:
    schema = {"type": "object", "$defs": {"b": {}, "a": {}}, "x-own": [1], "$anchor": "top"}
    tool = made(
        title="Read",
        description="Reads.",
        inputSchema=schema,
        outputSchema={"type": "object", "z": 1, "a": 2},
    )
    assert (tool.name, tool.title, tool.description) == ("files_read", "Read", "Reads.")
    assert tool.input_schema.text == (
        b'{"type":"object","$defs":{"b":{},"a":{}},"x-own":[1],"$anchor":"top"}'
    )
    assert tool.output_schema is not None
    assert tool.output_schema.text == b'{"type":"object","z":1,"a":2}'
    assert tool.result is ResultKind.MCP
    assert tool.upstream is not None
    assert (tool.upstream.server, tool.upstream.tool) == ("files", "read")


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "files_read"),
        ({"prefix": ""}, "read"),
        ({"prefix": "fs"}, "fs_read"),
        ({"tools": [{"name": "read", "alias": "look_up"}]}, "look_up"),
        ({"tools": [{"name": "other", "alias": "look_up"}]}, "files_read"),
    ],
)
def test_a_name_is_prefixed_or_an_alias(more: dict[str, Any], name: str) -> None:
    assert made(spec(**more)).name == name


@pytest.mark.parametrize(
    ("server", "listed", "effect", "risk"),
    [
        ({}, {}, Effect.DESTRUCTIVE, Risk.HIGH),
        ({"effect": "read"}, {}, Effect.READ, Risk.LOW),
        ({"effect": "read"}, {"readOnlyHint": False}, Effect.DESTRUCTIVE, Risk.HIGH),
        (
            {"effect": "read"},
            {"readOnlyHint": False, "destructiveHint": False},
            Effect.WRITE,
            Risk.MEDIUM,
        ),
        ({}, {"readOnlyHint": True}, Effect.DESTRUCTIVE, Risk.HIGH),
        ({"tools": [{"name": "read", "effect": "read"}]}, {}, Effect.READ, Risk.LOW),
        (
            {"tools": [{"name": "read", "effect": "read", "risk": "critical"}]},
            {"destructiveHint": True},
            Effect.DESTRUCTIVE,
            Risk.CRITICAL,
        ),
        (
            {"tools": [{"name": "read", "effect": "read", "risk": "low"}]},
            {"destructiveHint": True},
            Effect.DESTRUCTIVE,
            Risk.HIGH,
        ),
    ],
)
def test_annotations_raise_what_the_operator_said_and_never_lower_it(
    server: dict[str, Any], listed: dict[str, Any], effect: Effect, risk: Risk
) -> None:
    tool = made(spec(**server), annotations=listed)
    assert (tool.effect, tool.risk) == (effect, risk)


def test_what_the_operator_says_of_one_tool_goes_before_what_is_said_of_the_server() -> None:
    own = {
        "name": "read",
        "effect": "write",
        "idempotent": True,
        "on_cancel": "stop",
        "open_world": False,
        "returns": ["sensitive"],
        "environment": {"fixed": "production"},
        "consequence": "Reads {path|quoted}.",
        "tags": ["b", "a", "b"],
        "limits": {"wall_s": 5},
    }
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    tool = made(spec(open_world=True, system="disk", tools=[own]), inputSchema=schema)
    assert tool.effect is Effect.WRITE
    assert tool.idempotent
    assert tool.open_world is False
    assert tool.returns == (Taint.SENSITIVE,)
    assert tool.environment == EnvironmentRule(fixed="production", names=("production",))
    assert tool.consequence == "Reads {path|quoted}."
    assert tool.tags == ("a", "b")
    assert (tool.limits.wall_s, tool.limits.memory_mb) == (5, 256)
    assert tool.system == "disk"
    other = made(spec(open_world=True), name="other")
    assert other.open_world
    assert other.returns == (Taint.UNTRUSTED,)
    assert (other.limits.wall_s, other.limits.memory_mb) == (60, 512)
    assert other.system == "files"


@pytest.mark.parametrize(
    "own",
    [
        {"environment": {"argument": "where"}},
        {"consequence": "Reads {nothing}."},
        {"alias": "remit_can_i"},
        {"alias": "Remit.can-i"},
    ],
)
def test_what_does_not_fit_the_servers_schema_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        made(spec(tools=[{"name": "read", **own}]))


def test_a_name_too_long_with_its_prefix_is_refused() -> None:
    assert made(name="a" * 122).name == f"files_{'a' * 122}"
    with pytest.raises(ConfigError, match="too long"):
        made(name="a" * 123)


def test_nothing_of_the_operators_command_is_a_placeholder() -> None:
    command = {
        "argv": ["/usr/bin/server", "--format={path}", "{{", "{a}"],
        "env": {"TEMPLATE": "{b}"},
    }
    rendered = render_command(made(spec(command=command)).command, {"path": "x", "a": 1, "b": 2})
    assert rendered.argv == ("/usr/bin/server", "--format={path}", "{{", "{a}")
    assert rendered.env == (("TEMPLATE", "{b}"),)
    assert rendered.stdin == b""


def test_a_tool_that_only_reads_gets_no_directory_to_write_to() -> None:
    mounts = [{"name": "data", "source": "/srv/data", "writable": True}]
    server = spec(
        command={"argv": ["/usr/bin/server"], "mounts": mounts},
        tools=[{"name": "read", "effect": "read"}],
    )
    assert not made(server).command.mounts[0].writable
    assert made(server, name="write").command.mounts[0].writable
    assert made(server, annotations={"destructiveHint": True}).command.mounts[0].writable


def test_a_server_at_a_url_is_reached_there_and_nowhere_else() -> None:
    tool = made(spec(url="https://mcp.example.com/v1/mcp", authorization="crm"))
    assert tool.runner == "http"
    assert tool.command.argv == ()
    assert tool.egress == (EgressRule(host="mcp.example.com", port=443),)
    assert tool.credentials == (CredentialRule(ref="crm"),)
    assert tool.upstream is not None
    assert (tool.upstream.url, tool.upstream.authorization) == (
        "https://mcp.example.com/v1/mcp",
        "crm",
    )
    plain = made(spec(url="http://127.0.0.1:8123/mcp"))
    assert plain.egress == (EgressRule(host="127.0.0.1", port=8123),)
    assert plain.credentials == ()


@pytest.mark.parametrize(
    ("server", "annotations", "shadowed"),
    [
        ({}, {}, False),
        ({"mode": "shadow"}, {}, False),
        ({"mode": "shadow", "effect": "write"}, {}, True),
        ({"mode": "shadow", "effect": "write"}, {"destructiveHint": True}, False),
        ({"mode": "shadow", "tools": [{"name": "read", "shadow": True}]}, {}, True),
        ({"tools": [{"name": "read", "shadow": True}]}, {}, False),
    ],
)
def test_shadow_mode_is_never_for_a_destructive_tool_that_is_not_named(
    server: dict[str, Any], annotations: dict[str, Any], shadowed: bool
) -> None:
    tool = made(spec(**server), annotations=annotations)
    assert tool.upstream is not None
    assert tool.upstream.shadow is shadowed


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "fs"},
        {"effect": "read"},
        {"command": {"argv": ["/usr/bin/server", "-v"]}},
        {"command": {"argv": ["/usr/bin/server"], "env": {"A": "1"}}},
        {
            "command": {
                "argv": ["/usr/bin/server"],
                "mounts": [{"name": "a", "source": "/srv/a"}],
            }
        },
        {"url": "https://mcp.example.com/mcp"},
        {"runner": "strong"},
        {"session": "per_caller"},
        {"session_idle_s": 10},
        {"session_age_s": 10},
        {"unsafe_session_writes": True},
        {"limits": {"wall_s": 5}},
        {"system": "disk"},
        {"open_world": True},
        {"returns": []},
        {"environment": {"fixed": "test"}},
        {"egress": [{"host": "a.example", "port": 443}]},
        {"egress": [{"host": "a.example", "port": 443, "methods": ["GET"]}]},
        {"credentials": [{"ref": "crm"}]},
        {"tools": [{"name": "read", "idempotent": True}]},
        {"tools": [{"name": "read", "on_cancel": "stop"}]},
        {"tools": [{"name": "read", "tags": ["a"]}]},
        {"tools": [{"name": "read", "consequence": "Reads."}]},
        {"tools": [{"name": "read", "risk": "critical"}]},
        {"effect": "write", "mode": "shadow"},
    ],
)
def test_a_digest_covers_all_that_the_operator_said(change: dict[str, Any]) -> None:
    assert made(spec(**change)).digest != made().digest


@pytest.mark.parametrize(
    "listed",
    [
        {"title": "Read"},
        {"description": "Reads."},
        {"inputSchema": {"type": "object", "x": 1}},
        {"outputSchema": {"type": "object"}},
        {"annotations": {"idempotentHint": True}},
        {"name": "Read"},
    ],
)
def test_a_digest_covers_all_that_the_server_said(listed: dict[str, Any]) -> None:
    assert made(**listed).digest != made().digest
    assert made().digest == made().digest


def test_no_field_of_a_tool_is_forgotten_by_its_digest() -> None:
    """Whoever adds a field to `Tool` has to say whether a server's digest covers it."""
    covered = {
        *("name", "effect", "risk", "idempotent", "on_cancel", "environment", "consequence"),
        *("runner", "tags", "system", "open_world", "returns", "upstream"),
        *("command", "limits", "egress", "credentials"),
    }
    by_definition = {"title", "description", "input_schema", "output_schema"}
    never_set = {"result", "preview", "result_files", "digest"}
    assert {each.name for each in fields(Tool)} == covered | by_definition | never_set


def test_sessions_are_as_the_operator_said() -> None:
    tool = made(spec(session="shared", session_idle_s=7, session_age_s=8))
    assert tool.upstream is not None
    assert tool.upstream.session is SessionMode.SHARED
    assert (tool.upstream.idle_s, tool.upstream.age_s) == (7, 8)
