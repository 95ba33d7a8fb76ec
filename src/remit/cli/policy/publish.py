"""`remit policy capabilities` and `remit policy schemas`: what other tools need to check a policy."""

from __future__ import annotations

import json
from pathlib import Path

import click

from remit.cli.output import note
from remit.cli.policy.opa import capabilities_text
from remit.cli.policy.options import give_up
from remit.errors import Code, ConfigError


@click.command()
def capabilities() -> None:
    """Print the capabilities file of the portable profile, for `opa check --capabilities`.

    OPA then refuses what the profile refuses: other builtins, and syntax of later versions.
    """
    click.echo(capabilities_text(), nl=False)


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="A directory to write them into; without it they are printed as one object.",
)
def schemas(output: Path | None) -> None:
    """Give the JSON Schemas of the policy documents in the form that OPA's type checker reads.

    `remit policy schemas --output schemas` and then `opa check --schema schemas policy` find a
    misspelt field of the input in a module with the annotation `schemas: - input:
    schema["remit.input-1"]`.
    """
    from remit.policy.schemas import NAMES, for_opa

    if output is None:
        click.echo(json.dumps({name: for_opa(name) for name in NAMES}, indent=2))
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            text = json.dumps(for_opa(name), indent=2) + "\n"
            (output / f"{name}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        give_up(
            ConfigError(
                Code.CONFIG_INVALID, f"cannot be written: {error.strerror}", place=str(output)
            )
        )
    note(f"wrote {len(NAMES)} schemas to {output}")
