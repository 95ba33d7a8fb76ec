"""How commands print and end: data on stdout, the rest on stderr, exit codes that mean one thing.

What came from outside (arguments, output, names) is printed through `visible`, so that it cannot
move the cursor, colour the terminal or hide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import click

from remit.errors import (
    Code,
    ConfigError,
    LedgerFault,
    PolicyFault,
    RemitError,
    RunnerFault,
    UpstreamFault,
)
from remit.visible import visible

SCHEMA_VERSION = 1


class Exit(IntEnum):
    """What the exit code says; the same sense as `diff` and `grep` give it."""

    YES = 0
    NO = 1
    USAGE = 2
    UNKNOWN = 3
    WAITING = 4


Format = str

output_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    help="How to print.",
)


def exit_of(error: RemitError) -> Exit:
    """The exit code of a command that ended with this error."""
    if error.code is Code.APPROVAL_REQUIRED:
        return Exit.WAITING
    if error.code in (Code.SERVER_UNREACHABLE, Code.INTERNAL):
        return Exit.UNKNOWN
    if isinstance(error, PolicyFault | RunnerFault | LedgerFault | UpstreamFault):
        return Exit.UNKNOWN
    return Exit.USAGE if isinstance(error, ConfigError) else Exit.NO


def print_error(error: RemitError) -> None:
    """An error on stderr: its code and message, where, and what to do next."""
    click.echo(f"error[{error.code}]: {visible(error.message)}", err=True)
    if error.place:
        click.echo(f"  at {visible(error.place)}", err=True)
    if error.hint:
        click.echo(f"  hint: {visible(error.hint)}", err=True)


def note(text: str) -> None:
    """Something for the person, on stderr."""
    click.echo(text, err=True)


def print_one(form: Format, facts: Mapping[str, Any], text: Callable[[], str]) -> None:
    """One thing: as text, or as JSON."""
    if form == "text":
        click.echo(text())
    else:
        indent = 2 if form == "json" else None
        document = {"schema_version": SCHEMA_VERSION, **facts}
        click.echo(json.dumps(document, indent=indent, ensure_ascii=True))


def print_list(
    form: Format,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
) -> None:
    """Several things: a table, one JSON document, or one JSON line each."""
    if form == "json":
        document = {"schema_version": SCHEMA_VERSION, name: list(rows)}
        click.echo(json.dumps(document, indent=2, ensure_ascii=True))
    elif form == "jsonl":
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=True))
    elif rows:
        click.echo(table(list(columns), [[show(row) for show in columns.values()] for row in rows]))
    else:
        note(f"no {name}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    cells = [list(heads), *[[visible(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def block(text: str, mark: str = "  | ") -> str:
    """Text of several lines from outside, each line marked, so that it cannot pose as ours."""
    return "\n".join(mark + visible(line, keep="\t") for line in text.split("\n"))


def clock(ms: int | None) -> str:
    """A time as RFC 3339 in UTC, to the second."""
    if ms is None:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def away(ms: int, now_ms: int) -> str:
    """How far a time is from now, in words."""
    seconds = abs(ms - now_ms) // 1000
    amount = next(
        f"{seconds // size} {unit}"
        for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
        if seconds >= size or size == 1
    )
    return f"in {amount}" if ms >= now_ms else f"{amount} ago"
