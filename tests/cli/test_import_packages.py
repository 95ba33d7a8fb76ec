"""Servers that a package runner would fetch are installed once, at a version that is shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.cli.imports.packages import install_package
from remit.errors import ConfigError
from remit.upstreams.found import FoundServer, Kind, Place
from remit.upstreams.launcher import Launch, launch_of
from tests.cli.conftest import Remit
from tests.cli.registry import registry
from tests.cli.test_import import SERVER, claude, everything, project, written
from tests.runners.fixtures import reachable

__all__ = ["project", "reachable"]

PYTHON = "def main():\n" + "".join(f"    {line}\n" for line in SERVER.strip().splitlines())
NODE = """#!/usr/bin/env node
const {createInterface} = require("readline");
const tools = [{name: "look", description: "Looks.", inputSchema: {type: "object"}}];
createInterface({input: process.stdin}).on("line", line => {
  const {id, method} = JSON.parse(line);
  if (id === undefined) return;
  const answer = {jsonrpc: "2.0", id};
  if (method === "initialize") answer.result = {protocolVersion: "2025-11-25",
    capabilities: {tools: {}}, serverInfo: {name: "small", version: "1"}};
  else if (method === "tools/list") answer.result = {tools};
  else answer.error = {code: -32601, message: "unknown"};
  console.log(JSON.stringify(answer));
});
"""


@pytest.fixture
def packages(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """npm and pip ask a registry of this test's own, and keep nothing elsewhere."""
    with registry(NODE, PYTHON) as address:
        for name, value in {
            "npm_config_registry": address,
            "npm_config_cache": str(project.parent / "npm"),
            "npm_config_update_notifier": "false",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{address}/simple/",
            "PIP_NO_CACHE_DIR": "1",
        }.items():
            monkeypatch.setenv(name, value)
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
            monkeypatch.delenv(name, raising=False)
        yield address


def server() -> FoundServer:
    place = Place(file="a file", path="f.json", pointer="/mcpServers/x")
    return FoundServer(name="x", kind=Kind.STDIO, place=place)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("npx -y @own/small /data", ("npm", "@own/small", None, None, 3)),
        ("npx @own/small@1.0.0", ("npm", "@own/small", "1.0.0", None, 2)),
        ("npx.cmd --yes small@latest -x", ("npm", "small", None, None, 3)),
        ("npx -p @own/small small -x", ("npm", "@own/small", None, "small", 4)),
        ("npx --package=@own/small@1.0.0-rc.1 -- small", ("npm", "@own/small", "1.0.0-rc.1", "small", 4)),
        ("bunx small", ("npm", "small", None, None, 2)),
        ("uvx own-small --root .", ("pypi", "own-small", None, None, 2)),
        ("/opt/bin/uvx own-small@1.2.0", ("pypi", "own-small", "1.2.0", None, 2)),
        ("uvx --from own-small==1.2.0 prog -v", ("pypi", "own-small", "1.2.0", "prog", 4)),
        ("uv tool run own-small", ("pypi", "own-small", None, None, 4)),
        ("pipx run --spec own-small prog", ("pypi", "own-small", None, "prog", 5)),
    ],
)  # fmt: skip
def test_which_package_a_command_line_fetches(words: str, expected: tuple[object, ...]) -> None:
    found = launch_of(server(), words.split())
    assert found is not None
    assert (found.kind, found.package, found.version, found.program, found.rest) == expected


@pytest.mark.parametrize(
    "words",
    [
        "npx", "npx -y", "npx -c evil", "npx small@^1", "npx small@next", "npx git+ssh://x/y",
        "npx ./local", "npx -p a -p b c --call", "npx http://x.example/a.tgz", "uvx own-small>=1",
        "uvx own-small[extra]", "uvx --with other own-small", "uvx --index-url http://x y",
        "uv tool run", "uv run server.py", "yarn dlx x", "npm exec x", "deno run x", "docker run x",
    ],
)  # fmt: skip
def test_what_is_fetched_in_another_way_is_refused(words: str) -> None:
    with pytest.raises(ConfigError) as told:
        launch_of(server(), words.split())
    assert told.value.hint


def test_a_program_of_this_machine_fetches_nothing() -> None:
    for words in ("/usr/bin/git status", "python3 -m server", "node x.js", "uv pip list"):
        assert launch_of(server(), words.split()) is None


@pytest.mark.slow
@pytest.mark.needs("npm", "userns", "bwrap")
def test_an_npm_package_is_installed_without_running_anything_of_it(
    project: Path, reachable: Path, packages: str, remit: Remit
) -> None:
    claude(project / ".mcp.json", small={"command": "npx", "args": ["-y", "@own/small", "--x"]})
    root = reachable / "gateway"
    assert remit("init", root).code == 0
    before = everything(reachable)
    ended = remit("init", root, "--import", ".mcp.json", "--install")
    assert ended.code == 0, ended.err
    assert "installed @own/small 1.2.0" in ended.err
    assert "1 tool pinned" in ended.out
    here = root / ".remit-servers" / "small"
    assert not list(here.rglob("ran-at-installation"))
    lock = json.loads((here / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/@own/small"]["integrity"].startswith("sha512-")
    (server,) = written(root).values()
    assert server.command.argv[1:] == ["/mnt/small/node_modules/@own/small/small.js", "--x"]
    assert remit("init", root, "--undo").code == 0
    assert everything(reachable) == before


@pytest.mark.slow
@pytest.mark.needs("venv", "userns", "bwrap")
def test_a_python_package_is_installed_at_the_version_that_was_asked_for(
    project: Path, reachable: Path, packages: str, remit: Remit
) -> None:
    claude(project / ".mcp.json", small={"command": "uvx", "args": ["own-small@1.0.0", "--x"]})
    root = reachable / "gateway"
    ended = remit("init", root, "--import", ".mcp.json", "--install")
    assert ended.code == 0, ended.err
    assert "installed own-small 1.0.0" in ended.err
    assert "4 tools pinned" in ended.out
    (server,) = written(root).values()
    assert server.command.argv == ["/mnt/small/bin/python", "/mnt/small/bin/own-small", "--x"]
    lock = json.loads((root / ".remit-servers/small/remit-lock.json").read_text())
    (one,) = lock["install"]
    assert one["download_info"]["archive_info"]["hashes"]["sha256"]


@pytest.mark.slow
@pytest.mark.needs("npm")
def test_what_was_installed_for_a_server_that_is_not_taken_is_removed(
    project: Path, reachable: Path, packages: str, remit: Remit
) -> None:
    root = reachable / "gateway"
    assert remit("init", root).code == 0
    claude(
        project / ".mcp.json",
        small={"command": "npx", "args": ["-y", "@own/small", str(root)]},
    )
    ended = remit("init", root, "--import", ".mcp.json", "--install")
    assert ended.code == 1
    assert "Remit's own keys" in ended.err
    assert not list((root / ".remit-servers").iterdir())


@pytest.mark.slow
@pytest.mark.needs("npm", "venv")
@pytest.mark.parametrize(
    ("kind", "package", "version", "program"),
    [
        ("npm", "@own/small", "7.7.7", None),
        ("npm", "@own/none", None, None),
        ("npm", "@own/small", None, "other"),
        ("pypi", "own-small", "9", None),
        ("pypi", "own-small", None, "../../x"),
    ],
)
def test_an_installation_that_fails_leaves_nothing(
    project: Path, packages: str, kind: str, package: str, version: str, program: str
) -> None:
    launch = Launch(kind=kind, package=package, version=version, program=program, rest=1)  # type: ignore[arg-type]  # a str of the table
    with pytest.raises(ConfigError, match="could not install"):
        install_package(launch, project / "here" / "small")
    assert not (project / "here" / "small").exists()
