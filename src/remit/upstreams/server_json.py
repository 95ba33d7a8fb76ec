"""`server.json` of the MCP registry, schema 2025-12-11 and those before it.

Pure reading of text: nothing is fetched, installed or started. Schemas before 2025-09-16 wrote
keys with `_`; they are read too. An answer of a registry's API, with the document under
`server`, is taken as the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from remit.errors import ConfigError
from remit.upstreams.definition_text import DefinitionText, at, unknown
from remit.upstreams.entries import check_address, header_name, signed_command, variable
from remit.upstreams.found import FoundServer, Kind, Place, Value, template
from remit.upstreams.inputs import Inputs, modern
from remit.upstreams.packages import RUNNERS, command_line, package
from remit.upstreams.secretlike import shown

FILE = "the registry's server.json"
_NAME = re.compile(r"[a-zA-Z0-9.-]{1,200}/[a-zA-Z0-9._-]{1,200}")
_TOP = frozenset(
    {"$schema", "name", "title", "description", "version", "version_detail", "packages", "remotes"}
)
_PACKAGE = frozenset(
    {"registryType", "identifier", "version", "fileSha256", "registryBaseUrl", "runtimeHint",
     "runtimeArguments", "packageArguments", "environmentVariables", "transport"}
)  # fmt: skip
_CLIENTS = frozenset({"mcpServers", "servers", "mcp_servers"})
_REMOTE = frozenset({"type", "url", "headers", "variables"})
_KINDS = {"streamable-http": Kind.HTTP, "streamable": Kind.HTTP, "sse": Kind.SSE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A server as its publisher describes it; each choice is one way to have it.

    `title` and `description` are the publisher's words: for a person to read, never to trust.
    """

    name: str
    version: str
    title: str
    description: str
    choices: tuple[FoundServer, ...]
    faults: tuple[ConfigError, ...]
    ignored: tuple[str, ...]


def is_server_json(text: str) -> bool:
    """Whether a text is such a document and no client's file, by the keys that it holds."""
    try:
        tree = DefinitionText(file=FILE, path="").json(text)
    except ConfigError:
        return False
    if "name" not in tree and isinstance(tree.get("server"), dict):
        tree = tree["server"]
    ways = {"packages", "remotes", "version", "version_detail"}
    return isinstance(tree.get("name"), str) and bool(ways & set(tree)) and not _CLIENTS & set(tree)


def read_server_json(text: str, *, path: str) -> Published:
    """The ways to have a published server: its packages first, then its remotes, in their order.

    Args:
        text: the document, at most 8 MiB.
        path: shown in faults and kept as the place of each choice; it is not opened.

    Returns:
        The choices, and a fault for each way that Remit does not take (a kind of package without
        a known runner, a package without an exact version or one reached over HTTP). A package
        is a command with the exact version in it; its digest is kept, and whoever installs it
        must check it. The publisher's arguments for the runner (`--network`, `-v`) are never
        taken, and are among what is ignored: how a package is run is not its publisher's matter.

    Raises:
        ConfigError: `config_invalid` if the document is none, or has no name and version.
    """
    source = DefinitionText(file=FILE, path=path)
    tree = source.json(text)
    base = ""
    if "name" not in tree and isinstance(tree.get("server"), dict):
        tree, base = tree["server"], "/server"
    name = source.text(tree.get("name"), f"{base}/name")
    if not _NAME.fullmatch(name):
        hint = "write it as io.github.someone/server"
        raise source.fault(f"{base}/name", "this is no name of the registry", hint)
    choices: list[FoundServer] = []
    faults: list[ConfigError] = []
    for part, read in (("packages", _package), ("remotes", _remote)):
        given = tree.get(part)
        pointer = f"{base}/{part}"
        for place, node in enumerate(source.items([] if given is None else given, pointer)):
            here = at(pointer, place)
            where = Place(file=source.file, path=source.path, pointer=here)
            bare = FoundServer(name=name, kind=Kind.STDIO, place=where)
            try:
                choices.append(read(source, modern(source, node, here), bare))
            except ConfigError as fault:
                faults.append(fault)
    if not choices and not faults:
        hint = "a server needs one of `packages` or `remotes`"
        raise source.fault(base, "there is no way to have this server", hint)
    return Published(
        name=name,
        version=_version(source, tree, base),
        title=_words(source, tree, base, "title"),
        description=_words(source, tree, base, "description"),
        choices=tuple(choices),
        faults=tuple(faults),
        ignored=unknown(tree, _TOP),
    )


def _version(source: DefinitionText, tree: Mapping[str, Any], base: str) -> str:
    if "version" not in tree and "version_detail" in tree:
        tree = source.table(tree["version_detail"], f"{base}/version_detail")
        base = f"{base}/version_detail"
    return source.text(tree.get("version"), f"{base}/version")[:255]


def _words(source: DefinitionText, tree: Mapping[str, Any], base: str, key: str) -> str:
    return source.text(tree.get(key, ""), f"{base}/{key}", lines=True, empty=True)[:1000]


def _package(source: DefinitionText, table: Mapping[str, Any], server: FoundServer) -> FoundServer:
    pointer = server.place.pointer
    transport = source.table(table.get("transport", {"type": "stdio"}), f"{pointer}/transport")
    if transport.get("type", "stdio") != "stdio":
        hint = "start the package yourself and give its address, or choose another way"
        message = "a package that is started and then reached over HTTP is not taken"
        raise source.fault(f"{pointer}/transport", message, hint)
    one = package(source, table, pointer)
    inputs = Inputs(source)
    env = _pairs(inputs, source, table, f"{pointer}/environmentVariables", variable)
    left = _left_out(source, table, f"{pointer}/runtimeArguments")
    arguments = inputs.arguments(table.get("packageArguments"), f"{pointer}/packageArguments")
    runner, ignored = _runner(source, table, one.registry, pointer, bool(left))
    words = signed_command(command_line(one, runner, arguments, tuple(env)))
    return replace(
        server,
        command=words[0],
        args=words[1:],
        env=MappingProxyType(env),
        package=one,
        questions=tuple(inputs.questions.values()),
        ignored=unknown(table, _PACKAGE) + ignored + left + tuple(inputs.left_out),
    )


def _left_out(source: DefinitionText, table: Mapping[str, Any], pointer: str) -> tuple[str, ...]:
    """The arguments for the runner, none of which is taken, as they may be shown."""
    found = []
    given = table.get("runtimeArguments")
    for place, node in enumerate(source.items([] if given is None else given, pointer)):
        one = modern(source, node, at(pointer, place))
        said = one.get("name", one.get("value"))
        word = f" ({shown(said)})" if isinstance(said, str) else ""
        found.append(f"runtimeArguments/{place}{word}")
    return tuple(found)


def _runner(
    source: DefinitionText, table: Mapping[str, Any], registry: str, pointer: str, used: bool
) -> tuple[str, tuple[str, ...]]:
    """The program that starts the package; another one that is named is not taken."""
    runners, hinted = RUNNERS[registry], table.get("runtimeHint")
    if hinted is None:
        return runners[0], ()
    if hinted in runners:
        return str(hinted), ()
    if used:
        hint = f"a package of {registry} is started by {' or '.join(runners)}"
        message = "arguments for a runner that is not known"
        raise source.fault(f"{pointer}/runtimeHint", message, hint)
    return runners[0], ("runtimeHint",)


def _remote(source: DefinitionText, table: Mapping[str, Any], server: FoundServer) -> FoundServer:
    pointer = server.place.pointer
    declared = table.get("type")
    kind = _KINDS.get(declared) if isinstance(declared, str) else None
    if kind is None:
        hint = "use streamable-http or sse"
        raise source.fault(f"{pointer}/type", "this type of remote is not known", hint)
    inputs = Inputs(source)
    text = source.text(table.get("url"), f"{pointer}/url")
    check_address(source, text, f"{pointer}/url", opening="{")
    url = template(text, inputs.variables(table.get("variables"), f"{pointer}/variables"))
    sent = _pairs(inputs, source, table, f"{pointer}/headers", header_name)
    if len({name.lower() for name in sent}) != len(sent):
        hint = "keep one of the two spellings"
        raise source.fault(f"{pointer}/headers", "a header stands twice", hint)
    return replace(
        server,
        kind=kind,
        url=url,
        headers=MappingProxyType(sent),
        questions=tuple(inputs.questions.values()),
        ignored=unknown(table, _REMOTE),
    )


def _pairs(
    inputs: Inputs,
    source: DefinitionText,
    table: Mapping[str, Any],
    pointer: str,
    check: Callable[[DefinitionText, str, str], str],
) -> dict[str, Value]:
    """Variables or headers, which `server.json` writes as a list of named inputs."""
    given = table.get(pointer.rpartition("/")[2])
    found: dict[str, Value] = {}
    for place, node in enumerate(source.items([] if given is None else given, pointer)):
        here = at(pointer, place)
        one = modern(source, node, here)
        name = check(source, source.text(one.get("name"), f"{here}/name"), f"{here}/name")
        if name in found:
            raise source.fault(here, "a name stands twice", "keep one of the two")
        given_value = inputs.value(one, here, name=name)
        if check is header_name and any(char in given_value.text for char in "\r\n"):
            raise source.fault(here, "a header holds more than one line", "write it in one line")
        found[name] = given_value
    return found
