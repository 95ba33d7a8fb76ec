"""What `remit init --import` does, in its order: look, show, propose, install, write, point.

Nothing is changed before everything that can be told beforehand has been told.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remit.cli.imports.changes import Changes, examined, imported, make
from remit.cli.imports.config_text import as_text, with_entries
from remit.cli.imports.discovery import Seen, look, pins_of
from remit.cli.imports.effects import offered, with_effects
from remit.cli.imports.grants import with_grants
from remit.cli.imports.packages import install_package
from remit.cli.imports.pointing import point_clients
from remit.cli.imports.proposal import Proposal, needs_package, propose
from remit.cli.imports.published import settled
from remit.cli.imports.sight import Sight
from remit.cli.imports.sources import ClientFile, is_remit, reached, read_sources
from remit.cli.output import Exit, note, print_error, table
from remit.errors import Code, ConfigError
from remit.servers.announced import Announced
from remit.servers.pins import PinStore
from remit.upstreams.found import FoundServer
from remit.upstreams.installed import ENVIRONMENTS, Installed
from remit.upstreams.prefixes import propose_prefixes
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import shown
from remit.visible import visible

if TYPE_CHECKING:
    from remit.config import Settings

_NUMBERED = re.compile(r"catalog\.servers\[(\d+)\]\.?([a-z_.\[\]0-9]*)")
"""How a problem of one server begins; those of an import come first in the list."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person asked for; `choice` and `answers` are about a publisher's `server.json`."""

    sources: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    writable: tuple[Path, ...] = ()
    choice: int | None = None
    answers: tuple[str, ...] = ()
    _: KW_ONLY
    install: bool = False
    rewrite: bool = False
    dry_run: bool = False
    accept_hints: bool = False
    start: bool = True


@dataclass(slots=True, kw_only=True)
class _Import:
    """One import while it goes on."""

    wanted: Wanted
    settings: Settings
    taken: list[tuple[ClientFile, Proposal]] = field(default_factory=list)
    known: list[tuple[ClientFile, FoundServer]] = field(default_factory=list)
    faults: list[ConfigError] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.settings.file.parent

    def environment(self, name: str) -> Path:
        return self.root / ENVIRONMENTS / name


def import_servers(config: Path, wanted: Wanted, begin: Callable[[], None]) -> Exit:
    """Import into a configuration; `begin` makes one where there is none.

    Raises:
        RemitError: nothing of the import was written.
    """
    from remit.config import load

    files, faults = read_sources(wanted.sources)
    files = settled(files, wanted.choice, wanted.answers, install=wanted.install)
    _show(files)
    chosen = list(_chosen(files, wanted, config.parent))
    faults += [fault for file in files for fault in file.found.faults]
    if not config.exists():
        if wanted.dry_run:
            raise ConfigError(
                Code.CONFIG_NOT_FOUND,
                "there is no configuration to import into yet",
                place=str(config),
                hint="remit init makes one; then: remit init --import --dry-run",
            )
        begin()
    one = _Import(wanted=wanted, settings=load(config), faults=faults)
    try:
        _propose(one, chosen)
        _drop_what_does_not_fit(one)
        done = _write(one)
    except BaseException:
        for path in one.made:
            shutil.rmtree(path, ignore_errors=True)
        raise
    for fault in one.faults:
        print_error(fault)
    if not done:
        note("nothing was written")
    return Exit.NO if one.faults or not done else Exit.YES


def _show(files: Sequence[ClientFile]) -> None:
    rows = [
        [
            shown(server.name),
            server.kind.value + ("" if server.enabled else ", switched off"),
            str(len(server.secrets)),
            str(server.place),
        ]
        for file in files
        for server in file.found.servers
    ]
    if rows:
        click.echo(table(["server", "kind", "secrets", "found in"], rows))


def _chosen(
    files: Sequence[ClientFile], wanted: Wanted, root: Path
) -> Iterator[tuple[ClientFile, FoundServer]]:
    """The servers to take: switched on, asked for, each once."""
    seen: set[object] = set()
    names = {server.name for file in files for server in reached(file, Path.cwd())}
    for name in wanted.servers:
        if name not in names:
            raise ConfigError(
                Code.CONFIG_INVALID,
                "none of these files has a server of the name that --server gives",
                hint="write it as the table shows it",
            )
    for file in files:
        for server in reached(file, Path.cwd()):
            same = (server.name, *(one.text for _, one in server.values()))
            asked = server.name in wanted.servers if wanted.servers else server.enabled
            if not is_remit(server) and asked and same not in seen:
                seen.add(same)
                yield file, server


def _propose(one: _Import, chosen: Sequence[tuple[ClientFile, FoundServer]]) -> None:
    sections = one.settings.sections
    there = {server.name for server in sections.catalog.servers}
    before = imported(one.settings.data_dir)
    taken = there | {server.prefix for server in sections.catalog.servers if server.prefix}
    handles = set(sections.runners.credentials)
    for file, server in chosen:
        if before.get((str(file.path), server.place.pointer)) in there:
            note(f"{shown(server.name)} was imported already")
            one.known.append((file, server))
            continue
        (name,) = propose_prefixes([server.name], taken)
        try:
            proposal = _proposal(one, file, server, name)
            clash = handles & {loan.handle for loan in proposal.loans}
            if clash:
                raise refused(
                    server,
                    "",
                    f"needs the credential {min(clash)}, and there is another of that name",
                    "rename the server",
                )
        except ConfigError as fault:
            one.faults.append(fault)
            continue
        taken.add(name)
        handles |= {loan.handle for loan in proposal.loans}
        one.taken.append((file, proposal))


def _proposal(one: _Import, file: ClientFile, server: FoundServer, name: str) -> Proposal:
    settings, project = one.settings, server.place.project
    home = file.home if project is None else Path(project)
    private = (settings.data_dir, settings.ledger_path, settings.key_file, *settings.policy.private)
    sight = Sight(server, home=home, private=private, writable=one.wanted.writable)
    installed = _installed(one, server, name)
    try:
        return propose(server, name, sight, home=home, installed=installed)
    except ConfigError:
        _uninstall(one, installed)
        raise


def _uninstall(one: _Import, installed: Installed | None) -> None:
    """Remove what was installed for a server that is not taken after all."""
    if installed is not None:
        one.made.remove(installed.directory)
        shutil.rmtree(installed.directory, ignore_errors=True)


def _installed(one: _Import, server: FoundServer, name: str) -> Installed | None:
    launch = needs_package(server)
    if launch is None:
        return None
    agreed = one.wanted.install or (
        not one.wanted.dry_run and _asked(f"Install {launch} for {shown(server.name)}, once?")
    )
    if not agreed or one.wanted.dry_run:
        raise refused(
            server,
            "/command",
            f"is fetched at each start: {launch}. A sandbox without network cannot, and what is "
            "fetched could be another program each time",
            f"have it installed once, at one version: remit init {_quoted(server, one.root)}"
            f"{'' if one.wanted.choice is None else f' --choice {one.wanted.choice}'} --install",
        )
    directory = one.environment(name)
    if directory.exists():
        raise refused(
            server,
            "",
            f"would be installed in {ENVIRONMENTS}/{name}, which is there already",
            "remove that directory if nothing of remit.yaml names it",
        )
    installed = install_package(launch, directory)
    one.made.append(directory)
    note(f"installed {launch.package} {installed.version} in {ENVIRONMENTS}/{name}")
    return installed


def _quoted(server: FoundServer, root: Path) -> str:
    import shlex

    where = "" if root == Path.cwd() else f"{shlex.quote(str(root))} "
    path = visible(server.place.path)
    only = "" if shown(server.name) != server.name else f" --server {shlex.quote(server.name)}"
    return visible(f"{where}--import {shlex.quote(path)}{only}")


def _asked(question: str) -> bool:
    """A person's yes; without a person, no."""
    return sys.stdin.isatty() and click.confirm(visible(question), default=False, err=True)


def _write(one: _Import) -> bool:
    """Write what was proposed, and rewrite the clients' files; gives whether anything was."""
    settings, secrets = one.settings, dict[Path, str]()
    credentials = _credentials(one, secrets)
    seen = _try(one)
    entries = [proposal.entry for _, proposal in one.taken]
    if one.wanted.dry_run:
        click.echo(as_text(entries, credentials), nl=False)
        return bool(entries)
    pairs = [*one.known, *((file, proposal.server) for file, proposal in one.taken)]
    if not entries and not (pairs and one.wanted.rewrite):
        return bool(pairs)
    files = _files(one, entries, credentials) if entries else {}
    granted = with_grants(settings, offered([proposal for _, proposal in one.taken], seen))
    if granted is not None:
        files[granted[0]] = (granted[1], granted[2])
    store = PinStore(pins_of(settings))
    changes = Changes(
        data_dir=settings.data_dir,
        files=files,
        secrets=secrets,
        environments=one.made,
        pins=[pins_of(settings) / f"{name}.json" for name, each in seen.items() if each.pinned],
        servers=[
            (str(file.path), proposal.server.place.pointer, proposal.name)
            for file, proposal in one.taken
        ],
    )
    record = make(changes)
    _keep(seen, store)
    if entries:
        _say_what_was_written(one, seen, len(secrets), None if granted is None else granted[3])
    clients = any(file.client is not None for file, _ in pairs)
    rewrite = clients and (one.wanted.rewrite or _asked("Have the clients speak to Remit only?"))
    point_clients(record, pairs, settings, rewrite=rewrite)
    return True


def _keep(seen: Mapping[str, Seen], store: PinStore) -> None:
    """What was seen, as the gateway keeps it."""
    announced = Announced(store.directory)
    for name, each in seen.items():
        if each.pinned:
            store.write(name, each.pinned)
        if each.why is None:
            announced.put(name, each.announces)


def _drop_what_does_not_fit(one: _Import) -> None:
    """Leave out each server with which the configuration would not be valid, and say why.

    Raises:
        ConfigError: it would not be valid for a reason that is no server's.
    """
    while one.taken:
        try:
            entries = [proposal.entry for _, proposal in one.taken]
            _files(one, entries, _credentials(one, {}))
            return
        except ConfigError as problem:
            found = _NUMBERED.match(problem.message)
            if found is None or int(found[1]) >= len(one.taken):
                raise
            _, proposal = one.taken.pop(int(found[1]))
            why = f"does not fit into remit.yaml: its {found[2]}{problem.message[found.end() :]}"
            hint = problem.hint or "remit init --import --dry-run prints its entry"
            one.faults.append(refused(proposal.server, "", why, hint))
            _uninstall(one, proposal.installed)


def _try(one: _Import) -> Mapping[str, Seen]:
    """Start what can be started, and put the effects that the operator takes into the entries."""
    proposals = [proposal for _, proposal in one.taken]
    if not one.wanted.start or one.wanted.dry_run or not proposals:
        return {}
    seen = look(one.settings, [proposal.entry for proposal in proposals])

    def agreed(question: str) -> bool:
        return one.wanted.accept_hints or _asked(question)

    found = with_effects(proposals, seen, agreed)
    one.taken = [(file, new) for (file, _), new in zip(one.taken, found, strict=True)]
    return seen


def _files(
    one: _Import, entries: Sequence[Mapping[str, Any]], credentials: Mapping[str, Any]
) -> dict[Path, tuple[bytes, bytes]]:
    """The configuration as it is and as it would be, which is checked before anything is written."""
    path = one.settings.file
    comments = [f"from {visible(str(proposal.server.place))}" for _, proposal in one.taken]
    before = path.read_bytes()
    after = with_entries(before, entries, credentials, comments)
    problems = examined(path, after)
    if problems:
        raise problems[0]
    return {path: (before, after)}


def _credentials(one: _Import, secrets: dict[Path, str]) -> dict[str, Any]:
    """The sections of `runners.credentials`; what their files are to hold goes into `secrets`."""
    folder, sections = one.settings.data_dir / "secrets", dict[str, Any]()
    for loan in (loan for _, proposal in one.taken for loan in proposal.loans):
        section = dict(loan.section)
        if loan.file is not None:
            path = folder / loan.file
            where = os.path.relpath(path, one.root) if path.is_relative_to(one.root) else path
            section = {"broker": "static", "secret": f"file:{where}", **section}
            if loan.secret is not None:
                secrets[path] = loan.secret
        sections[loan.handle] = section
    return sections


def _say_what_was_written(
    one: _Import, seen: Mapping[str, Seen], secrets: int, group: str | None
) -> None:
    noun = "server" if len(one.taken) == 1 else "servers"
    click.echo(f"wrote {len(one.taken)} {noun} into {visible(str(one.settings.file))}")
    folder = visible(str(one.settings.data_dir / "secrets"))
    for _, proposal in one.taken:
        facts = [proposal.server.kind.value]
        facts += [f"version {proposal.installed.version}"] if proposal.installed else []
        found = seen.get(proposal.name)
        if found is not None and found.why is None:
            many = "tool" if len(found.tools) == 1 else "tools"
            facts.append(f"{len(found.tools)} {many} pinned")
        elif found is not None:
            facts.append("no tools pinned, as said above")
        else:
            facts.append("its tools are pinned when `remit serve` first sees them")
        click.echo(f"  {proposal.name:<16} {', '.join(facts)}")
        for line in proposal.notes:
            note(f"    {visible(line)}")
        for loan in proposal.loans:
            if loan.missing:
                note(f"    write the secret itself into {folder}/{loan.missing}, with mode 0600")
    if secrets:
        note(f"What looked like a secret ({secrets}) is in {folder}, for you alone to read.")
    if group is not None:
        note(f"policy/data.json grants the tools that were seen to {visible(group)}. A read needs")
        note("nobody then; every other tool needs a person's agreement to each call.")
    else:
        note("Nobody has a grant for their tools: policy has to give one (policy/data.json).")
    note("A gateway that is running takes this at its next start.")
