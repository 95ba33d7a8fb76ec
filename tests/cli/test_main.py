"""The root: help without imports, errors without tracebacks, exit codes that mean one thing."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from remit import __version__
from remit.cli.main import COMMANDS, cli
from remit.cli.output import Exit, away, block, clock, exit_of, table
from remit.errors import (
    Code,
    ConfigError,
    LedgerFault,
    NotFound,
    PolicyFault,
    Refused,
    RemitError,
    RunnerFault,
    Unverified,
)
from tests.cli.conftest import Remit
from tests.cli.reference import MARK, PAGE, reference


def test_help_names_every_command_and_the_exit_codes(remit: Remit) -> None:
    ended = remit("--help")
    assert ended.code == 0
    assert all(name in ended.out for name in COMMANDS)
    assert "4 waiting for approval" in " ".join(ended.out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_line_in_the_help_is_the_commands_own(name: str) -> None:
    command = cli.commands[name]
    assert isinstance(command, click.Command)
    assert str(command.help).split("\n")[0] == COMMANDS[name]


def test_help_and_version_load_no_engine_and_no_server() -> None:
    script = (
        "import sys; from remit.cli.main import run; run(['--help']); run(['approvals', '--help'])\n"
        "heavy = {'mcp', 'uvicorn', 'starlette', 'sqlalchemy', 'pydantic', 'jsonschema'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_module_runs_as_the_script_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "remit", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"remit {__version__}\n")


@pytest.mark.parametrize(
    "words", [["nope"], ["--nope"], ["runs", "show"], ["runs", "list", "-o", "x"]]
)
def test_wrong_usage_ends_2_and_says_why_on_stderr(remit: Remit, words: list[str]) -> None:
    ended = remit(*words)
    assert (ended.code, ended.out) == (2, "")
    assert "Error" in ended.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(Code.POLICY_DENIED, "x"), Exit.NO),
        (Refused(Code.APPROVAL_REQUIRED, "x"), Exit.WAITING),
        (NotFound(Code.NOT_FOUND, "x"), Exit.NO),
        (Unverified(Code.LOG_TAMPERED, "x"), Exit.NO),
        (ConfigError(Code.CONFIG_INVALID, "x"), Exit.USAGE),
        (ConfigError(Code.ADDRESS_REFUSED, "x"), Exit.USAGE),
        (RemitError(Code.SERVER_UNREACHABLE, "x"), Exit.UNKNOWN),
        (PolicyFault(Code.POLICY_UNAVAILABLE, "x"), Exit.UNKNOWN),
        (RunnerFault(Code.RUNNER_UNAVAILABLE, "x"), Exit.UNKNOWN),
        (LedgerFault(Code.LEDGER_UNAVAILABLE, "x"), Exit.UNKNOWN),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_exit_code_says_which_kind_of_ending_it_was(error: RemitError, code: Exit) -> None:
    assert exit_of(error) is code


def test_missing_configuration_is_an_error_with_code_place_and_hint(
    remit: Remit, tmp_path: object
) -> None:
    ended = remit("--config", f"{tmp_path}/none.yaml", "tools", "list")
    assert ended.code == 2
    assert ended.err.startswith("error[config_not_found]: ")
    assert f"  at {tmp_path}/none.yaml\n" in ended.err
    assert "  hint: `remit init`" in ended.err


@pytest.mark.threat("T-23")
def test_foreign_text_cannot_leave_its_block_or_its_cell() -> None:
    assert block("a\x1b[2J\rb\nc") == "  | a\\u{1b}[2J\\u{d}b\n  | c"
    assert table(["A"], [["x\ny\u202e"]]) == "A\nx\\ny\\u{202e}"


def test_times_are_said_in_words() -> None:
    assert clock(0) == "1970-01-01T00:00:00Z"
    assert [away(t, 0) for t in (999, 59_000, 3_600_000)] == ["in 0 s", "in 59 s", "in 1 h"]
    assert away(0, 120_000) == "2 min ago"


def test_reference_page_is_the_commands_own() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(MARK) :] == reference(), "run: python -m tests.cli.reference"
