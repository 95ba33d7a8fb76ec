"""Commands that fetch a package each time they start: which package, at which version.

Such a command needs the network before it can begin, and runs what a registry holds on that day.
It is never taken as it is; what is read here says what could be installed once instead.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from remit.errors import ConfigError
from remit.upstreams.found import FoundServer
from remit.upstreams.refused import refused

_NPM = re.compile(
    r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*)(?:@(?P<version>[^@/:\s]+))?"
)
_PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:(?:@|==)(?P<version>[^@=\s]+))?"
)
_SEMVER = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")
_PEP440 = re.compile(r"\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?")

_QUIET = {
    "npx": frozenset({"-y", "--yes", "-q", "--quiet"}),
    "bunx": frozenset({"-y", "--yes", "--silent", "--bun"}),
    "uvx": frozenset({"-q", "--quiet", "-n", "--no-cache", "--isolated", "--refresh"}),
    "pipx": frozenset({"-q", "--quiet", "--no-cache"}),
}
_FROM = {
    "npx": ("-p", "--package"), "bunx": ("-p", "--package"), "uvx": ("--from",),
    "pipx": ("--spec",),
}  # fmt: skip
_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})
_DROPPED = re.compile(
    r"(?:-v|--volume|--mount|--network|--net|-p|--publish|-P|--publish-all|--privileged|--cap-add"
    r"|--device|--pid|--ipc|--userns|--security-opt|-u|--user)(?:=.*)?|-[vp].+"
)
_OTHERS = {
    ("pnpm", "dlx"), ("yarn", "dlx"), ("npm", "exec"), ("npm", "x"), ("bun", "x"), ("uv", "run"),
    ("deno", "run"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A package to install once: its kind, its name, its version (None: the newest), what of it
    is started, and where in the command line its own arguments begin.

    `sha256` is that of the package's file where its publisher says it, 64 hex digits.
    """

    kind: Literal["npm", "pypi"]
    package: str
    version: str | None
    program: str | None
    rest: int
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.package} ({self.kind}, {self.version or 'the newest version'})"


def launch_of(server: FoundServer, words: Sequence[str]) -> Launch | None:
    """What a command line would fetch; None for a program that is on this machine.

    Args:
        words: the program and its arguments.

    Raises:
        ConfigError: `config_invalid`: it fetches something in a way that is not taken.
    """
    name = os.path.basename(words[0]).lower().removesuffix(".exe").removesuffix(".cmd")
    if name == "uv" and tuple(words[1:3]) == ("tool", "run"):
        return _package(server, "uvx", words, 3)
    if name == "pipx" and tuple(words[1:2]) == ("run",):
        return _package(server, "pipx", words, 2)
    if name in ("npx", "bunx", "uvx"):
        return _package(server, name, words, 1)
    if name in _CONTAINERS:
        raise _container(server, name, words)
    if len(words) > 1 and (name, words[1]) in _OTHERS:
        raise refused(
            server,
            "/command",
            f"is fetched by `{name} {words[1]}` at each start",
            "install it, and write the program's own path as `command`",
        )
    return None


def _package(server: FoundServer, runner: str, words: Sequence[str], at: int) -> Launch:
    given, program, where = None, None, 0
    while at < len(words) and words[at].startswith("-"):
        word, at = words[at], at + 1
        if word == "--":
            break
        option, _, value = word.partition("=")
        if option in _FROM[runner] and given is None:
            if not value and at < len(words):
                value, at = words[at], at + 1
            given, where = value, at - 1
        elif word not in _QUIET[runner]:
            raise refused(
                server,
                f"/args/{at - 2}",
                f"gives `{runner}` an option that is not taken",
                f"leave it out, so that `{runner}` is given a package and its arguments alone",
            )
    if at >= len(words):
        raise refused(
            server, "/args", f"gives `{runner}` no package", "write which package it starts"
        )
    if given is None:
        given, where = words[at], at
    else:
        program = words[at]
    kind: Literal["npm", "pypi"] = "npm" if runner in ("npx", "bunx") else "pypi"
    package, version = _named(server, kind, given, f"/args/{where - 1}")
    if package == "mcp-remote":
        raise refused(
            server,
            "",
            "only carries messages to a server that is reached over HTTP",
            "write that server's address as `url` instead of a command",
        )
    return Launch(kind=kind, package=package, version=version, program=program, rest=at + 1)


def _named(
    server: FoundServer, kind: Literal["npm", "pypi"], text: str, part: str
) -> tuple[str, str | None]:
    match = (_NPM if kind == "npm" else _PYPI).fullmatch(text)
    if match is None or len(text) > 255:
        raise refused(
            server,
            part,
            "names a package in a way that is not taken",
            "write its name in the registry, with one exact version or none",
        )
    version = match["version"]
    if version in (None, "latest"):
        return match["name"], None
    exact = _SEMVER if kind == "npm" else _PEP440
    if not exact.fullmatch(version):
        raise refused(
            server,
            part,
            "names a range of versions or a tag",
            "write one exact version, or none for the newest",
        )
    return match["name"], version


def _container(server: FoundServer, name: str, words: Sequence[str]) -> ConfigError:
    dropped = sorted({m[0].partition("=")[0] for w in words[1:] if (m := _DROPPED.fullmatch(w))})
    options = [each if each.startswith("--") else each[:2] for each in dropped]
    also = f"; its {', '.join(dict.fromkeys(options))} would open the host to it" if options else ""
    return refused(
        server,
        "/command",
        f"is a container that `{name}` starts, which no sandbox of Remit can{also}",
        "have its image unpacked as the base of a profile (docs/runners.md), and write the "
        "program inside of it as `command`",
    )
