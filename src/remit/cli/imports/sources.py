"""Where clients' files lie on this machine, and the MCP servers in them.

A file is opened without following a link at its end, read once and within bounds. Nothing that
it names is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.cli.client_entry import CLIENTS, NAME
from remit.cli.client_file import look, placed
from remit.errors import Code, ConfigError
from remit.upstreams.client_files import Client, read_client_file
from remit.upstreams.found import Found, FoundServer, Kind
from remit.upstreams.server_json import Published, is_server_json, read_server_json

_PROJECT = (Client.CLAUDE_CODE, Client.CURSOR, Client.VSCODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFile:
    """One file as it was read; `home` is the directory its project is in.

    `client` is None for a `server.json`, which no client reads: `published` is what it holds.
    """

    client: Client | None
    path: Path
    found: Found
    published: Published | None = None

    @property
    def home(self) -> Path:
        hidden = self.path.parent.name in (".cursor", ".vscode")
        return self.path.parent.parent if hidden else self.path.parent


def places() -> Iterator[tuple[Client, Path]]:
    """Every file in which a client would look for servers, of this directory and this person."""
    for client in _PROJECT:
        yield client, CLIENTS[client.value].file().absolute()
    yield Client.CLAUDE_CODE_USER, Path.home() / ".claude.json"
    yield Client.CLAUDE_DESKTOP, CLIENTS["claude-desktop"].file().absolute()
    yield Client.CURSOR, Path.home() / ".cursor" / "mcp.json"
    yield Client.VSCODE, _editor_settings() / "Code" / "User" / "mcp.json"
    yield Client.CODEX, CLIENTS["codex"].file().absolute()


def _editor_settings() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def read_sources(named: Sequence[str]) -> tuple[list[ClientFile], list[ConfigError]]:
    """The files that were named, by client or by path; with none named, all that are there.

    Returns:
        The files; and, with none named, an error for each that is there and cannot be read.

    Raises:
        ConfigError: a file that was named is not there or is not one of a client; there is none.
    """
    wanted = [each for each in named if each]
    if wanted:
        return [file for each in wanted for file in _named(each)], []
    found: list[ClientFile] = []
    faults: list[ConfigError] = []
    for client, path in dict.fromkeys(places()):
        if path.exists() or path.is_symlink():
            try:
                found.append(read_file(client, path))
            except ConfigError as fault:
                faults.append(fault)
    if not found and not faults:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "no client's file was found here",
            hint="name one: remit init --import FILE (such as .mcp.json)",
        )
    return found, faults


def _named(word: str) -> list[ClientFile]:
    known = {client.value: client for client in Client}
    if word not in known:
        path = Path(word).expanduser().absolute()
        return [read_file(None, path)]
    mine = [(client, path) for client, path in dict.fromkeys(places()) if client == known[word]]
    there = [(client, path) for client, path in mine if path.exists() or path.is_symlink()]
    return [read_file(client, path) for client, path in there or mine[:1]]


def read_file(client: Client | None, path: Path) -> ClientFile:
    """The servers in one file; whose it is follows from its name and keys where not given.

    A `server.json` is known by its keys alone; which way of it is taken is not decided here.

    Raises:
        ConfigError: it is not there, cannot be read, or is not of a client's format.
    """
    with placed(path):
        seen = look(path)
    if seen is None:
        known = ", ".join(client.value for client in Client)
        raise ConfigError(
            Code.CONFIG_INVALID,
            "there is no such file",
            place=str(path),
            hint=f"name a file, or a client: {known}",
        )
    try:
        text = seen.content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(
            Code.CONFIG_INVALID, "the file is not UTF-8", place=str(path), hint="save it as UTF-8"
        ) from None
    if client is None and is_server_json(text):
        published = read_server_json(text, path=_short(path))
        return ClientFile(client=None, path=path, found=Found(), published=published)
    whose = client or _whose(path, text)
    return ClientFile(
        client=whose, path=path, found=read_client_file(whose, text, path=_short(path))
    )


def _short(path: Path) -> str:
    """The path as faults show it: from here where it is below here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _whose(path: Path, text: str) -> Client:
    by_name = {
        "claude_desktop_config.json": Client.CLAUDE_DESKTOP,
        ".claude.json": Client.CLAUDE_CODE_USER,
        ".mcp.json": Client.CLAUDE_CODE,
    }
    by_directory = {".cursor": Client.CURSOR, ".vscode": Client.VSCODE}
    if path.suffix == ".toml":
        return Client.CODEX
    if path.name in by_name:
        return by_name[path.name]
    if path.parent.name in by_directory:
        return by_directory[path.parent.name]
    # `"` cannot stand inside of a JSON text unescaped, so this finds keys and little else.
    return Client.VSCODE if '"servers"' in text and '"mcpServers"' not in text else Client.CURSOR


def is_remit(server: FoundServer) -> bool:
    """Whether an entry is the gateway itself, as `remit connect CLIENT` writes it."""
    if server.kind is not Kind.STDIO:
        return server.name == NAME
    program = os.path.basename(server.command.text) if server.command else ""
    return program == "remit" and bool(server.args) and server.args[0].text == "connect"


def reached(file: ClientFile, here: Path) -> list[FoundServer]:
    """The servers that the client would reach by this file from a directory, without the gateway."""
    return [
        server
        for server in file.found.servers
        if not is_remit(server) and server.place.project in (None, str(here))
    ]
