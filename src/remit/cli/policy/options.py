"""What several commands of `remit policy` take, and how they read it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from remit.cli.output import Exit, exit_of, print_error
from remit.errors import Code, ConfigError, RemitError

if TYPE_CHECKING:
    from remit.config import Settings
    from remit.policy.bundle import PolicyBundle

MAIN = "policy"

path_argument = click.argument("path", type=click.Path(path_type=Path), default="policy")

output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print."
)

layer_option = click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME=PATH",
    help="A policy that is asked too, as policy.layers has it; may be given again.",
)

use_option = click.option(
    "--use",
    multiple=True,
    metavar="NAME[=DATA.json]",
    help="A policy of the library to ask too, with its data; may be given again.",
)

configured_option = click.option(
    "--configured",
    is_flag=True,
    help="Ask what the configuration has, layers and library too, instead of PATH.",
)

input_option = click.option(
    "--input",
    "question",
    type=click.File("rb"),
    required=True,
    help="A remit.input/1 document; - reads standard input.",
)

opa_option = click.option(
    "--opa", "opa", type=click.Path(path_type=Path, dir_okay=False), help="An opa executable."
)


def policy_at(path: Path) -> PolicyBundle:
    """The policy in a directory or an archive, unchecked but for names, sizes and JSON.

    Raises:
        ConfigError: `config_not_found`, or `policy_invalid`.
    """
    from remit.policy.bundle import read_bundle

    if not path.exists():
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            "there is no such policy",
            place=str(path),
            hint="name its directory or bundle; `remit init` writes a starter policy",
        )
    if path.is_file() and path.suffix in (".rego", ".json"):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "this is one file of a policy",
            place=str(path),
            hint=f"name the directory it is in: {path.parent}",
        )
    return read_bundle(path)


def layers_at(path: Path, layers: Sequence[str], use: Sequence[str]) -> dict[str, PolicyBundle]:
    """The policy at a path, with those of the library, and the layers besides, by name.

    Raises:
        ConfigError: one of them cannot be read.
    """
    from remit.policy.library import with_library

    found = {MAIN: with_library(policy_at(path), used(use))}
    for each in layers:
        name, equals, where = each.partition("=")
        if not equals or not name or name in found:
            raise ConfigError(
                Code.CONFIG_INVALID,
                "--layer takes NAME=PATH, each name once",
                hint="for example --layer organisation=../organisation/policy",
            )
        found[name] = policy_at(Path(where))
    return found


def layers_configured(settings: Settings) -> dict[str, PolicyBundle]:
    """Every layer of the configuration, as the gateway would load it.

    Raises:
        ConfigError: one of them cannot be had, is not a policy, or is not on this machine.
    """
    from remit.enforcement import load_layer

    found: dict[str, PolicyBundle] = {}
    for layer in settings.policy.layers:
        bundle = asyncio.run(load_layer(settings, layer))
        if bundle is None:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"the layer {layer.name} is not on this machine",
                place=layer.place or "policy.opa.url",
                hint="fetch its bundle, and name the layers with PATH and --layer",
            )
        found[layer.name] = bundle
    return found


def refuse_both(configured: bool, *others: object) -> None:
    """Raise a usage error where --configured and what it stands for are both given."""
    if configured and any(others):
        raise click.UsageError(
            "--configured stands for PATH, --layer and --use; give one or the other"
        )


def used(use: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """The library's policies by name, each with its data.

    Raises:
        ConfigError: a data file cannot be read as a JSON object.
    """
    from remit.policy.content import read_json

    found: dict[str, Mapping[str, Any]] = {}
    for each in use:
        name, _, file = each.partition("=")
        try:
            data = read_json(Path(file).read_bytes(), file) if file else {}
        except OSError as error:
            raise ConfigError(
                Code.CONFIG_INVALID, f"cannot be read: {error.strerror}", place=file
            ) from None
        if not isinstance(data, dict):
            raise ConfigError(
                Code.POLICY_INVALID,
                "the data is not a JSON object",
                place=file,
                hint="docs/policies has the data of each policy",
            )
        found[name] = data
    return found


def refuse_findings(layers: Mapping[str, PolicyBundle]) -> None:
    """Hold each layer to the portable profile, as the gateway does when it loads it.

    Raises:
        ConfigError: `policy_invalid`, the first thing that is refused.
    """
    from remit.policy.lint import lint

    for bundle in layers.values():
        findings = lint(bundle)
        if findings:
            raise findings[0].error(of=len(findings))


def wrong_use(error: RemitError) -> bool:
    """Whether it is the command that is wrong: what it names is not there, or not in the library."""
    named = (error.place or "").startswith("use.")
    return named or error.code in (Code.CONFIG_NOT_FOUND, Code.CONFIG_INVALID)


def give_up(error: RemitError, ending: Exit | None = None) -> NoReturn:
    """Print an error and end; a policy that is no policy is a no, not a wrong use."""
    print_error(error)
    if ending is None:
        ending = Exit.NO if error.code is Code.POLICY_INVALID else exit_of(error)
    sys.exit(ending)
