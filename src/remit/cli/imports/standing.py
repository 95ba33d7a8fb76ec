"""`remit init --install` alone: packages that definitions of remit.yaml name, installed once."""

from __future__ import annotations

from pathlib import Path

import click

from remit.cli.imports.packages import install_package
from remit.cli.output import Exit, note, print_error
from remit.errors import Code, ConfigError
from remit.settings.definitions import package_of
from remit.settings.written import written
from remit.upstreams.installed import ENVIRONMENTS
from remit.visible import visible


def install_definitions(config: Path) -> Exit:
    """Install what lacks; one that cannot be installed costs the others nothing.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    config = config.absolute()
    faults, named = list[ConfigError](), 0
    for spec in written(config).catalog.servers:
        try:
            found = package_of(spec, config.parent)
            if found is None:
                continue
            named += 1
            launch, directory, record = found
            if record is not None:
                note(f"{spec.name}: {record.package} {record.version} is installed already")
                continue
            if directory.exists():
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"the server {spec.name} would be installed in {ENVIRONMENTS}/{spec.name}, "
                    "where something else is",
                    place=str(directory),
                    hint="remove that directory if nothing of remit.yaml names it",
                )
            installed = install_package(launch, directory)
            click.echo(
                visible(f"installed {launch.package} {installed.version} for {spec.name}, in ")
                + f"{ENVIRONMENTS}/{spec.name}"
            )
        except ConfigError as error:
            faults.append(error)
    for fault in faults:
        print_error(fault)
    if not named and not faults:
        note("no definition of remit.yaml names a package")
    return Exit.NO if faults else Exit.YES
