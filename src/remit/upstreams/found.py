"""MCP servers as a person's files define them: values only, and none of them prints a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from remit.errors import ConfigError
from remit.upstreams.secretlike import Sign, shown, sign_of

_DOLLAR = re.compile(
    r"\$\{(?:(?P<scheme>[A-Za-z]+):(?!-))?(?P<name>[^{}$:]{1,200})(?::-(?P<default>[^{}]*))?\}"
)
_BRACES = re.compile(r"\{(?P<name>[^{}$]{1,200})\}")
_EDITOR = frozenset(
    {"workspaceFolder", "workspaceFolderBasename", "userHome", "pathSeparator", "/", "file",
     "fileBasename", "fileDirname", "cwd", "extensionInstallFolder", "CLAUDE_PLUGIN_ROOT",
     "CLAUDE_PLUGIN_DATA"}
)  # fmt: skip


class Kind(StrEnum):
    """How a server is reached: a program's standard streams, Streamable HTTP, or HTTP+SSE."""

    STDIO = "stdio"
    HTTP = "http"
    SSE = "sse"


class Source(StrEnum):
    """Who gives a variable its value: the environment, a file, a credential of remit.yaml, an
    answer, or the client itself."""

    ENV = "env"
    FILE = "file"
    CREDENTIAL = "credential"
    ASKED = "asked"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One variable inside a value; it is never expanded here.

    `text` is its spelling in the value, `name` that of the environment variable, file, question
    or client variable it stands for. `has_default` says that the file holds a default beside it.
    """

    text: str = field(repr=False)
    source: Source
    name: str
    has_default: bool = False

    def __repr__(self) -> str:
        return f"Reference({self.source.value}:{shown(self.name)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value as the file has it; only `text` holds it, and it prints as `***`.

    `sign` says why the text (with its variables taken out, their defaults left in) looks like a
    secret; None says only that nothing gave it away. `foreign` says that a publisher wrote it, not
    a person of this machine: a path in it stands for nothing here.
    """

    text: str
    references: tuple[Reference, ...] = ()
    sign: Sign | None = None
    foreign: bool = False

    def __repr__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that only a person can say, which a value refers to by name.

    The value that refers to it falls away where it is not required and has no answer.
    """

    name: str
    description: str = ""
    secret: bool = False
    required: bool = True
    default: Value | None = None
    choices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Question({shown(self.name)}, secret={self.secret}, required={self.required})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A published package that holds a server; `sha256` is that of its file, 64 hex digits."""

    registry: str
    identifier: str
    version: str | None = None
    sha256: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a definition stands: the kind of file, its path as given, a JSON pointer into it."""

    file: str
    path: str
    pointer: str
    project: str | None = None

    def __str__(self) -> str:
        return f"{self.path}#{self.pointer}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FoundServer:
    """One MCP server as a file defines it; its text form shows names, never values.

    A server of kind stdio has a command, one of kind http or sse a url. `ignored` are the keys
    that were there and are not taken. `enabled` is False where the file switches the server off.
    """

    name: str
    kind: Kind
    place: Place
    command: Value | None = None
    args: tuple[Value, ...] = ()
    cwd: Value | None = None
    env: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    url: Value | None = None
    headers: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    enabled: bool = True
    questions: tuple[Question, ...] = ()
    package: Package | None = None
    ignored: tuple[str, ...] = ()

    def values(self) -> Iterator[tuple[str, Value]]:
        """Each value with the JSON pointer that names it inside this server."""
        for key, one in (("command", self.command), ("cwd", self.cwd), ("url", self.url)):
            if one is not None:
                yield f"/{key}", one
        for at, arg in enumerate(self.args):
            yield f"/args/{at}", arg
        for part, table in (("env", self.env), ("headers", self.headers)):
            for key, value in table.items():
                yield f"/{part}/{escaped(key)}", value

    @property
    def secrets(self) -> Mapping[str, Sign]:
        """The values that look like secrets, by pointer, and why."""
        return {pointer: value.sign for pointer, value in self.values() if value.sign is not None}

    def __repr__(self) -> str:
        env = ", ".join(shown(key) for key in self.env)
        headers = ", ".join(shown(key) for key in self.headers)
        return (
            f"FoundServer({shown(self.name)}, {self.kind.value}, args={len(self.args)}, "
            f"env=[{env}], headers=[{headers}], secrets={len(self.secrets)})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one file defines: its servers, and a fault for each definition that cannot be taken."""

    servers: tuple[FoundServer, ...] = ()
    faults: tuple[ConfigError, ...] = ()
    ignored: tuple[str, ...] = ()


def value(text: str, *, name: str = "", secret: bool = False) -> Value:
    """A value in the `${…}` spelling of clients: `${VAR}`, `${env:VAR}`, `${input:id}`.

    Args:
        text: the value.
        name: what it is the value of.
        secret: the file itself says that it is one.
    """
    found = list(_DOLLAR.finditer(text))
    rest = _DOLLAR.sub(lambda match: match["default"] or "", text)
    return _value(text, tuple(map(_reference, found)), rest, name, secret)


def template(text: str, names: Mapping[str, str], *, name: str = "", secret: bool = False) -> Value:
    """A value in the `{name}` spelling of `server.json`; other braces are plain text.

    Args:
        text: the value.
        names: the questions that the names in braces stand for.
        name: what it is the value of.
        secret: the file itself says that it is one.
    """
    found = [match for match in _BRACES.finditer(text) if match["name"] in names]
    references = tuple(
        Reference(text=match[0], source=Source.ASKED, name=names[match["name"]]) for match in found
    )
    rest = _BRACES.sub(lambda match: "" if match["name"] in names else match[0], text)
    one = _value(text, references, rest, name, secret)
    return replace(one, sign=Sign.DECLARED) if secret and references else one


def value_as_is(text: str, *, name: str = "", secret: bool = False) -> Value:
    """A value of plain text, in which nothing is a variable."""
    return _value(text, (), text, name, secret)


def _value(
    text: str, references: tuple[Reference, ...], rest: str, name: str, secret: bool
) -> Value:
    declared = Sign.DECLARED if secret and rest.strip() else None
    return Value(text=text, references=references, sign=declared or sign_of(rest, name=name))


def _reference(match: re.Match[str]) -> Reference:
    scheme, name = match["scheme"], match["name"]
    if scheme == "input":
        source = Source.ASKED
    elif scheme == "env" or (scheme is None and name not in _EDITOR):
        source = Source.ENV
    else:
        source = Source.CLIENT
        name = name if scheme is None else f"{scheme}:{name}"
    return Reference(
        text=match[0], source=source, name=name, has_default=match["default"] is not None
    )


def without_variables(one: Value) -> str:
    """The text of a value without the variables in it; the defaults that they hold stay."""
    text = one.text
    for reference in one.references:
        match = _DOLLAR.fullmatch(reference.text)
        text = text.replace(reference.text, (match and match["default"]) or "", 1)
    return text


def escaped(key: str) -> str:
    """A key as one token of a JSON pointer (RFC 6901 §3), masked where it looks like a secret."""
    return shown(key).replace("~", "~0").replace("/", "~1")
