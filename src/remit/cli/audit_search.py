"""`remit audit search` and `remit audit show`: entries of the log, over the admin API.

Looking is not verifying: what is printed here is what the gateway says is in its log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from remit.canonical import short
from remit.cli.invocation import admin_options
from remit.cli.output import output_option, print_list, print_one
from remit.doors.client import AdminClient, Json
from remit.visible import visible

FIELDS = {
    "event": "What happened, such as call.intent, decision or approval.voted.",
    "tool": "The tool's name.",
    "caller": "The subject that asked.",
    "run": "The run's id.",
    "call": "The call's id.",
    "decision": "The decision's id.",
    "approval": "The approval's id.",
    "plan": "The whole plan hash.",
    "code": "Why it was refused or how it failed; docs/errors.md lists the codes.",
}
"""Each option with its line in the help."""

_PATHS = {"tool": "tool.name", "caller": "caller.subject", "plan": "plan_hash"}
"""Where in an entry the field stands, if not at the top under the option's name."""


def _field_options(command: Any) -> Any:
    for name, meaning in reversed(FIELDS.items()):
        command = click.option(f"--{name}", metavar="TEXT", help=meaning)(command)
    return command


@click.command()
@_field_options
@click.option(
    "--match", "pairs", metavar="FIELD=VALUE", multiple=True,
    help="Any other public field, with dots into nested ones: policy.revision=sha256:...",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Most to show.")
@output_option
@admin_options
def search(
    client: AdminClient, pairs: tuple[str, ...], limit: int, form: str, **fields: str | None
) -> None:
    """List the newest entries of the log whose fields equal all that is given.

    Ends 0 whether or not there are any.
    """
    match = {_PATHS.get(name, name): value for name, value in fields.items() if value is not None}
    match |= _pairs(pairs)
    print_list(
        form,
        "entries",
        client.entries(match, limit),
        {
            "INDEX": lambda row: str(row["index"]),
            "TIME": lambda row: str(row["entry"].get("time")),
            "EVENT": lambda row: str(row["entry"].get("event")),
            "CALLER": lambda row: _at(row, "caller", "subject"),
            "TOOL": lambda row: _at(row, "tool", "name"),
            "WHAT": _what,
            "RUN": lambda row: _at(row, "run"),
            "PLAN": lambda row: short(_at(row, "plan_hash")),
        },
    )


def _pairs(pairs: tuple[str, ...]) -> Mapping[str, str]:
    match = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise click.UsageError("--match takes FIELD=VALUE")
        match[name] = value
    return match


def _at(row: Mapping[str, Any], *path: str) -> str:
    value: Any = row["entry"]
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return "-" if value is None else str(value)


def _what(row: Mapping[str, Any]) -> str:
    """The one word that says how it went, whatever kind of entry it is."""
    entry = row["entry"]
    found = (entry.get(name) for name in ("code", "state", "vote", "verdict", "as"))
    return next((str(value) for value in found if value), "-")


@click.command()
@click.argument("index", type=click.IntRange(0))
@output_option
@admin_options
def show(client: AdminClient, index: int, form: str) -> None:
    """Show one entry, by its number in the log."""
    found = client.entry(index)
    print_one(form, found, lambda: "\n".join(_lines(found)))


def _lines(found: Json) -> Iterator[str]:
    rows = [("leaf hash", str(found["leaf_hash"])), *_flat(found["entry"], "")]
    width = max(len(name) for name, _ in rows)
    yield f"entry {found['index']}"
    for name, value in rows:
        yield f"  {visible(name):<{width}}  {visible(value)}"


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Each field with its dotted name; a list of plain values on one line."""
    match value:
        case dict():
            for key, child in value.items():
                yield from _flat(child, f"{name}.{key}" if name else str(key))
        case list() if any(isinstance(child, dict | list) for child in value):
            for number, child in enumerate(value):
                yield from _flat(child, f"{name}.{number}")
        case list():
            yield name, ", ".join(map(str, value)) or "-"
        case None:
            return
        case _:
            yield name, str(value)
