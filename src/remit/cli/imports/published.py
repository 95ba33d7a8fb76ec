"""A publisher's `server.json` in an import: which way to have the server is taken.

All of the document is the publisher's word. It is shown escaped, and decides nothing that a
person or this file does not agree to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from remit.cli.imports.answers import answered
from remit.cli.imports.faults import refused
from remit.cli.imports.sources import ClientFile
from remit.cli.output import note, table
from remit.errors import Code, ConfigError
from remit.upstreams.found import Found, FoundServer
from remit.upstreams.secretlike import shown
from remit.upstreams.server_json import Published
from remit.visible import quoted, visible

_INSTALLED = frozenset({"npm", "pypi"})
"""Kinds of packages that are installed."""


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
    _refuse_what_is_not_installed(server, chosen=choice is not None)
    server = answered(server, answers)
    _refuse_what_is_near(server)
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
    packages = [one for one in choices if one.package and one.package.registry in _INSTALLED]
    remotes = [one for one in choices if one.package is None]
    first = (packages, remotes) if install else (remotes, packages)
    return next((one for ways in (*first, choices) for one in ways), choices[0])


def _refuse_what_is_near(server: FoundServer) -> None:
    """Refuse a publisher's address of this machine's own: it would open a service of it to agents.

    An address that is a person's answer as a whole is let by. Only plain http is held to be one, as everywhere in Remit; what a name in an https address
    leads to is not looked at.
    """
    url = server.url
    if url is not None and url.foreign and not url.text.lower().startswith("https://"):
        raise refused(
            server,
            "/url",
            "has an address without TLS, which its publisher wrote",
            "if it is a server of this machine, write its `url` into remit.yaml yourself",
        )


def _refuse_what_is_not_installed(server: FoundServer, *, chosen: bool) -> None:
    """Refuse a package that no client here would get, or would get from elsewhere than is said.

    Args:
        chosen: a person named this way, after its publisher's registry was shown.

    Raises:
        ConfigError: of a kind that is not installed; or of a registry that is named, without a
            digest: the package's name may be somebody else's in the registry that is asked here.
    """
    one = server.package
    if one is None or one.registry == "oci":
        return  # a container is refused where every container is
    if one.registry not in _INSTALLED:
        raise refused(
            server,
            "/registryType",
            f"is a package of {one.registry}, which Remit does not install",
            "install it yourself, and import a client's file that names its program",
        )
    if one.base_url is not None and one.sha256 is None and not chosen:
        raise refused(
            server,
            "/registryBaseUrl",
            f"is of the registry {quoted(shown(one.base_url, 200))}, as its publisher says; what "
            "is asked is the registry that npm or pip is set up for here",
            "if that has the same packages, name the way: --choice N",
        )
