"""`remit config`: the settings in force and where each came from, their schema, and new keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from remit.cli.init import write_new
from remit.cli.invocation import pass_settings
from remit.cli.output import note, output_option, print_one
from remit.config import Settings
from remit.config import schema as config_schema
from remit.errors import Code, ConfigError
from remit.identity.keys import new_key
from remit.settings.fields import Subject
from remit.visible import visible


@click.group()
def config() -> None:
    """The settings in force, their schema, and new keys."""


@config.command()
@output_option
@pass_settings
def show(settings: Settings, form: str) -> None:
    """Print every setting in force and where it came from; hashes and commands are masked."""
    values = dict(_flat(settings.sections.model_dump(mode="json"), ""))
    rows = {
        place: {"value": value, "source": settings.sources.source(place) or "default"}
        for place, value in values.items()
    }
    print_one(form, {"settings": rows}, lambda: "\n".join(_text(rows)))


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not place):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{place}[{index}]")
    else:
        yield place, value


def _text(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for place, row in rows.items():
        yield f"{place}: {visible(json.dumps(row['value'], ensure_ascii=False))}  # {row['source']}"


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    click.echo(json.dumps(config_schema(), indent=2))


@config.command("new-key")
@click.argument("key_id", metavar="ID")
@click.option("--subject", metavar="NAME", help="Who will hold it; by default ID.")
@click.option("--operator", is_flag=True, help="A key for the admin API instead of for tools.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this new file, for you alone to read, instead of printing it.",
)
def new_key_command(key_id: str, subject: str | None, operator: bool, out: Path | None) -> None:
    """Make a key called ID, print its token once, and print the lines for remit.yaml.

    The token goes to standard output, the lines to standard error. Remit keeps neither.
    """
    key = new_key(key_id)
    try:
        subject = TypeAdapter(Subject).validate_python(subject or key.id)
    except ValidationError:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "a subject is 1-256 printable ASCII characters without spaces",
            hint="for example dana@example.org",
        ) from None
    if out is None:
        click.echo(key.token)
    else:
        try:
            write_new(out, key.token + "\n", 0o600)
        except OSError as exc:
            raise ConfigError(
                Code.SECRET_UNAVAILABLE,
                f"the token could not be written: {exc.strerror}",
                place=str(out),
                hint="name a file that does not exist yet, in a directory you may write to",
            ) from None
    section, rest = (
        ("operators", "may: [read]  # also: approve, resolve, freeze, pin; or [evaluate] alone")
        if operator
        else ("keys", "kind: agent")
    )
    note(f"# add to remit.yaml under identity: {section}:")
    note(f"    - id: {key.id}\n      sha256: {key.sha256}")
    note(f"      subject: {json.dumps(subject)}\n      {rest}")
