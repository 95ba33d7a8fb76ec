"""Entries go into the text of remit.yaml and out of clients' files, and nothing else of either moves."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.cli.client_entry import CLIENTS, Door
from remit.cli.imports.config_text import as_text, with_entries
from remit.cli.imports.lent import SITES
from remit.cli.imports.proposal import Proposal, propose
from remit.cli.imports.sight import Sight
from remit.cli.imports.taken_out import only_remit
from remit.errors import ConfigError, RemitError
from remit.settings.strict_yaml import read_yaml
from remit.upstreams.client_files import Client, read_client_file

DOOR = Door(url="http://127.0.0.1:8700/mcp", usual_url=True, plain=False, key_file=Path("/k"))
TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufeff\u2028\u2029"),
    max_size=40,
)
ENTRY = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)},
    optional={
        "url": TEXT,
        "sse": st.booleans(),
        "command": st.fixed_dictionaries(
            {"argv": st.lists(TEXT, min_size=1, max_size=5)},
            optional={
                "env": st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), TEXT,
                                       max_size=4),
                "mounts": st.lists(
                    st.fixed_dictionaries({"name": TEXT, "writable": st.booleans()}), max_size=4
                ),
            },
        ),
    },
)  # fmt: skip
BASES = [
    "",
    "# nothing but a comment\n",
    "server:\n  listen: 127.0.0.1:8700",
    "catalog:\n  # our tools\n  tools:\n    - name: a  # first\n\npolicy:\n  path: policy\n",
    "catalog:\n    servers:\n    - name: there\n      url: https://x\n\n\n",
    "catalog:\n  servers:\n      - {name: there}\nrunners:\n  credentials:\n    old: {broker: oidc}\n",
    "catalog:\r\n  tools: []\r\nrunners:\r\n  egress: {}\r\n",
    "catalog:\nrunners:\n",
    "catalog:\n  servers:\n\nrunners:\n  credentials: # none yet\n",
    "\ufeffcatalog:\n  tools: []\n",
]


@given(
    st.sampled_from(BASES),
    st.lists(ENTRY, min_size=1, max_size=4),
    st.dictionaries(st.from_regex(r"[a-z-]{1,12}", fullmatch=True).filter(lambda x: x != "old"),
                    st.fixed_dictionaries({"broker": TEXT, "secret": TEXT}), max_size=3),
)  # fmt: skip
def test_entries_are_added_to_any_configuration_and_every_line_of_it_stays(
    base: str, entries: list[dict[str, Any]], credentials: dict[str, Any]
) -> None:
    before = base.encode()
    after = with_entries(before, entries, credentials, ["from a file"])
    was, now = read_yaml(before, "f").value or {}, read_yaml(after, "f").value
    there = (was.get("catalog") or {}).get("servers") or []
    assert now["catalog"]["servers"] == [*entries, *there]
    old = (was.get("runners") or {}).get("credentials") or {}
    assert ((now.get("runners") or {}).get("credentials") or {}) == {**credentials, **old}
    lines = iter(after.decode().splitlines())
    assert all(line in lines for line in base.splitlines())
    assert read_yaml(as_text(entries, credentials).encode(), "f").value["catalog"] == {
        "servers": entries
    }


@pytest.mark.parametrize(
    "base",
    ["{catalog: {}}", "catalog: {tools: []}", "catalog:\n  servers: []\n", "- a list\n",
     "catalog:\n  servers: {}\n", "? catalog\n: tools: []\n"],
)  # fmt: skip
def test_what_has_no_place_for_lines_is_refused(base: str) -> None:
    with pytest.raises((ConfigError, AttributeError)) as told:
        with_entries(base.encode(), [{"name": "a", "url": "x"}], {})
    assert told.type is ConfigError


NAMES = st.lists(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12).filter(
        lambda name: name != "remit"
    ),
    unique=True,
    min_size=1,
    max_size=6,
)


@given(NAMES, st.data(), st.sampled_from([None, 2, 4, "\t"]), st.booleans())
def test_servers_are_taken_out_of_json_and_nothing_else_is(
    names: list[str], data: st.DataObject, indent: Any, windows: bool
) -> None:
    gone = data.draw(st.lists(st.sampled_from(names), unique=True))
    servers = {name: {"command": "x", "env": {"A": f"}}, {name}"}} for name in names}
    text = json.dumps({"first": [1.5, "}"], "mcpServers": servers, "last": {}}, indent=indent)
    if windows:
        text = text.replace("\n", "\r\n")
    after = json.loads(only_remit("cursor", gone, DOOR)(text.encode()))
    assert set(after["mcpServers"]) == {"remit", *names} - set(gone)
    assert all(after["mcpServers"][name] == servers[name] for name in names if name not in gone)
    assert (after["first"], after["last"]) == ([1.5, "}"], {})


def test_servers_are_taken_out_of_toml_with_their_tables() -> None:
    text = (
        'model = "m" # ours\n[mcp_servers.a]\ncommand = "x"\n[mcp_servers.a.env]\nK = "secret"\n\n'
        '[mcp_servers."b.c"]\nurl = "https://x"\n# about tui\n[tui]\ntheme = "[mcp_servers.a]"\n'
    )
    after = only_remit("codex", ["a", "b.c"], DOOR)(text.encode()).decode()
    assert after.startswith('model = "m" # ours\n[tui]\ntheme = "[mcp_servers.a]"\n')
    assert "[mcp_servers.remit]" in after
    assert "secret" not in after


@pytest.mark.parametrize(
    "text",
    ['mcp_servers = {a = {command = "x"}}\n', '[mcp_servers]\na = {command = "x"}\n',
     '[mcp_servers.a]\ncommand = """\n[tui]\n"""\n'],
)  # fmt: skip
def test_toml_of_another_shape_is_left_to_its_owner(text: str) -> None:
    with pytest.raises(RemitError):
        only_remit("codex", ["a"], DOOR)(text.encode())


# ------------------------------------------------------------------------------------- no secret

SECRET = st.from_regex(r"(?:ghp_|sk-)[A-Za-z0-9]{24,40}", fullmatch=True)


@given(SECRET, st.sampled_from([*sorted(SITES)[:3], "API_KEY", "DB_PASSWORD", "PLAIN"]))
def test_no_secret_of_a_client_is_in_an_entry_a_note_or_an_error(secret: str, name: str) -> None:
    entries = {
        "env": {"command": "/bin/cat", "env": {name: secret, f"X_{name}": f"a {secret}"}},
        "arg": {"command": "/bin/cat", "args": ["--x", secret, f"--token={secret}"]},
        "url": {"url": f"https://x.example/{secret}"},
        "header": {
            "url": "https://x.example/mcp",
            "headers": {"Authorization": f"Bearer {secret}"},
        },
        "other": {"url": "https://x.example/mcp", "headers": {"X-A": secret}},
        "basic": {"url": "https://x.example/mcp", "headers": {"Authorization": f"Basic {secret}"}},
        "cwd": {"command": "/bin/cat", "cwd": f"/{secret}"},
        secret: {"command": "/bin/cat"},
    }
    text = json.dumps({"mcpServers": entries})
    found = read_client_file(Client.CLAUDE_CODE, text, path="f.json")
    told: list[object] = [*map(str, found.faults)]
    taken: list[Proposal] = []
    for server in found.servers:
        sight = Sight(server, home=Path("/nowhere"), private=[])
        try:
            taken.append(propose(server, "one", sight, home=Path("/nowhere"), environ={}))
        except ConfigError as fault:
            told += [fault, fault.place, fault.hint]
    for each in taken:
        told += [each.entry, each.notes, each, [loan.section for loan in each.loans]]
        if each.server.kind.value == "stdio":
            with suppress(ConfigError):
                told.append(as_text([each.entry], {}))
    assert all(each.server.name != secret for each in taken)
    assert secret not in repr(told).replace(repr([each.server for each in taken]), "")
    assert any(loan.secret == secret for each in taken for loan in each.loans)


def test_each_client_has_a_place_for_its_servers() -> None:
    assert {client.value for client in Client} - set(CLIENTS) == {"claude-code-user"}
