"""What one found server becomes in remit.yaml: its entry, its loans, and what a person must know."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from remit.cli.imports.lent import Loan, is_secret, of_header, of_variable, said_of
from remit.cli.imports.sight import Sight
from remit.loopback import address_fault
from remit.model import SHOWN_AS
from remit.settings.definitions import PLACEHOLDER
from remit.upstreams.found import FoundServer, Kind, Reference, Source, Value
from remit.upstreams.installed import Installed
from remit.upstreams.launcher import Launch, launch_of
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import names_a_secret, shown, sign_of

_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One server as it would stand in remit.yaml."""

    name: str
    server: FoundServer
    entry: Mapping[str, Any]
    loans: tuple[Loan, ...] = ()
    notes: tuple[str, ...] = ()
    installed: Installed | None = None


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A server while it is being read."""

    name: str
    server: FoundServer
    home: Path
    environ: Mapping[str, str]
    loans: list[Loan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plain(self, part: str, one: Value) -> str:
        """A value that is no secret, with its variables as they are now.

        Raises:
            ConfigError: it looks like a secret, or a variable of it has no value here.
        """
        text = one.text
        for each in one.references:
            text = text.replace(each.text, self._expanded(part, each), 1)
        if one.sign is not None or (one.references and sign_of(text, name=part.rpartition("/")[2])):
            raise refused(
                self.server,
                part,
                "has what looks like a secret where Remit cannot keep one",
                "give it to the server in a variable of its `env`, or take it out",
            )
        return text

    def _expanded(self, part: str, reference: Reference) -> str:
        if reference.source is Source.CLIENT:
            known = {
                "workspaceFolder": str(self.home), "userHome": str(Path.home()),
                "workspaceFolderBasename": self.home.name, "pathSeparator": os.sep, "/": os.sep,
            }  # fmt: skip
            if reference.name in known:
                return known[reference.name]
        if reference.source is Source.ENV and not names_a_secret(reference.name):
            default = reference.text.partition(":-")[2].removesuffix("}")
            text = self.environ.get(reference.name, default if reference.has_default else None)
            if text is not None:
                self.notes.append(
                    f"{shown(reference.name)} was replaced by its value; a later one is not seen"
                )
                return text
        raise refused(
            self.server,
            part,
            "has a variable that has no value here",
            "write the value itself into the client's file, or set the variable, and import again",
        )


def propose(
    server: FoundServer,
    name: str,
    sight: Sight,
    *,
    home: Path,
    installed: Installed | None = None,
    environ: Mapping[str, str] | None = None,
) -> Proposal:
    """What a server becomes.

    Args:
        name: what it is to be called in remit.yaml.
        sight: makes its mounts.
        home: the directory its file's project is in.
        installed: where its package stands, for a server that a package runner starts.
        environ: this process's environment if None.

    Raises:
        ConfigError: something of it cannot be taken; the error names the place in its file.
    """
    if sign_of(server.name) is not None:
        raise refused(server, "", "has a name that looks like a secret", "rename it")
    environment = os.environ if environ is None else environ
    draft = _Draft(name=name, server=server, home=home, environ=environment)
    if server.ignored:
        draft.notes.append("not taken of its entry: " + ", ".join(server.ignored))
    stdio = server.kind is Kind.STDIO
    entry = _program(draft, sight, installed) if stdio else _address(draft)
    return Proposal(
        name=name,
        server=server,
        entry={"name": name, **entry},
        loans=tuple(draft.loans),
        notes=tuple(dict.fromkeys(draft.notes)),
        installed=installed,
    )


def needs_package(server: FoundServer) -> Launch | None:
    """The package that its command would fetch, if it is one that can be installed.

    Raises:
        ConfigError: it fetches something in a way that is not taken.
    """
    if server.kind is not Kind.STDIO or server.command is None:
        return None
    launch = launch_of(server, [server.command.text, *(arg.text for arg in server.args)])
    if launch is None or server.package is None:
        return launch
    return replace(launch, sha256=server.package.sha256)


def _address(draft: _Draft) -> dict[str, Any]:
    server = draft.server
    assert server.url is not None
    url = draft.plain("/url", server.url)
    if (fault := address_fault(url)) is not None:
        raise refused(
            server, "/url", f"has an address that {fault}", "give it as https://host/path"
        )
    entry: dict[str, Any] = {"url": url}
    if server.kind is Kind.SSE:
        entry["sse"] = True
    for header, one in server.headers.items():
        part = f"/headers/{shown(header)}"
        if header.lower() == "authorization" or is_secret(header, one, server):
            if draft.loans:
                raise refused(
                    server,
                    part,
                    "has a second secret, and Remit shows a server one",
                    "leave the one out that it can do without, and import again",
                )
            loan, form = of_header(server, draft.name, header, part, one)
            draft.loans.append(loan)
            entry["authorization"] = loan.handle
            if form != SHOWN_AS:
                entry["header"] = form
        else:
            draft.notes.append(f"the header {shown(header)} is not sent any more")
    return entry


def _program(draft: _Draft, sight: Sight, installed: Installed | None) -> dict[str, Any]:
    server = draft.server
    assert server.command is not None
    words = [
        draft.plain(f"/args/{n}" if n >= 0 else "/command", one)
        for n, one in enumerate((server.command, *server.args), -1)
    ]
    if installed is None:
        argv = sight.started(words[0], "/command")
        rest = 1
    else:
        launch = needs_package(server)
        assert launch is not None
        rest = launch.rest
        argv = installed.words(sight.add(installed.directory, draft.name))
        if installed.program is not None:
            argv[0] = sight.program(argv[0], "/command")
    argv += [
        words[n]
        if server.args[n - 1].foreign
        else sight.word(words[n], f"/args/{n - 1}", after=words[n - 1])
        for n in range(rest, len(words))
    ]
    if server.cwd is not None:
        place = sight.directory(draft.plain("/cwd", server.cwd), "/cwd")
        argv = ["/usr/bin/env", "-C", place, *argv]
    env, means = _environment(draft, sight)
    mounts = sight.entries()
    if "GIT_CONFIG_COUNT" not in env:
        env |= _repositories(mounts)
    command: dict[str, Any] = {"argv": argv}
    command |= {"env": env} if env else {}
    command |= {"mounts": mounts} if mounts else {}
    draft.notes += sight.notes()
    if not means.get("egress"):
        draft.notes.append("it has no network; add what it must reach under `egress`")
    return {"command": command, **means}


def _repositories(mounts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What lets git work in a repository that belongs to another user than the run's.

    Git reads `safe.directory` from the environment too (gitconfig, "safe.directory").
    """
    found = [each["name"] for each in mounts if (Path(each["source"]) / ".git").exists()]
    env = {"GIT_CONFIG_COUNT": str(len(found))} if found else {}
    for number, name in enumerate(found):
        env |= {
            f"GIT_CONFIG_KEY_{number}": "safe.directory",
            f"GIT_CONFIG_VALUE_{number}": f"/mnt/{name}",
        }
    return env


def _environment(draft: _Draft, sight: Sight) -> tuple[dict[str, str], dict[str, Any]]:
    server, env = draft.server, dict[str, str]()
    hosts, handles = dict[str, None](), list[dict[str, str]]()
    for variable, one in server.env.items():
        part = f"/env/{shown(variable)}"
        if not variable or variable[0].isdigit() or not set(variable) <= set(_NAME):
            raise refused(server, part, "has a variable that Remit cannot name", "rename it")
        if variable.startswith("REMIT_"):
            raise refused(server, part, "has a variable of Remit's own", "take it out")
        if not is_secret(variable, one, server):
            text = draft.plain(part, one)
            env[variable] = text if one.foreign else sight.word(text, part)
            continue
        loan, site = of_variable(server, draft.name, variable, one)
        draft.loans.append(loan)
        handles.append({"ref": loan.handle})
        draft.notes.append(said_of(loan, variable, site))
        if site is not None:
            env[variable] = PLACEHOLDER
            hosts[site.host] = None
    means: dict[str, Any] = {}
    if hosts:
        means["egress"] = [{"host": host, "port": 443} for host in hosts]
    if handles:
        means["credentials"] = handles
    return env, means
