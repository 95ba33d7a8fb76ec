"""`remit policy fmt`: OPA's formatter, where there is an OPA."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from remit.cli.invocation import Invocation
from remit.cli.output import Exit, note
from remit.cli.policy.opa import opa_at, run
from remit.cli.policy.options import give_up, opa_option
from remit.errors import Code, ConfigError
from remit.visible import visible


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default="policy")
@click.option("--check", is_flag=True, help="Only name what is not formatted; end 1 if anything.")
@opa_option
@click.pass_obj
def fmt(invocation: Invocation | None, path: Path, check: bool, opa: Path | None) -> None:
    """Format the modules in PATH (by default ./policy) with `opa fmt`.

    The opa executable is that of --opa, else policy.opa.binary, else the one on PATH. Ends 0 when
    all is formatted, 1 with --check when something is not or when a module cannot be read, 2 if
    there is no such policy, 3 if there is no opa.
    """
    if not path.exists():
        missing = ConfigError(
            Code.CONFIG_NOT_FOUND,
            "there is no such policy",
            place=str(path),
            hint="name its directory; `remit init` writes a starter policy",
        )
        give_up(missing, Exit.USAGE)
    if path.is_file() and path.suffix != ".rego":
        archive = ConfigError(
            Code.CONFIG_INVALID,
            "this is no directory and no module: nothing in it would be formatted",
            place=str(path),
            hint="name the directory that a bundle is built from",
        )
        give_up(archive, Exit.USAGE)
    try:
        found = opa_at(opa, invocation)
        changed = run(found, ["fmt", "--list", str(path)])
        done = changed if check or changed.returncode else run(found, ["fmt", "--write", str(path)])
    except ConfigError as error:
        give_up(error, Exit.UNKNOWN)
    if done.returncode:
        note(visible(done.stderr.decode("utf-8", "replace").strip(), keep="\n\t"))
        sys.exit(Exit.NO)
    names = changed.stdout.decode("utf-8", "replace").split("\n")
    names = [name for name in names if name]
    for name in names:
        click.echo(visible(name))
    if not check:
        note(f"{len(names)} formatted")
    sys.exit(Exit.NO if check and names else Exit.YES)
