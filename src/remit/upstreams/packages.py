"""The command that starts a published package, as `server.json` describes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from remit.upstreams.definition_text import DefinitionText
from remit.upstreams.found import Package, Value

RUNNERS = {
    "npm": ("npx", "bunx"),
    "pypi": ("uvx",),
    "oci": ("docker", "podman"),
    "nuget": ("dnx",),
}
"""Kinds of packages that a command can be made for, with their runners; the first is used."""

_NAMES = {
    "npm": re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*", re.IGNORECASE),
    "pypi": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "oci": re.compile(
        r"[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9][a-z0-9._-]*)*"
        r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[a-f0-9]{64})?"
    ),
    "nuget": re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*"),
}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,127}")
_OPEN = re.compile(r"latest|(?:.*\.)?[x*](?:\..*)?", re.IGNORECASE)
_SHA256 = re.compile(r"[a-f0-9]{64}")


def package(source: DefinitionText, table: Mapping[str, Any], pointer: str) -> Package:
    """Which package it is, of which exact version.

    Raises:
        ConfigError: `config_invalid` for a kind of package that no command can be made for, a name
            that could be read as an option or an address, and a version that is none or is open.
    """
    registry = source.text(table.get("registryType"), f"{pointer}/registryType")
    if registry not in RUNNERS:
        hint = f"Remit takes {', '.join(RUNNERS)}; define the server by its command instead"
        raise source.fault(f"{pointer}/registryType", "this kind of package is not taken", hint)
    here = f"{pointer}/identifier"
    identifier = source.text(table.get("identifier"), here)
    if len(identifier) > 255 or not _NAMES[registry].fullmatch(identifier):
        hint = "give the package's name alone; the version has a key of its own"
        raise source.fault(here, f"this is no name of a package of {registry}", hint)
    version = _version(source, table, registry, identifier, pointer)
    sha256, base = table.get("fileSha256"), table.get("registryBaseUrl")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        hint = "write the SHA-256 of the file as 64 small hex digits"
        raise source.fault(f"{pointer}/fileSha256", "this is no digest", hint)
    return Package(
        registry=registry,
        identifier=identifier,
        version=version,
        sha256=sha256,
        base_url=None if base is None else source.text(base, f"{pointer}/registryBaseUrl"),
    )


def _version(
    source: DefinitionText, table: Mapping[str, Any], registry: str, identifier: str, pointer: str
) -> str | None:
    node, here = table.get("version"), f"{pointer}/version"
    if node is None and registry == "oci" and _tag(identifier) not in (None, "latest"):
        return None
    version = "" if node is None else source.text(node, here)
    if not _VERSION.fullmatch(version) or _OPEN.fullmatch(version):
        hint = "name one exact version, so that what runs is what was looked at"
        raise source.fault(here, "the package has no exact version", hint)
    return version


def _tag(image: str) -> str | None:
    """The tag or digest that an image's name carries itself."""
    last = image.rpartition("/")[2]
    if "@" in last:
        return last.partition("@")[2]
    return last.partition(":")[2] or None


def command_line(
    one: Package,
    runner: str,
    arguments: tuple[Value, ...],
    env: tuple[str, ...],
) -> tuple[Value, ...]:
    """The words that start a package: its runner, the package, the package's arguments."""
    before: list[str] = []
    middle: list[str] = []
    after: list[str] = []
    match one.registry:
        case "oci":
            before = ["run", "-i", "--rm"]
            middle = [word for name in env for word in ("-e", name)]
            tagged = one.version is None or _tag(one.identifier) is not None
            name = one.identifier if tagged else f"{one.identifier}:{one.version}"
        case "nuget":
            before = ["--yes"]
            name = f"{one.identifier}@{one.version}"
            after = ["--"] if arguments else []
        case _:
            before = ["-y"] if runner == "npx" else []
            name = f"{one.identifier}@{one.version}"
    return (
        *map(_plain, (runner, *before)),
        *map(_plain, (*middle, name, *after)),
        *arguments,
    )


def _plain(text: str) -> Value:
    return Value(text=text)
