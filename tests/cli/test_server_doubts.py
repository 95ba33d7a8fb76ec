"""What `remit check` and `remit tools check` tell of MCP servers before any of them is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.config import load
from remit.servers.pins import Pinned, PinStore
from remit.servers.sighting import Sighting
from remit.upstreams.definitions import read_definition
from tests.cli.conftest import Remit

PYTHON = "/usr/bin/python3"


def put(home: Path, *servers: dict[str, Any], **tools: str) -> None:
    """Have these servers in the configuration, and these tools of the first known by description."""
    path = home / "remit.yaml"
    whole = yaml.safe_load(path.read_text())
    whole["catalog"] = {"servers": list(servers)}
    path.write_text(yaml.safe_dump(whole))
    name = servers[0]["name"]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    PinStore(load(path).data_dir / "servers" / "pins").write(
        name,
        {
            tool: Pinned(
                name=tool,
                accepted=Sighting(
                    definition=read_definition(
                        name, {"name": tool, "description": about, "inputSchema": schema}
                    )
                ),
            )
            for tool, about in tools.items()
        },
    )


def started(*argv: str, **more: Any) -> dict[str, Any]:
    return {"name": "one", "command": {"argv": list(argv), **more}}


def test_check_counts_servers_and_names_those_never_seen(home: Path, remit: Remit) -> None:
    other = {"name": "crm", "url": "https://crm.example.com/mcp"}
    put(home, started(PYTHON, "-V"), other, look="Looks.", find="Finds.")
    ended = remit("check")
    assert ended.code == 0, ended.out
    assert "servers: 2 servers, 2 tools of them known; never seen: crm" in ended.out
    assert "warning: the server" not in ended.err


def test_check_says_what_no_run_would_find(home: Path, tmp_path: Path, remit: Remit) -> None:
    (tmp_path / "there" / "bin").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("#!/bin/sh\n")
    (tmp_path / "elsewhere").chmod(0o755)
    (tmp_path / "there" / "bin" / "run").symlink_to(tmp_path / "elsewhere")
    mounts = [{"name": "there", "source": str(tmp_path / "there")}]
    for command, doubt in [
        (started("/usr/bin/no-such-program"), "there is no program /usr/bin/no-such-program here"),
        (started("/mnt/gone/bin/run"), "/mnt/gone/bin/run is below no mount"),
        (started("/opt/server/run"), "/opt/server/run is below no mount"),
        (started("/usr/bin/npx", "-y", "x"), "npx fetches a program at each start"),
        (
            started("/mnt/there/bin/run", mounts=mounts),
            f"the program {tmp_path}/there/bin/run is a link to {tmp_path}/elsewhere",
        ),
        (started("/mnt/there/bin/none", mounts=mounts), "there is no program"),
        (started(PYTHON, str(tmp_path)), f"{tmp_path} is below no mount"),
        (started(PYTHON, env={"PLACE": "${HOME}"}), "PLACE is taken word by word"),
    ]:
        put(home, command)
        ended = remit("check")
        assert ended.code == 0, ended.out
        assert f"warning: the server one: {doubt}" in ended.err


@pytest.mark.threat("T-33")
def test_check_says_where_a_secret_seems_to_stand_and_shows_nothing_of_it(
    home: Path, remit: Remit
) -> None:
    secret = "ghp_" + "Zx81Qw" * 6
    put(home, started(PYTHON, "--token", secret, env={"GITHUB_TOKEN": secret}))
    ended = remit("check")
    assert "argv[2] looks like a secret" in ended.err
    assert "GITHUB_TOKEN looks like a secret" in ended.err
    assert secret not in ended.out + ended.err


@pytest.mark.parametrize("written", ["lok", "one_look"])
def test_check_names_the_tool_that_was_meant(home: Path, remit: Remit, written: str) -> None:
    server = {**started(PYTHON), "tools": [{"name": written, "effect": "read"}]}
    put(home, server, look="Looks.")
    ended = remit("check")
    assert f"the server one has no tool {written}; did you mean look?" in ended.err


def test_nothing_is_said_of_the_tools_of_a_server_that_was_never_seen(
    home: Path, remit: Remit
) -> None:
    put(home, {**started(PYTHON), "tools": [{"name": "look", "effect": "read"}]})
    assert "has no tool" not in remit("check").err


@pytest.mark.threat("T-44")
def test_check_says_where_whose_a_name_is_depends_on_who_is_seen_first(
    home: Path, remit: Remit
) -> None:
    said = "warning: one, two are servers without a prefix, and never seen of them: two;"
    one, two = ({**started(PYTHON), "name": name, "prefix": ""} for name in ("one", "two"))
    put(home, one, two, look="Looks.")
    assert said in remit("check").err
    for other in ({"prefix": "two"}, {"unlisted": "hide", "tools": [{"name": "look"}]}):
        put(home, one, {**two, **other}, look="Looks.")
        assert "without a prefix" not in remit("check").err


def test_check_names_what_was_kept_of_a_server_and_is_damaged(home: Path, remit: Remit) -> None:
    put(home, started(PYTHON), look="Looks.")
    (home / ".remit" / "servers" / "pins" / "one.json").write_text("{")
    ended = remit("check")
    assert ended.code == 2
    assert "fail  servers" in ended.out


def test_tools_check_knows_the_tools_of_servers(home: Path, remit: Remit) -> None:
    put(home, started(PYTHON, "-V"), look="Looks.")
    assert "ok  one_look" in remit("tools", "check").out
    asked = ("tools", "check", "one_look", "--arguments")
    ended = remit(*asked, '{"city": "Bonn"}')
    assert ended.code == 0, ended.err
    assert 'one is asked for look with {"city": "Bonn"}' in ended.out
    assert remit(*asked, '{"town": "Bonn"}').code == 1
    seen = json.loads(remit(*asked, '{"city": "Bonn"}', "-o", "json").out)
    assert (seen["server"], seen["tool"]) == ("one", "look")


def test_a_list_of_one_servers_tools_speaks_of_no_other(home: Path, remit: Remit) -> None:
    put(home, started(PYTHON), {"name": "crm", "url": "https://crm.example.com/mcp"}, look="Looks.")
    assert "crm" in remit("tools", "list").err
    assert "crm" not in remit("tools", "list", "--server", "one").err
