"""`catalog.servers`: what is wrong is told with its place before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remit.config import Settings, examine
from remit.errors import ConfigError
from remit.model import SessionMode

ARGV = {"argv": ["/usr/bin/server"]}
STATIC: dict[str, Any] = {
    "broker": "static",
    "secret": "env:X",
    "file": {"name": "t", "content": "{token}"},
}
PUT = {"host": "a.example", "port": 443, "header": "Authorization", "value": "{token}"}
INJECTED = {"broker": "static", "secret": "env:X", "inject": [PUT]}


def read(
    folder: Path, *servers: dict[str, Any], **more: Any
) -> tuple[Settings | None, list[ConfigError]]:
    path = folder / "remit.yaml"
    catalog = {"servers": list(servers), "tools": more.pop("tools", [])}
    path.write_text(json.dumps({"catalog": catalog, **more}))
    return examine(path, environ={})


def told(folder: Path, *servers: dict[str, Any], **more: Any) -> list[str]:
    _, problems = read(folder, *servers, **more)
    assert all((each.place or "").startswith(str(folder / "remit.yaml")) for each in problems)
    assert all(each.hint for each in problems)
    return [each.message for each in problems]


def server(name: str = "files", **more: Any) -> dict[str, Any]:
    return {"name": name, **({} if "url" in more else {"command": ARGV}), **more}


def web(**more: Any) -> dict[str, Any]:
    return server("crm", url="https://crm.example/mcp", **more)


def test_servers_are_read_as_they_are_written(tmp_path: Path) -> None:
    settings, problems = read(
        tmp_path,
        server(session="per_caller", tools=[{"name": "read", "effect": "read", "alias": "look"}]),
        web(),
        server("local", url="http://127.0.0.1:8123/mcp", sse=True),
        server("git", prefix="", egress=[{"host": "a.example", "port": 443}]),
    )
    assert problems == []
    assert settings is not None
    assert [each.name for each in settings.servers] == ["files", "crm", "local", "git"]
    assert settings.servers[0].session is SessionMode.PER_CALLER
    assert "unsafe_session_writes" not in settings.unsafe()


AT = "catalog.servers[0]"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"name": "a"}, f"{AT} needs either command or url"),
        ({**web(), "command": ARGV}, f"{AT} needs either command or url"),
        (web(runner="strong"), f"{AT}.runner is for servers with a command"),
        (web(session="shared"), f"{AT}.session is for servers with a command"),
        (web(egress=[]), f"{AT}.egress is for servers with a command"),
        (web(credentials=[]), f"{AT}.credentials is for servers with a command"),
        (web(session_limit=2), f"{AT}.session_limit is for servers with a command"),
        (server(list_age_s=3), f"{AT}.list_age_s is for servers with a url"),
        (server(sse=True), f"{AT}.sse is for servers with a url"),
        (server(authorization="crm"), f"{AT}.authorization is for servers with a url"),
        (server(header="X-Api-Key: {token}"), f"{AT}.header is for servers with a url"),
        (web(header="X-Api-Key: {token}"), f"{AT}.header is for the credential that the server"),
        (web(header="Cookie: {token}"), f"{AT}.header would set Cookie"),
        (server(url="http://crm.example/mcp"), f"{AT}.url is neither https, nor http to this"),
        (server(url="ftp://crm.example/mcp"), f"{AT}.url is neither https"),
        (server(url="crm.example/mcp"), f"{AT}.url does not begin with https://"),
        (server(url="https//crm.example/mcp"), f"{AT}.url does not begin with https://"),
        (server(url="https://u:p@crm.example/mcp"), f"{AT}.url has to have a host, and no user"),
        (server(url="https://crm.example/mcp#a"), f"{AT}.url may have no query and no fragment"),
        (server(url="https://169.254.169.254/mcp"), f"{AT}.url is a metadata service"),
        (server(url="https://crm_a.example/mcp"), f"{AT}.url has a host that could be read"),
        (server(command={"argv": ["server"]}), f"{AT}.command.argv[0] the program must be"),
        (
            server(command={**ARGV, "env": {"REMIT_A": "1"}}),
            f"{AT}.command.env.REMIT_A names beginning with REMIT_",
        ),
        (
            server(command={**ARGV, "mounts": [{"name": "a", "source": "/etc"}]}),
            f"{AT}.command.mounts[0] this directory would undo",
        ),
        (server(egress=[{"host": "*.a", "port": 443}]), f"{AT}.egress[0].host the host is not"),
        (
            server(session="shared", credentials=[{"ref": "crm"}]),
            f"{AT}.session keeps a process for all callers",
        ),
        (server(unsafe_session_writes=True), f"{AT}.unsafe_session_writes is set, and there is no"),
        (server(runner="strong"), f"{AT} names a runner profile that is not there"),
        (server(credentials=[{"ref": "crm"}]), f"{AT} names the credential crm, which is not"),
        (web(authorization="crm"), f"{AT} names the credential crm, which is not there"),
        (server(prefix="remit"), f"{AT}.prefix makes names that begin with remit_"),
        (server(prefix="Remit"), f"{AT}.prefix makes names that begin with remit_"),
        (server("remit"), f"{AT}.prefix makes names that begin with remit_"),
        (server(environment={}), f"{AT}.environment needs either fixed or argument"),
        (
            server(tools=[{"name": "a", "environment": {"fixed": "a", "argument": "b"}}]),
            f"{AT}.tools[0].environment needs either fixed or argument",
        ),
        (server(tools=[{"name": "a"}, {"name": "a"}]), f"{AT}.tools[1].name is there twice"),
        (
            server(tools=[{"name": "a", "alias": "remit-b"}]),
            f"{AT}.tools[0].alias begins with remit_",
        ),
        (
            server(tools=[{"name": "a", "alias": "b_c"}, {"name": "b", "alias": "B-c"}]),
            f"{AT}.tools[1].alias is the name of the alias b_c",
        ),
        (
            server(tools=[{"name": "a", "shadow": True}]),
            f"{AT}.tools[0].shadow is set, and the server is not in shadow mode",
        ),
    ],
)
def test_what_is_wrong_with_a_server_is_told(
    tmp_path: Path, written: dict[str, Any], said: str
) -> None:
    found = told(tmp_path, written)
    assert any(each.startswith(said) for each in found), found


@pytest.mark.threat("T-44")
@pytest.mark.parametrize(
    ("second", "said"),
    [
        (server(), "catalog.servers[1].name is another server's"),
        (server("b", prefix="Files"), "catalog.servers[1].prefix is the prefix of files"),
        (
            server("b", tools=[{"name": "x", "alias": "say"}]),
            "catalog.servers[1].tools[0].alias is the name of the command tool say",
        ),
    ],
)
def test_names_that_would_be_taken_for_each_other_are_told(
    tmp_path: Path, second: dict[str, Any], said: str
) -> None:
    say = {
        "name": "say",
        "description": "Says it.",
        "command": {"argv": ["/bin/true"]},
        "effect": "read",
    }
    found = told(tmp_path, server(), second, tools=[say])
    assert any(each.startswith(said) for each in found), found


def test_two_servers_without_a_prefix_are_no_fault(tmp_path: Path) -> None:
    assert told(tmp_path, server("a", prefix=""), server("b", prefix="")) == []


def test_the_name_of_calls_over_http_is_no_profile_of_a_file(tmp_path: Path) -> None:
    found = told(tmp_path, runners={"profiles": {"http": {}}})
    assert found == ["runners.profiles.http is the name of calls to MCP servers over HTTP"]
    assert told(tmp_path, server(runner="http")) != []


@pytest.mark.threat("T-33")
def test_a_token_for_a_server_at_a_url_has_to_be_shown_by_remit_itself(tmp_path: Path) -> None:
    lent: dict[str, Any] = {"runners": {"credentials": {"crm": STATIC}}}
    assert told(tmp_path, web(authorization="crm"), **lent) == []
    lent = {"runners": {"credentials": {"crm": INJECTED}}}
    found = told(tmp_path, web(authorization="crm"), **lent)
    assert any(each.startswith(f"{AT}.authorization is injected") for each in found)


@pytest.mark.threat("T-33")
def test_a_process_that_is_kept_is_lent_nothing_in_a_file(tmp_path: Path) -> None:
    where = {"host": "a.example", "port": 443}
    lent: dict[str, Any] = {
        "session": "per_caller",
        "egress": [where],
        "credentials": [{"ref": "crm"}],
    }
    injected: dict[str, Any] = {"runners": {"credentials": {"crm": INJECTED}}}
    assert told(tmp_path, server(**lent), **injected) == []
    found = told(tmp_path, server(**lent), runners={"credentials": {"crm": STATIC}})
    assert any(each.startswith(f"{AT}.session keeps a process, which") for each in found), found


def test_a_tool_that_only_reads_is_in_no_profile_that_lets_it_write(tmp_path: Path) -> None:
    wide = {"mounts": [{"name": "d", "source": "/srv/d", "writable": True}]}
    more = {"runners": {"profiles": {"wide": wide}}}
    assert told(tmp_path, server(runner="wide"), **more) == []
    reads = server(runner="wide", tools=[{"name": "a", "effect": "read"}])
    (found,) = told(tmp_path, reads, **more)
    assert found.startswith(f"{AT} only reads, and every run of the profile wide could write")


@pytest.mark.threat("T-01")
def test_a_server_sees_nothing_of_remits_own(tmp_path: Path) -> None:
    mounts = [{"name": "a", "source": str(tmp_path), "writable": False}]
    (found,) = told(tmp_path, server(command={**ARGV, "mounts": mounts}))
    assert found.startswith(f"{AT}.command.mounts[0].source would give a run Remit's own keys")


def test_unsafe_and_shadowed_servers_are_named_at_start(tmp_path: Path) -> None:
    settings, problems = read(
        tmp_path,
        server(session="shared", unsafe_session_writes=True),
        server("b", mode="shadow", tools=[{"name": "a", "shadow": True}]),
    )
    assert problems == []
    assert settings is not None
    assert "unsafe_session_writes" in settings.unsafe()
    said = settings.warnings()
    assert "unsafe_session_writes is set" in said
    (shadowed,) = (each for each in said if each.startswith("the server b is in shadow mode"))
    assert "its calls run whatever policy says" in shadowed
    assert shadowed.endswith("tools, except a, and those whose effect is not written")


def test_a_server_whose_tools_are_said_to_read_is_wholly_in_shadow_mode(tmp_path: Path) -> None:
    settings, _ = read(tmp_path, server("b", mode="shadow", effect="read"))
    assert settings is not None
    (said,) = settings.warnings()
    assert said.endswith("Still enforced: its destructive tools")


@pytest.mark.parametrize("tools", [[], [{"name": "a"}, {"name": "b", "effect": "destructive"}]])
def test_a_server_none_of_whose_tools_is_in_shadow_mode_is_told_of(
    tmp_path: Path, tools: list[dict[str, Any]]
) -> None:
    settings, _ = read(tmp_path, server("b", mode="shadow", tools=tools))
    assert settings is not None
    (said,) = settings.warnings()
    assert "no tool is in shadow mode" in said
    assert "write `effect`" in said


@pytest.mark.parametrize("program", ["npx", "uvx"])
def test_a_program_that_fetches_another_is_led_to_what_installs_it(
    tmp_path: Path, program: str
) -> None:
    _, (problem,) = read(tmp_path, server(command={"argv": [program, "-y", "small"]}))
    assert "--install" in (problem.hint or "")


@pytest.mark.threat("T-33")
def test_a_token_in_the_place_of_a_handle_is_shown_nowhere(tmp_path: Path) -> None:
    token = "ghp_" + "Zx81Qw" * 6
    _, problems = read(tmp_path, web(authorization=token))
    assert problems
    for problem in problems:
        assert token not in f"{problem.message} {problem.hint} {problem.place}"
    assert "never a secret itself" in (problems[0].hint or "")
