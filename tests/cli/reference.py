"""The reference part of docs/cli.md, made from the commands themselves.

To write it anew: `python -m tests.cli.reference`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from remit.cli.main import cli
from tests.plugins.machine import ROOT

PAGE = ROOT / "docs" / "cli.md"
MARK = "<!-- From here on made by `python -m tests.cli.reference`. -->"


def reference() -> str:
    lines = [MARK]
    for name in cli.list_commands(click.Context(cli)):
        lines += _command(cli.commands[name], f"remit {name}", 2)
    return "\n".join(lines) + "\n"


def _command(command: click.Command, path: str, level: int) -> Iterator[str]:
    words = [path, *_arguments(command)]
    yield from ("", f"{'#' * level} {path}", "", f"`{' '.join(words)}`", "")
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    rows = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if rows:
        yield from ("", "| option | meaning |", "|---|---|")
        for option in rows:
            names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
            yield f"| {names} | {option.help or ''} |"
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _command(command.commands[name], f"{path} {name}", level + 1)


def _arguments(command: click.Command) -> Iterator[str]:
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            yield parameter.make_metavar(context)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(MARK)] + reference(), encoding="utf-8")
