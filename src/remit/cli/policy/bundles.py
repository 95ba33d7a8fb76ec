"""`remit policy build`, `sign` and `verify`: a policy as one signed file that OPA takes too."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from remit.cli.output import Exit, exit_of, note, print_error
from remit.errors import Code, ConfigError, RemitError

MAX_KEY_BYTES = 64 * 1024
ALGORITHMS = ("RS256", "ES256", "EdDSA", "HS256")

_bundle = click.argument("bundle", type=click.Path(dir_okay=False, path_type=Path))
_key_id = click.option("--key-id", required=True, help="The key's name, as `verify.key_id` has it.")
_algorithm = click.option(
    "--algorithm", type=click.Choice(ALGORITHMS), default="RS256", show_default=True,
    help="How it is signed.",
)  # fmt: skip
_scope = click.option("--scope", default="", help="The scope, as `verify.scope` has it.")


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default="policy")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="The bundle to write (.tar.gz).",
)  # fmt: skip
@click.option(
    "--use", multiple=True, metavar="NAME[=DATA.json]",
    help="A policy of the library to put in, with its data; may be given again.",
)  # fmt: skip
def build(path: Path, output: Path, use: Sequence[str]) -> None:
    """Write the policy in PATH (by default ./policy) as an OPA bundle, and print its revision.

    It is checked first. Tests are left out. The same policy gives the same bytes.
    """
    from remit.policy.archive import write_archive, write_file
    from remit.policy.bundle import read_bundle
    from remit.policy.library import with_library
    from remit.policy.lint import lint

    try:
        bundle = read_bundle(path)
        if use:
            bundle = with_library(bundle, _used(use))
        findings = lint(bundle)
        if not findings:
            write_file(output, write_archive(bundle))
    except (RemitError, OSError) as error:
        _give_up(error, output)
    for finding in findings:
        click.echo(f"{finding.place}: {finding.message}\n  {finding.mend}")
    if findings:
        sys.exit(Exit.NO)
    note(f"wrote {output}")
    click.echo(bundle.revision)


@click.command()
@_bundle
@click.option(
    "--key", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="The private key in PEM, or a file with the secret of HS256.",
)  # fmt: skip
@_key_id
@_algorithm
@_scope
def sign(bundle: Path, key: Path, key_id: str, algorithm: str, scope: str) -> None:
    """Sign BUNDLE in its place, as `opa sign` does; a signature that it has is replaced."""
    from remit.policy import signature
    from remit.policy.archive import compress, read_archive, read_file, unpack, write_file
    from remit.policy.content import SIGNATURES

    try:
        content = read_file(bundle)
        revision = read_archive(content, place=str(bundle)).revision
        files = unpack(content)
        files[SIGNATURES] = signature.sign(
            files,
            key=_key(key, algorithm),
            key_id=key_id,
            algorithm=signature.algorithm_of(algorithm),
            scope=scope,
        )
        write_file(bundle, compress(files))
    except (RemitError, OSError) as error:
        _give_up(error, bundle)
    note(f"signed {bundle}")
    click.echo(revision)


@click.command()
@_bundle
@click.option(
    "--key", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="The public key in PEM, or a file with the secret of HS256.",
)  # fmt: skip
@_key_id
@_algorithm
@_scope
def verify(bundle: Path, key: Path, key_id: str, algorithm: str, scope: str) -> None:
    """Check that BUNDLE is what this key signed, and print its revision; ends 1 if it is not."""
    from remit.policy.archive import read_archive, read_file
    from remit.policy.signature import Verification, algorithm_of

    try:
        wanted = Verification(
            key=_key(key, algorithm),
            key_id=key_id,
            algorithm=algorithm_of(algorithm),
            scope=scope,
        )
        found = read_archive(read_file(bundle), verification=wanted, place=str(bundle))
    except (RemitError, OSError) as error:
        _give_up(error, bundle)
    click.echo(found.revision)


def _used(use: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """The library's policies by name, each with its data.

    Raises:
        ConfigError: a data file cannot be read as a JSON object.
    """
    from remit.policy.content import read_json

    found: dict[str, Mapping[str, Any]] = {}
    for each in use:
        name, _, file = each.partition("=")
        data = read_json(_read(Path(file)), file) if file else {}
        if not isinstance(data, dict):
            raise ConfigError(
                Code.POLICY_INVALID, "the data is not a JSON object", place=file,
                hint="docs/policies has the data of each policy",
            )  # fmt: skip
        found[name] = data
    return found


def _key(path: Path, algorithm: str) -> str:
    """The text of a key's file; one newline at the end of a secret is not part of it."""
    try:
        text = _read(path).decode()
    except UnicodeDecodeError:
        raise ConfigError(
            Code.CONFIG_INVALID, "the key is not text", place=str(path), hint="give it in PEM"
        ) from None
    return text.removesuffix("\n") if algorithm == "HS256" else text


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID, f"cannot be read: {error.strerror}", place=str(path)
        ) from None


def _give_up(error: RemitError | OSError, output: Path) -> NoReturn:
    if isinstance(error, OSError):
        error = ConfigError(
            Code.CONFIG_INVALID, f"cannot be written: {error.strerror}", place=str(output)
        )
    print_error(error)
    sys.exit(Exit.NO if error.code is Code.SIGNATURE_INVALID else exit_of(error))
