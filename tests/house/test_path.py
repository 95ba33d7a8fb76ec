"""The request path is one function: what only it may do is done nowhere else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from tests.house.source import DOCS, SRC, called, calls, modules, name, tree
from tests.plugins.machine import ROOT

LEDGER, TESTING, RUNNERS = "src/remit/ledger/", "src/remit/testing/", "src/remit/runners/"


def _callers(*names: str) -> set[str]:
    return {where for where, node in calls("src/") if called(node)[1] in names}


def _outside(found: set[str], *allowed: str) -> set[str]:
    return {where for where in found if not where.startswith(allowed)}


def test_imports_point_down_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_architecture_page_draws_the_levels_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (levels,) = (
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```\n(cli .*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    drawn = [re.split(r"  +", line)[0].split(" · ") for line in block.splitlines()]
    assert drawn == [level.split(" | ") for level in levels]


@pytest.mark.threat("T-14")
def test_only_the_ledger_makes_a_grant() -> None:
    found = _callers("Grant")
    assert any(where.startswith(LEDGER) for where in found)
    assert _outside(found, LEDGER, TESTING) == set()


@pytest.mark.threat("T-12")
def test_only_the_oblige_stage_says_that_obligations_are_met() -> None:
    assert _callers("Obliged") == {"src/remit/stages/oblige.py"}


@pytest.mark.threat("T-14")
def test_only_the_commit_stage_commits_an_intent() -> None:
    found = _callers("commit_intent")
    assert "src/remit/stages/commit.py" in found
    assert _outside(found, "src/remit/stages/commit.py", LEDGER, TESTING) == set()


@pytest.mark.threat("T-14")
def test_only_the_execute_stage_provisions_and_starts_a_runner() -> None:
    starts = {
        where
        for where, node in calls("src/")
        if called(node)[1] == "provision"
        or (called(node)[1] == "start" and called(node)[0].strip("_") == "runner")
    }
    assert "src/remit/stages/execute.py" in starts
    # An operator's trial of the operator's own preview (`remit tools check`) is no call.
    trial = "src/remit/toolcheck.py"
    # The runner of calls of MCP servers is a runner around one, and only hands on.
    around = "src/remit/upstreams/"
    # Asking a server what tools it has, or hearing what it tells, is no call: it has no caller and
    # no argument, and a credential only where the operator's `unsafe_look` says so.
    looked = "src/remit/servers/asking.py"
    heard = "src/remit/servers/hearing.py"
    given = (trial, around, looked, heard, RUNNERS, TESTING)
    assert _outside(starts, "src/remit/stages/execute.py", *given) == set()


@pytest.mark.threat("T-14")
def test_only_the_command_line_tries_out_a_preview() -> None:
    users = {
        name(path)
        for path in modules("src/")
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.ImportFrom) and node.module == "remit.toolcheck")
        or (isinstance(node, ast.Import) and any(a.name == "remit.toolcheck" for a in node.names))
    }
    assert users == {"src/remit/cli/tools.py"}


def test_no_middleware_carries_a_decision() -> None:
    found = set()
    for path in modules("src/"):
        for node in ast.walk(tree(path)):
            match node:
                case ast.ImportFrom(module=str(module)) if module.startswith(
                    "starlette.middleware"
                ):
                    found.add(name(path))
                case ast.Name(id="BaseHTTPMiddleware") | ast.Attribute(attr="add_middleware"):
                    found.add(name(path))
                case ast.keyword(arg="middleware"):
                    found.add(name(path))
    assert found == set()


@pytest.mark.threat("T-11")
def test_nothing_is_ever_given_to_a_shell() -> None:
    forbidden = {("os", "system"), ("os", "popen"), ("subprocess", "getoutput")}
    forbidden |= {("subprocess", "getstatusoutput"), ("asyncio", "create_subprocess_shell")}
    found = {
        (where, node.lineno)
        for where, node in calls("src/", "tests/", "bench/")
        if called(node) in forbidden
        or any(
            word.arg == "shell"
            and not (isinstance(word.value, ast.Constant) and not word.value.value)
            for word in node.keywords
            if called(node) != ("", "Warm")  # whose `shell` is a number of slots
        )
    }
    assert found == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert (SRC / "py.typed").is_file()
