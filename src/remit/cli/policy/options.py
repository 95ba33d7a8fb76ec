"""What several commands of `remit policy` take."""

from __future__ import annotations

from pathlib import Path

import click

path_argument = click.argument(
    "path", type=click.Path(exists=True, file_okay=False, path_type=Path), default="policy"
)

output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print."
)
