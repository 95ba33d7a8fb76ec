"""A publisher's `server.json` in an import: which way to have the server is taken.

All of the document is the publisher's word. It is shown escaped, and decides nothing that a
person or this file does not agree to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from remit.cli.imports.answers import answered
from remit.cli.imports.sources import ClientFile
from remit.cli.output import note, table
from remit.errors import Code, ConfigError
from remit.upstreams.found import Found, FoundServer
from remit.upstreams.secretlike import shown
from remit.upstreams.server_json import Published
from remit.upstreams.ways import (
    INSTALLED,
    refuse_plain_address,
    refuse_what_is_not_installed,
)
from remit.visible import quoted, visible


def settled(
    files: Sequence[ClientFile], choice: int | None, answers: Sequence[str], *, install: bool
) -> list[ClientFile]:
    """The files, each `server.json` with the one server that is taken of it.

    Args:
        choice: which way is taken, counted from 1; None: the first that Remit can run.
        answers: `NAME=VALUE` for each question that is answered.
        install: packages may be installed.

    Raises:
        ConfigError: a way cannot be taken, or something of it is left open.
    """
    documents = sum(file.published is not None for file in files)
    if (choice is not None or answers) and documents != 1:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "--choice and --answer are about one server.json, and "
            + ("several are named" if documents else "none is named"),
            hint="import each by itself: remit init --import server.json",
        )
    return [
        file
        if file.published is None
        else _settled(file, file.published, choice, answers, install=install)
        for file in files
    ]


def _settled(
    file: ClientFile,
    published: Published,
    choice: int | None,
    answers: Sequence[str],
    *,
    install: bool,
) -> ClientFile:
    _say(published)
    server = _taken(published, choice, install=install)
    chosen = choice is not None
    refuse_what_is_not_installed(server, chosen=chosen, choose="--choice N")
    server = answered(server, answers)
    refuse_plain_address(server)
    return replace(file, found=Found(servers=(server,)))


def _say(published: Published) -> None:
    version = shown(published.version)
    click.echo(visible(f"{shown(published.name)} {version}, in its publisher's words:"))
    for words in (published.title, published.description):
        if words.strip():
            click.echo(f"  {quoted(words, 400)}")
    rows = [
        [str(number), visible(_way(server)), visible(server.place.pointer)]
        for number, server in enumerate(published.choices, 1)
    ]
    if rows:
        click.echo(table(["choice", "way", "in the document"], rows))
    for fault in published.faults:
        note(f"not to be had by {visible(fault.place or '')}: {visible(fault.message)}")
    if published.ignored:
        note(visible("not taken of the document: " + ", ".join(published.ignored)))


def _way(server: FoundServer) -> str:
    one = server.package
    if one is not None:
        version = f", {shown(one.version)}" if one.version else ""
        where = f", from {shown(one.base_url, 100)}" if one.base_url else ""
        return f"package of {one.registry}: {shown(one.identifier, 100)}{version}{where}"
    return f"{server.kind.value}: {shown(server.url.text, 100) if server.url else ''}"


def _taken(published: Published, choice: int | None, *, install: bool) -> FoundServer:
    """The way that was asked for, else the first that can be run with what is agreed to."""
    choices = published.choices
    if not choices:
        raise published.faults[0]
    if choice is not None:
        if not 1 <= choice <= len(choices):
            raise ConfigError(
                Code.CONFIG_INVALID,
                "there is no way of the number that --choice gives",
                hint=f"give one from 1 to {len(choices)}, as the table shows them",
            )
        return choices[choice - 1]
    packages = [one for one in choices if one.package and one.package.registry in INSTALLED]
    remotes = [one for one in choices if one.package is None]
    first = (packages, remotes) if install else (remotes, packages)
    return next((one for ways in (*first, choices) for one in ways), choices[0])
