"""What people paste from other programs' files is answered by the key that Remit has for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remit.catalog.server_spec import DefinitionSpec, ServerCommandSpec, ServerSpec, ServerToolSpec
from remit.config import examine
from remit.settings import other_words
from remit.settings.sections import CatalogSection, Sections

ARGV = {"argv": ["/usr/bin/server"]}


def told(folder: Path, **sections: Any) -> list[tuple[str, str]]:
    path = folder / "remit.yaml"
    path.write_text(json.dumps(sections))
    _, problems = examine(path, environ={})
    return [(each.message, each.hint or "") for each in problems]


@pytest.mark.parametrize(
    ("keys", "place", "hint"),
    [
        ({"args": ["-y"]}, "args", "command: {argv: [PROGRAM, ARGUMENT"),
        ({"env": {"A": "b"}}, "env", "env: {NAME: VALUE}"),
        ({"cwd": "/srv"}, "cwd", "[/usr/bin/env, -C,"),
        ({"type": "stdio"}, "type", "`sse: true` beside `url`"),
        ({"transport": "http"}, "transport", "leave it out"),
        ({"headers": {"Authorization": "Bearer x"}}, "headers", "authorization: HANDLE"),
        ({"bearer_token_env_var": "X"}, "bearer_token_env_var", "runners.credentials"),
        ({"disabled": True}, "disabled", "take the entry out"),
        ({"autoApprove": ["read"]}, "autoApprove", "for policy to say"),
        ({"alwaysAllow": ["read"]}, "alwaysAllow", "`effect: read` needs nobody"),
        ({"timeout": 60}, "timeout", "wall_s"),
        ({"excludeTools": ["a"]}, "excludeTools", "hidden: true"),
        ({"includeTools": ["a"]}, "includeTools", "unlisted: hide"),
        ({"packages": []}, "packages", "definition: ./server.json"),
        ({"shadow": True}, "shadow", "mode: shadow"),
        ({"unlistd": "hide"}, "unlistd", "did you mean unlisted?"),
        ({"tools": [{"name": "a", "readOnly": True}]}, "tools[0].readOnly", "effect: read"),
        ({"tools": [{"name": "a", "description": "x"}]}, "tools[0].description", "leave it out"),
        ({"command": {"argv": ["/x"], "args": []}}, "command.args", "one list"),
        ({"definition": {"file": "a", "url": "b"}}, "definition.url", "fetched by you"),
    ],
)
def test_a_key_of_another_program_is_answered_by_remits(
    tmp_path: Path, keys: dict[str, Any], place: str, hint: str
) -> None:
    entry = {"name": "x", "command": ARGV, **keys}
    ((message, said),) = told(tmp_path, catalog={"servers": [entry]})
    assert message == f"unknown key catalog.servers[0].{place}"
    assert hint in said


@pytest.mark.parametrize(
    ("sections", "place", "hint"),
    [
        ({"mcpServers": {}}, "mcpServers", "catalog: {servers:"),
        ({"servers": []}, "servers", "catalog: {servers:"),
        ({"catalog": {"mcpServers": {}}}, "catalog.mcpServers", "remit init --import FILE"),
    ],
)
def test_servers_that_stand_elsewhere_are_led_to_the_catalog(
    tmp_path: Path, sections: dict[str, Any], place: str, hint: str
) -> None:
    ((message, said),) = told(tmp_path, **sections)
    assert message == f"unknown key {place}"
    assert hint in said


@pytest.mark.parametrize(
    ("servers", "place", "must", "hint"),
    [
        ({"git": {}}, "catalog.servers", "must be a list", "servers: [{name: NAME"),
        ([{"name": "x", "command": "npx"}], "catalog.servers[0].command", "a mapping", "command: {argv:"),
        ([{"name": "x", "command": ["npx"]}], "catalog.servers[0].command", "a mapping", "command: {argv:"),
        (
            [{"name": "x", "command": ARGV, "tools": {"read": {"effect": "read"}}}],
            "catalog.servers[0].tools",
            "must be a list",
            "tools: [{name: NAME, effect: read}",
        ),
        (
            [{"name": "x", "command": ARGV, "tools": ["read"]}],
            "catalog.servers[0].tools[0]",
            "a mapping",
            "tools: [{name: NAME, effect: read}",
        ),
        (
            [{"name": "x", "definition": ["a"]}],
            "catalog.servers[0].definition",
            "a mapping",
            "definition: ./server.json",
        ),
        ([{"name": "x", "command": {"argv": "npx -y x"}}], "catalog.servers[0].command.argv", "must be a list", "argv: ["),
    ],
)  # fmt: skip
def test_another_form_is_answered_by_the_form_that_is_meant(
    tmp_path: Path, servers: Any, place: str, must: str, hint: str
) -> None:
    ((message, said),) = told(tmp_path, catalog={"servers": servers})
    assert message.startswith(f"{place}: ")
    assert must in message
    assert hint in said


def test_no_hint_is_about_a_key_that_there_is() -> None:
    models = (
        Sections, CatalogSection, ServerSpec, ServerCommandSpec, ServerToolSpec, DefinitionSpec
    )  # fmt: skip
    for model in models:
        known = [key for key in model.model_fields if other_words.meant(model, key) is not None]
        assert known == []
