"""`remit audit`: verify a log offline, and export one from a ledger's file; `search` and `show`
are beside this file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from remit.cli.audit_search import search, show
from remit.cli.output import note, print_error
from remit.errors import Code, ConfigError, RemitError, Unverified

YES, NO, USAGE, UNKNOWN = 0, 1, 2, 3

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Verify, search and export the log."""


audit.add_command(search)
audit.add_command(show)


@audit.command()
@click.argument("path", type=_FILE)
@click.option("--key", "key_text", metavar="VKEY", help="The log's verifier key.")
@click.option("--key-file", type=_FILE, help="A file that holds the verifier key.")
@click.option("--checkpoint", type=_FILE, help="A checkpoint that was kept elsewhere.")
@click.option("--receipt", type=_FILE, help="A receipt that was kept elsewhere (JSON).")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    help="How to print the result.",
)
def verify(
    path: Path,
    *,
    key_text: str | None,
    key_file: Path | None,
    checkpoint: Path | None,
    receipt: Path | None,
    output: str,
) -> None:
    """Verify PATH: an export, or a ledger's file, also while a gateway writes it.

    The key must come from elsewhere than the log. Ends 0 if all holds, 1 with the first entry
    that does not, 2 if it was called wrongly, 3 if something could not be read.
    """
    from remit.ledger import findings
    from remit.ledger import verify as checking
    from remit.ledger.records import is_store, read_export, read_store

    key = _key(key_text, key_file)
    held_checkpoint, held_receipt = _outside(key, checkpoint, receipt)
    try:
        if is_store(path):
            report = checking.verify(
                read_store(path), key, checkpoint=held_checkpoint, receipt=held_receipt
            )
        else:
            with path.open("rb") as file:
                report = checking.verify(
                    read_export(file), key, checkpoint=held_checkpoint, receipt=held_receipt
                )
    except OSError as error:
        _stop(_unreadable(path, error.strerror), UNKNOWN)
    except RemitError as error:
        _stop(error, UNKNOWN)
    if output == "text":
        click.echo(findings.as_text(report, str(path)))
    else:
        indent = 2 if output == "json" else None
        click.echo(json.dumps(findings.as_json(report), indent=indent, ensure_ascii=False))
    sys.exit(YES if report.ok else NO)


@audit.command()
@click.argument("ledger", type=_FILE)
@click.argument("out", type=_FILE)
@click.option("--with-values", is_flag=True, help="Include what the log only commits to.")
@click.option("--with-plans", is_flag=True, help="Include the plans: the arguments of calls.")
def export(ledger: Path, out: Path, *, with_values: bool, with_plans: bool) -> None:
    """Write the log in LEDGER to a new file OUT, up to its last checkpoint.

    What `--with-values` and `--with-plans` add may hold secrets. An existing file is not replaced.
    """
    from remit.ledger.export import export_store

    try:
        lines, newer = export_store(ledger, with_values=with_values, with_plans=with_plans)
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(lines)
    except FileExistsError:
        there = ConfigError(
            Code.CONFIG_INVALID,
            "this is here already, and nothing is overwritten",
            place=str(out),
            hint="name a file that does not exist",
        )
        _stop(there, USAGE)
    except OSError as error:
        why = f"it cannot be written: {error.strerror}"
        _stop(ConfigError(Code.CONFIG_INVALID, why, place=str(out)), UNKNOWN)
    except RemitError as error:
        _stop(error, UNKNOWN)
    note(f"wrote {out}")
    if newer:
        note(f"{newer} newer entries are not under a checkpoint yet: left out")


def _key(text: str | None, file: Path | None) -> Any:
    from remit.ledger.checkpoint import VerifierKey

    if (text is None) == (file is None):
        raise click.UsageError(
            "give the log's verifier key with --key or --key-file\n"
            "  hint: `remit init` printed it, and `remit serve` logs it (verifier) when it starts; "
            "a key that lies beside the log proves nothing"
        )
    try:
        return VerifierKey.parse(text if text is not None else _read(file))
    except Unverified as error:
        _stop(error, USAGE)


def _outside(key: Any, checkpoint: Path | None, receipt: Path | None) -> tuple[Any, Any]:
    """The evidence from outside, which must itself be signed with the key."""
    from remit.canonical import parse
    from remit.ledger.checkpoint import open_checkpoint
    from remit.ledger.receipt import open_receipt

    try:
        kept = None if checkpoint is None else open_checkpoint(_read(checkpoint), key)
        got = None if receipt is None else open_receipt(parse(_read(receipt).encode()), key)
    except RemitError as error:
        what = f"the checkpoint or receipt from outside does not hold: {error.message}"
        _stop(Unverified(error.code, what, place=error.place, hint=error.hint), NO)
    return kept, got


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        _stop(_unreadable(path, error.strerror), UNKNOWN)
    except UnicodeDecodeError:
        _stop(_unreadable(path, "it is not text"), UNKNOWN)


def _stop(error: RemitError, status: int) -> NoReturn:
    """End with this error, and with the exit code that `audit` promises for it."""
    print_error(error)
    sys.exit(status)


def _unreadable(path: Path, why: str | None) -> RemitError:
    return ConfigError(Code.NOT_FOUND, f"it cannot be read: {why}", place=str(path))
