"""One server's entry in a client's file, in the spelling of JSON clients or in that of Codex."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from remit.errors import ConfigError
from remit.upstreams.definition_text import MAX_ITEMS, DefinitionText, at, unknown
from remit.upstreams.found import (
    Found,
    FoundServer,
    Kind,
    Place,
    Reference,
    Source,
    Value,
    value,
    without_variables,
)
from remit.upstreams.secretlike import shown, sign_of, sign_of_command

_KINDS = {
    "stdio": Kind.STDIO, "http": Kind.HTTP, "streamable-http": Kind.HTTP,
    "streamableHttp": Kind.HTTP, "streamable_http": Kind.HTTP, "sse": Kind.SSE,
}  # fmt: skip
_COMMON = frozenset(
    {"type", "command", "args", "cwd", "env", "url", "headers", "disabled", "enabled"}
)
_CODEX = frozenset(
    {"command", "args", "cwd", "env", "env_vars", "url", "bearer_token_env_var", "http_headers",
     "env_http_headers", "enabled"}
)  # fmt: skip
_HEADER = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")

Read = Callable[[DefinitionText, Mapping[str, Any], FoundServer], FoundServer]
"""Reads one entry; the server it is given has its name and place, and nothing else."""


class Entries:
    """The servers of one file as they are read, and what is wrong with the rest."""

    def __init__(self, source: DefinitionText, read: Read) -> None:
        self._source = source
        self._read = read
        self._servers: list[FoundServer] = []
        self._faults: list[ConfigError] = []

    def add(self, node: object, pointer: str, project: str | None = None) -> None:
        """Read a table of servers; a table that is none is a fault of the whole file.

        Raises:
            ConfigError: `config_invalid`.
        """
        source = self._source
        for name, entry in source.named(node, pointer).items():
            if len(self._servers) + len(self._faults) >= MAX_ITEMS:
                raise source.fault(pointer, f"more than {MAX_ITEMS} servers", "split the file up")
            here = at(pointer, name)
            try:
                source.name(name, here)
                if project is not None and not project.isprintable():
                    raise source.fault(here, "its project's path cannot be used", "rename it")
                place = Place(file=source.file, path=source.path, pointer=here, project=project)
                bare = FoundServer(name=name, kind=Kind.STDIO, place=place)
                self._servers.append(self._read(source, source.table(entry, here), bare))
            except ConfigError as fault:
                self._faults.append(fault)

    def found(self, ignored: tuple[str, ...] = ()) -> Found:
        return Found(servers=tuple(self._servers), faults=tuple(self._faults), ignored=ignored)


def json_entry(
    source: DefinitionText, table: Mapping[str, Any], server: FoundServer
) -> FoundServer:
    """An entry of Claude Code, Claude Desktop, Cursor or VS Code."""
    pointer = server.place.pointer
    env = source.named(_or(table.get("env"), {}), f"{pointer}/env")
    unset = [key for key, one in env.items() if one is None]  # VS Code: not handed on
    enabled = source.flag(table.get("enabled", True), f"{pointer}/enabled")
    disabled = source.flag(table.get("disabled", False), f"{pointer}/disabled")
    return replace(
        _reached(source, table, server, declared=table.get("type")),
        env=_table(source, {key: env[key] for key in env if key not in unset}, f"{pointer}/env"),
        headers=headers(source, _or(table.get("headers"), {}), f"{pointer}/headers"),
        enabled=enabled and not disabled,
        ignored=unknown(table, _COMMON) + tuple(f"env/{shown(key)}" for key in unset),
    )


def _or(node: object, empty: object) -> object:
    """What a key holds; `null` is taken as if the key were not there."""
    return empty if node is None else node


def codex_entry(
    source: DefinitionText, table: Mapping[str, Any], server: FoundServer
) -> FoundServer:
    """An entry of Codex; what it names by environment variable becomes a `${VAR}` reference."""
    pointer = server.place.pointer
    env = dict(_table(source, table.get("env", {}), f"{pointer}/env"))
    names, remote = _variables(source, table.get("env_vars", []), f"{pointer}/env_vars")
    for name in names:
        env.setdefault(name, _from_env(name))
    sent = dict(headers(source, table.get("http_headers", {}), f"{pointer}/http_headers"))
    given = source.named(table.get("env_http_headers", {}), f"{pointer}/env_http_headers")
    for header, node in given.items():
        here = at(f"{pointer}/env_http_headers", header)
        sent[header_name(source, header, here)] = _from_env(_variable(source, node, here))
    if "bearer_token_env_var" in table:
        here = f"{pointer}/bearer_token_env_var"
        name = _variable(source, table["bearer_token_env_var"], here)
        sent["Authorization"] = _from_env(name, before="Bearer ")
    return replace(
        _reached(source, table, server, declared=None),
        env=MappingProxyType(env),
        headers=MappingProxyType(sent),
        enabled=source.flag(table.get("enabled", True), f"{pointer}/enabled"),
        ignored=unknown(table, _CODEX) + remote,
    )


def _reached(
    source: DefinitionText, table: Mapping[str, Any], server: FoundServer, *, declared: object
) -> FoundServer:
    """The server with its kind and its command or url; an entry that could be both is refused."""
    pointer = server.place.pointer
    both = "command" in table and "url" in table
    if both or ("command" not in table and "url" not in table):
        message = "a server has both `command` and `url`" if both else "a server has no `command`"
        hint = "keep `command` for a program, or `url` for a server that is reached over HTTP"
        raise source.fault(pointer, message + ("" if both else " and no `url`"), hint)
    kind = Kind.STDIO if "command" in table else Kind.HTTP
    if declared is not None:
        named = _KINDS.get(declared) if isinstance(declared, str) else None
        if named is None:
            hint = "use stdio, http or sse; Remit reaches servers in no other way"
            raise source.fault(f"{pointer}/type", "this type of server is not known", hint)
        if (named is Kind.STDIO) != (kind is Kind.STDIO):
            hint = "a server of type stdio has a `command`, one of type http or sse a `url`"
            raise source.fault(f"{pointer}/type", "`type` does not fit the other keys", hint)
        kind = named
    if kind is not Kind.STDIO:
        node = table["url"]
        return replace(server, kind=kind, url=address(source, node, f"{pointer}/url"))
    command, args = _command(source, table, pointer)
    cwd = table.get("cwd")
    at_cwd = None if cwd is None else value(source.text(cwd, f"{pointer}/cwd"))
    return replace(server, kind=kind, command=command, args=args, cwd=at_cwd)


def _command(
    source: DefinitionText, table: Mapping[str, Any], pointer: str
) -> tuple[Value, tuple[Value, ...]]:
    node = table["command"]
    if isinstance(node, list):
        hint = "put the program alone in `command` and the rest in `args`"
        raise source.fault(f"{pointer}/command", "`command` is a list", hint)
    texts = [source.text(node, f"{pointer}/command")]
    for n, one in enumerate(source.items(_or(table.get("args"), []), f"{pointer}/args")):
        texts.append(source.text(one, at(f"{pointer}/args", n), lines=True, empty=True))
    values = signed_command(tuple(map(value, texts)))
    return values[0], values[1:]


def signed_command(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The words of a command line, each marked by what stands before it too."""
    signs = sign_of_command(tuple(without_variables(one) for one in values))
    return tuple(
        replace(one, sign=one.sign or signs.get(place)) for place, one in enumerate(values)
    )


def address(source: DefinitionText, node: object, pointer: str) -> Value:
    text = source.text(node, pointer)
    check_address(source, text, pointer, opening="${")
    return value(text)


def check_address(source: DefinitionText, text: str, pointer: str, *, opening: str) -> None:
    """An http or https address, or one that begins with a variable, is let by.

    Raises:
        ConfigError: `config_invalid`.
    """
    if text.startswith(opening) and not any(char.isspace() for char in text):
        return
    try:
        parts = urlsplit(text.replace(opening, "").replace("}", ""))
        fine = parts.scheme in ("http", "https") and bool(parts.netloc)
    except ValueError:
        fine = False
    if not fine or any(char.isspace() for char in text):
        hint = "write the whole address, beginning with https:// or http://"
        raise source.fault(pointer, "this is no http or https address", hint)


def headers(source: DefinitionText, node: object, pointer: str) -> Mapping[str, Value]:
    """Headers by name; names that differ in case only are refused (RFC 9110 §5.1)."""
    table = source.named(node, pointer)
    found: dict[str, Value] = {}
    for key, one in table.items():
        here = at(pointer, key)
        name = header_name(source, key, here)
        found[name] = value(source.text(one, here, empty=True), name=name)
    if len({name.lower() for name in found}) != len(found):
        raise source.fault(pointer, "a header stands twice", "keep one of the two spellings")
    return MappingProxyType(found)


def header_name(source: DefinitionText, key: str, pointer: str) -> str:
    """The name of a header (RFC 9110 §5.1)."""
    if not key or len(key) > 200 or not _HEADER.issuperset(key.lower()):
        hint = "use letters, digits and dashes, as in Authorization"
        raise source.fault(pointer, "this is no name of a header", hint)
    return key


def _table(source: DefinitionText, node: object, pointer: str) -> Mapping[str, Value]:
    found = {}
    for key, one in source.named(node, pointer).items():
        here = at(pointer, key)
        name = variable(source, key, here)
        found[name] = value(source.text(one, here, lines=True, empty=True), name=name)
    return MappingProxyType(found)


def variable(source: DefinitionText, key: str, pointer: str) -> str:
    """The name of an environment variable."""
    if "=" in source.name(key, pointer) or any(char.isspace() for char in key):
        hint = "write the name as key and the value beside it"
        raise source.fault(pointer, "this is no name of an environment variable", hint)
    return key


def _variable(source: DefinitionText, node: object, pointer: str) -> str:
    name = source.text(node, pointer)
    if not (name.isascii() and name.isidentifier()) or sign_of(name) is not None:
        hint = "name the variable that holds the secret; never write the secret itself here"
        raise source.fault(pointer, "this is no name of an environment variable", hint)
    return source.name(name, pointer)


def _variables(
    source: DefinitionText, node: object, pointer: str
) -> tuple[list[str], tuple[str, ...]]:
    names, remote = [], []
    for n, one in enumerate(source.items(node, pointer)):
        here = at(pointer, n)
        elsewhere = isinstance(one, dict) and one.get("source", "local") != "local"
        name = _variable(source, one.get("name") if isinstance(one, dict) else one, here)
        if elsewhere:
            remote.append(f"env_vars/{shown(name)}")
        else:
            names.append(name)
    return names, tuple(remote)


def _from_env(name: str, *, before: str = "") -> Value:
    text = f"${{{name}}}"
    return Value(
        text=before + text,
        references=(Reference(text=text, source=Source.ENV, name=name),),
    )
