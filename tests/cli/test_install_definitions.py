"""`remit init --install`: what definitions of remit.yaml name is installed once, and then starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.cli.imports.discovery import look
from remit.config import load
from tests.cli.conftest import Remit
from tests.cli.test_import import project
from tests.cli.test_import_packages import packages
from tests.config.test_definitions import HEAD, NPM
from tests.runners.fixtures import reachable

__all__ = ["packages", "project", "reachable"]

PYPI = NPM | {"registryType": "pypi", "identifier": "own-small"}


def gateway(root: Path, remit: Remit, servers: list[dict[str, Any]], **documents: Any) -> Path:
    assert remit("init", root).code == 0
    for name, package in documents.items():
        (root / f"{name}.json").write_text(json.dumps(HEAD | {"packages": [package]}))
    file = root / "remit.yaml"
    content = yaml.safe_load(file.read_text())
    content["catalog"]["servers"] = servers
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.slow
@pytest.mark.needs("npm", "venv", "userns", "bwrap")
def test_what_definitions_name_is_installed_once_and_starts_in_a_sandbox(
    reachable: Path, packages: str, remit: Remit
) -> None:
    servers = [
        {"name": "one", "definition": "npm.json"},
        {"name": "two", "definition": "pypi.json"},
    ]
    file = gateway(reachable / "gateway", remit, servers, npm=NPM, pypi=PYPI)
    ended = remit("--config", file, "check")
    assert ended.code == 2
    assert "install it once: remit init --install" in ended.out
    ended = remit("init", file.parent, "--install")
    assert ended.code == 0, ended.err
    assert "installed @own/small 1.0.0 for one, in .remit-servers/one" in ended.out
    assert "installed own-small 1.0.0 for two, in .remit-servers/two" in ended.out
    assert remit("--config", file, "check").code == 0
    again = remit("init", file.parent, "--install")
    assert "is installed already" in again.err
    assert again.code == 0
    specs = load(file).servers
    assert [spec.definition is not None for spec in specs] == [True, True]
    entries = [
        spec.model_dump(mode="json", include={"name", "command"}, exclude_none=True)
        for spec in specs
    ]
    seen = look(load(file), entries)
    assert {name: one.why for name, one in seen.items()} == {"one": None, "two": None}
    assert all(one.tools for one in seen.values())


@pytest.mark.slow
@pytest.mark.needs("npm", "venv")
def test_one_that_cannot_be_installed_costs_the_others_nothing(
    project: Path, packages: str, remit: Remit
) -> None:
    servers = [
        {"name": "lost", "definition": "absent.json"},
        {"name": "one", "definition": "npm.json"},
        {"name": "two", "definition": "pypi.json"},
    ]
    file = gateway(project / "gateway", remit, servers, npm=NPM | {"version": "7.7.7"}, pypi=PYPI)
    ended = remit("init", file.parent, "--install")
    assert ended.code == 1
    assert "absent.json is no file" in ended.err
    assert "could not install @own/small (npm, 7.7.7)" in ended.err
    assert "installed own-small" in ended.out
    left = sorted(each.name for each in (file.parent / ".remit-servers").iterdir())
    assert left == ["two"]


def test_nothing_is_installed_where_no_definition_names_a_package(
    project: Path, remit: Remit
) -> None:
    assert "config_not_found" in remit("init", project / "none", "--install").err
    file = gateway(project / "gateway", remit, [])
    ended = remit("init", file.parent, "--install")
    assert ended.code == 0
    assert "no definition of remit.yaml names a package" in ended.err
    assert remit("init", file.parent, "--install", "--undo").code == 2


def test_a_directory_that_is_something_else_is_left_alone(project: Path, remit: Remit) -> None:
    file = gateway(project / "gateway", remit, [{"name": "one", "definition": "npm.json"}], npm=NPM)
    kept = file.parent / ".remit-servers" / "one" / "mine"
    kept.mkdir(parents=True)
    ended = remit("init", file.parent, "--install")
    assert ended.code == 1
    assert "where something else is" in ended.err
    assert kept.is_dir()
