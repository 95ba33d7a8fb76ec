"""`remit runs`: what ran, what it printed, and what became of it, over the admin API."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from remit.canonical import short
from remit.cli.invocation import admin_options
from remit.cli.output import clock, output_option, print_list, print_one
from remit.cli.run_output import follow_run, print_files, print_stored
from remit.cli.run_record import RECORDED, recorded
from remit.doors.client import AdminClient
from remit.errors import Code, RemitError
from remit.model import RunState
from remit.visible import visible

_STATES = click.Choice([state.value for state in RunState])


@click.group()
def runs() -> None:
    """What ran, what it printed, and what became of it."""


@runs.command("list")
@click.option("--state", type=_STATES, help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Most to show.")
@output_option
@admin_options
def list_runs(client: AdminClient, state: str | None, limit: int, form: str) -> None:
    """List runs, newest first."""
    print_list(
        form,
        "runs",
        client.runs(state, limit),
        {
            "ID": lambda row: str(row["id"]),
            "KIND": lambda row: str(row["kind"]),
            "STATE": lambda row: str(row["state"]),
            "TOOL": lambda row: str(row["tool"]),
            "ENVIRONMENT": lambda row: str(row["environment"] or "-"),
            "FOR": lambda row: str(row["subject"]),
            "PLAN": lambda row: short(row["plan_hash"]),
            "TOOK": lambda row: "-" if row["wall_ms"] is None else f"{row['wall_ms']} ms",
        },
    )


@runs.command()
@click.argument("run_id", metavar="ID")
@output_option
@admin_options
def show(client: AdminClient, run_id: str, form: str) -> None:
    """Show one run, and what the log says of its end.

    That is where it ran, where it went, what it was lent, and what was seen gone when it was over.
    """
    found = client.run(run_id)
    at = found["outcome_index"]
    entry = {} if at is None else client.entry(at)["entry"]
    told = {key: entry[key] for key in RECORDED if key in entry}
    intent = client.entry(found["intent_index"])["entry"]
    if "enforced" in intent:
        found |= {"enforced": intent["enforced"], "verdict": intent["verdict"]}
    print_one(form, {**found, **told}, lambda: "\n".join([_text(found), *recorded(told)]))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(run: dict[str, Any]) -> str:
    lines = []
    for name, value in run.items():
        if value is not None:
            moment = name.endswith("_ms") and name != "wall_ms"
            label = name.removesuffix("_ms") if moment else name
            shown = clock(value) if moment else _plain(value)
            lines.append(f"{label + ':':<18}{visible(shown)}")
    return "\n".join(lines)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--stderr", "channel", flag_value="stderr", help="What it wrote to standard error.")
@click.option(
    "--stdout", "channel", flag_value="stdout",
    help="What it wrote to standard output (this is what you get if you say nothing).",
)  # fmt: skip
@click.option(
    "-f", "--follow", is_flag=True,
    help="While it runs, print what it writes as it comes: both channels, each to its own.",
)  # fmt: skip
@output_option
@admin_options
def logs(client: AdminClient, run_id: str, channel: str | None, follow: bool, form: str) -> None:
    """Print what a run wrote, as far as it is kept, or what it writes.

    To a terminal, control characters are shown as escapes; to a file or pipe, the bytes are exact.
    """
    if follow:
        follow_run(client, run_id, channel, form)
    else:
        print_stored(client.run_output(run_id), channel or "stdout", form)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.argument("path", required=False)
@click.option(
    "-o", "--output", "target", metavar="FILE", type=click.Path(path_type=Path),
    help="Where the file is written; to standard output if you say nothing.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="List them as JSON.")
@admin_options
def files(
    client: AdminClient, run_id: str, path: str | None, target: Path | None, as_json: bool
) -> None:
    """List the files that a run left, or get one of them.

    A file that exists is not replaced. The bytes are checked against the digest in the record.
    """
    listed = client.files(run_id)
    if path is None:
        print_files(listed, as_json=as_json)
        return
    data = client.file(run_id, path)
    wanted = next((each["digest"] for each in listed if each["path"] == path), None)
    if wanted != "sha256:" + hashlib.sha256(data).hexdigest():
        raise RemitError(Code.LOG_TAMPERED, "the file is not the one that the record names")
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        with target.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise click.UsageError(f"{target}: {error.strerror}") from None


@runs.command()
@click.argument("run_id", metavar="ID")
@click.option("--succeeded/--failed", default=None, help="What you found out.")
@click.option("--note", required=True, help="How you know; it goes into the log.")
@output_option
@admin_options
def resolve(client: AdminClient, run_id: str, succeeded: bool | None, note: str, form: str) -> None:
    """Say what became of a run whose outcome is unknown, so that the call may be made again."""
    if succeeded is None:
        raise click.UsageError("say --succeeded or --failed")
    after = client.resolve(run_id, succeeded, note)
    print_one(form, after, lambda: f"{visible(str(after['id']))} {after.get('resolved_as')}")
