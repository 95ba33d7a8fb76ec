"""The `remit` command: finds the subcommand, loads only its module, and turns errors into words.

A command's module is imported when the command is used, so that `remit --help` and small commands
start quickly.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import click

from remit import __version__
from remit.cli.invocation import Invocation
from remit.cli.output import Exit, exit_of, print_error
from remit.errors import RemitError

INTERRUPTED = 130

COMMANDS = {
    "init": "Write a configuration, a starter policy and keys.",
    "serve": "Serve agents (MCP) and operators (admin API) until interrupted.",
    "check": "Check configuration, tools and policy without starting anything.",
    "doctor": "Check this machine, and try to get out of each profile; each finding with its fix.",
    "demo": "Play the whole path once: a real agent's client, a real repository, real sandboxes.",
    "connect": "Speak MCP over standard input and output, and HTTP to the gateway.",
    "tools": "The tools of the catalog.",
    "policy": "Check and test a policy, and ask it what the gateway would ask.",
    "approvals": "Requests for people to agree, and your answer to them.",
    "consents": "What people let Remit do for them at MCP servers, and ending it.",
    "runs": "What ran, what it printed, and what became of it.",
    "audit": "Verify, search and export the log.",
    "config": "The settings in force, their schema, and new keys.",
}
"""Every command with its line in `remit --help`, in the order of a newcomer's way."""


class _Lazy(MutableMapping[str, click.Command]):
    """The commands by name; each is imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in COMMANDS:
            raise KeyError(name)
        command = getattr(importlib.import_module(f"remit.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __setitem__(self, name: str, _: click.Command) -> None:
        raise TypeError("commands are listed in COMMANDS")

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are listed in COMMANDS")


class _Root(click.Group):
    """Lists the commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Root, commands=_Lazy(), context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="REMIT_CONFIG",
    default="remit.yaml",
    show_default=True,
    help="The configuration file.",
)
@click.version_option(__version__, prog_name="remit", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: Path) -> None:
    """A gateway between AI agents and the systems they act on.

    Exit codes: 0 yes or done, 1 no, 2 wrong usage or configuration, 3 could not find out,
    4 waiting for approval.
    """
    ctx.obj = Invocation(config)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and give its exit code; no traceback for what Remit raises itself."""
    try:
        ended: Any = cli.main(arguments, prog_name="remit", standalone_mode=False)
    except RemitError as error:
        print_error(error)
        return exit_of(error)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; let the interpreter's last flush go nowhere too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.NO
    return ended if isinstance(ended, int) else Exit.YES


def main() -> None:
    """The entry point of the `remit` script."""
    sys.exit(run())
