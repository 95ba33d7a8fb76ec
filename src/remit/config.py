"""The configuration: `remit.yaml`, variables and flags become one checked, frozen `Settings`.

Everything that can be told without starting anything is told here: unknown keys, bad values,
addresses that would be open to the network, tools that could be misused, secrets that are absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from remit.backends import Delivery
from remit.catalog.command import build_tool
from remit.catalog.server_spec import ServerSpec
from remit.catalog.store import CommandCatalog
from remit.errors import Code, ConfigError
from remit.identity.keys import CallerKey, KeyIdentity, OperatorKey, token_hash
from remit.model import Actor, Caller, CallerKind, Operator, Tool
from remit.notify import HttpChannel
from remit.profile import Profile
from remit.settings import definitions, enforcement, lending, mounts, profiles, servers
from remit.settings.address import Address
from remit.settings.channels import read_channels
from remit.settings.enforcement import EnforcementSettings
from remit.settings.problems import problems_of
from remit.settings.secret import SecretRef
from remit.settings.sections import KeyEntry, OperatorEntry, Sections
from remit.settings.sources import Sources, gather

DEFAULT_FILE = "remit.yaml"
FILE_VARIABLE = "REMIT_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that an operator may set, checked. Paths are absolute; `sections` has the rest.

    `callers` and `operators` hold hashes, never tokens.
    """

    file: Path
    sections: Sections
    tools: tuple[Tool, ...]
    servers: tuple[ServerSpec, ...]
    callers: tuple[CallerKey, ...]
    operators: tuple[OperatorKey, ...]
    listen: Address
    admin: Address
    data_dir: Path
    policy: EnforcementSettings
    channels: Mapping[str, HttpChannel]
    profiles: Mapping[str, Profile]
    deliveries: Mapping[str, Delivery]
    ledger_path: Path
    key_file: Path
    sources: Sources
    notes: tuple[str, ...] = ()

    @property
    def operator_token_file(self) -> Path:
        """Where `remit init` put the first operator's token."""
        return self.data_dir / "keys" / "operator.token"

    @property
    def public_url(self) -> str | None:
        """Where people's browsers find the MCP door, without a path; None if none can."""
        here = f"http://{self.listen}" if self.listen.loopback and self.listen.port else None
        return self.sections.server.public_url or here

    def unsafe(self) -> tuple[str, ...]:
        """The unsafe choices in force, by the name of their key."""
        found = {
            "unsafe_same_user": self.sections.identity.unsafe_same_user,
            "unsafe_degraded": self.sections.runners.sandbox.unsafe_degraded,
            "unsafe_any": not self.policy.portable,
            "unsafe_plain": bool(self.sections.runners.egress.unsafe_plain),
            **servers.unsafe(self.servers),
            **lending.unsafe(self.sections.runners),
        }
        return tuple(name for name, chosen in found.items() if chosen)

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know at start, a sentence each."""
        found = []
        for name, address in (("server.listen", self.listen), ("server.admin", self.admin)):
            if not address.loopback:
                found.append(
                    f"{name} is {address}: keys cross the network in plain HTTP; "
                    "put a proxy with TLS in front"
                )
        found += [*self.notes, *servers.warnings(self.servers)]
        found += [f"{name} is set" for name in self.unsafe()]
        return tuple(found)


def load(
    path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read and check the configuration.

    Args:
        path: the file.
        environ: the environment; `REMIT_SECTION__KEY` sets `section.key`. The process's own if
            None.
        flags: dotted places and values from the command line; None values are left out.

    Raises:
        ConfigError: the first thing that is wrong; its message says how many more there are.
    """
    settings, problems = examine(path, environ=environ, flags=flags)
    if settings is None:
        first, more = problems[0], len(problems) - 1
        also = f" (and {more} more: `remit check` lists all)" if more else ""
        raise ConfigError(first.code, first.message + also, place=first.place, hint=first.hint)
    return settings


def examine(
    path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[Settings | None, list[ConfigError]]:
    """As `load`, but gives everything that is wrong instead of raising the first."""
    environ = os.environ if environ is None else environ
    try:
        sources = gather(path, environ, flags or {})
    except ConfigError as exc:
        return None, [exc]
    given = {key: value for key, value in sources.values.items() if value is not None}
    try:
        sections = Sections.model_validate(given)
    except ValidationError as exc:
        return None, problems_of(exc, Sections, sources.where)
    check = _Check(path.absolute(), sections, sources, environ)
    settings = check.settings()
    return (None, check.problems) if check.problems else (settings, [])


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "remit.yaml",
        **{k: v for k, v in Sections.model_json_schema().items() if k != "title"},
    }


class _Check:
    """What cannot be told from one key alone; collects every problem."""

    def __init__(
        self, file: Path, sections: Sections, sources: Sources, environ: Mapping[str, str]
    ) -> None:
        self._file = file
        self._base = file.parent
        self._sections = sections
        self._sources = sources
        self._environ = environ
        self.problems: list[ConfigError] = []

    def settings(self) -> Settings:
        found = definitions.expanded(self._sections, self._base, self._add)
        self._sections = found.sections
        for place, file in found.origins.items():
            self._sources.came_from(place, file)
        server, ledger = self._sections.server, self._sections.ledger
        runners = self._sections.runners
        data_dir = self._path(server.data_dir)
        settings = Settings(
            file=self._file,
            sections=self._sections,
            tools=tuple(self._tools()),
            servers=tuple(self._sections.catalog.servers),
            callers=tuple(self._callers()),
            operators=tuple(self._operators()),
            listen=Address.parse(server.listen),
            admin=Address.parse(server.admin),
            data_dir=data_dir,
            policy=self._policy(),
            channels=self._channels(),
            profiles=profiles.read_profiles(runners, self._base, self._add),
            deliveries=lending.read_deliveries(runners, self._add),
            ledger_path=self._path(ledger.path) if ledger.path else data_dir / "ledger.db",
            key_file=self._path(ledger.key_file) if ledger.key_file else data_dir / "keys/log.key",
            sources=self._sources,
            notes=found.notes,
        )
        self._check_runners(settings)
        self._check_mounts(settings)
        self._check_keys(settings)
        self._check_addresses(settings)
        approvals = self._sections.approvals
        if approvals.ttl_s > approvals.ttl_max_s:
            self._add("approvals.ttl_s", "is longer than approvals.ttl_max_s", "lower it")
        return settings

    def _policy(self) -> EnforcementSettings:
        check = enforcement.Check(self._sections.policy, self._base, self._environ)
        settings = check.settings()
        for found in check.problems:
            where = self._sources.where(found.place or "policy")
            self.problems.append(
                ConfigError(found.code, found.message, place=where, hint=found.hint)
            )
        return settings

    def _channels(self) -> Mapping[str, HttpChannel]:
        found: list[ConfigError] = []
        sections = self._sections.policy.notify
        channels = dict(read_channels(sections, self._base, self._environ, found))
        for each in found:
            where = self._sources.where(each.place or "policy.notify")
            self.problems.append(ConfigError(each.code, each.message, place=where, hint=each.hint))
        return channels

    def _path(self, text: str) -> Path:
        return Path(os.path.normpath(self._base / text))

    def _add(self, place: str, message: str, hint: str, code: Code = Code.CONFIG_INVALID) -> None:
        where = self._sources.where(place)
        self.problems.append(ConfigError(code, f"{place} {message}", place=where, hint=hint))

    def _tools(self) -> Iterator[Tool]:
        seen: dict[str, Tool] = {}
        for index, spec in enumerate(self._sections.catalog.tools):
            try:
                tool = build_tool(spec)
                other = seen.setdefault(tool.name.casefold(), tool)
                CommandCatalog([tool] if other is tool else [other, tool])
            except ConfigError as exc:
                here = f"catalog.tools[{index}].{exc.place or 'name'}"
                self.problems.append(
                    ConfigError(
                        exc.code,
                        f"the tool {spec.name}: {exc.message} ({here})",
                        place=self._sources.where(here),
                        hint=exc.hint,
                    )
                )
                continue
            yield tool

    def _check_runners(self, settings: Settings) -> None:
        runners, tools = self._sections.runners, settings.tools
        profiles.check_egress(runners, self._add)
        found = profiles.check_tools(tools, settings.profiles)
        found += lending.check_tools(tools, runners, settings.deliveries, settings.profiles)
        of_servers = (settings.servers, runners, settings.profiles, settings.deliveries)
        servers.Check(*of_servers, self._add).run(tools)
        numbers = {spec.name: n for n, spec in enumerate(self._sections.catalog.tools)}
        for each in found:
            where = self._sources.where(f"catalog.tools[{numbers[each.place or '']}].name")
            self.problems.append(ConfigError(each.code, each.message, place=where, hint=each.hint))

    def _check_mounts(self, settings: Settings) -> None:
        """A run that sees Remit's keys or ledger, or can change its policy, could do anything."""
        policy = settings.policy
        secret = [settings.data_dir, settings.ledger_path, settings.key_file, *policy.private]
        in_force = [settings.file, *policy.paths, *policy.sockets]
        in_force += [
            self._path(spec.definition.file) for spec in settings.servers if spec.definition
        ]
        for place, mount in mounts.declared(self._sections):
            private = secret + in_force if mount.writable else secret
            if any(_overlap(Path(mount.source), path) for path in private):
                self._add(
                    f"{place}.source",
                    "would give a run Remit's own keys, ledger, policy or configuration",
                    "mount a directory that does not hold them",
                    Code.CATALOG_INVALID,
                )
        for place, folder in mounts.below_written(self._sections, settings.profiles):
            self._add(
                place,
                f"lies in {folder}, to which runs may write: one could put a link in its place",
                "take it from a directory that no run may write to",
                Code.CATALOG_INVALID,
            )
        for name, profile in settings.profiles.items():
            base = profile.base.path
            if base is not None and any(_overlap(Path(base), path) for path in secret):
                self._add(
                    f"runners.profiles.{name}.base.path",
                    "would give a run Remit's own keys or ledger",
                    "keep base systems apart from Remit's own files",
                )

    def _callers(self) -> Iterator[CallerKey]:
        identity = self._sections.identity
        for index, entry in enumerate(identity.keys):
            digest = self._digest(entry, f"identity.keys[{index}]")
            chain = tuple(Actor(subject=s, kind=CallerKind.HUMAN) for s in entry.on_behalf_of)
            caller = Caller(
                tenant=identity.tenant,
                subject=entry.subject,
                kind=entry.kind,
                groups=tuple(entry.groups),
                chain=chain,
                expires_ms=_ms(entry.expires),
            )
            yield CallerKey(id=entry.id, sha256=digest, caller=caller)

    def _operators(self) -> Iterator[OperatorKey]:
        for index, entry in enumerate(self._sections.identity.operators):
            digest = self._digest(entry, f"identity.operators[{index}]")
            operator = Operator(
                subject=entry.subject,
                groups=tuple(entry.groups),
                may=frozenset(entry.may),
                expires_ms=_ms(entry.expires),
            )
            yield OperatorKey(id=entry.id, sha256=digest, operator=operator)

    def _digest(self, entry: KeyEntry | OperatorEntry, place: str) -> str:
        if (entry.sha256 is None) == (entry.token is None):
            self._add(
                place,
                "needs either sha256 or token",
                "`remit config new-key` makes a key and prints its sha256",
            )
        if entry.token is None:
            return entry.sha256 or ""
        try:
            secret = SecretRef.parse(entry.token).read(self._base, self._environ).reveal()
        except ConfigError as exc:
            where = self._sources.where(f"{place}.token")
            self.problems.append(ConfigError(exc.code, exc.message, place=where, hint=exc.hint))
            return ""
        if not secret.startswith(f"remit_{entry.id}_") or len(secret) != len(entry.id) + 50:
            self._add(
                f"{place}.token",
                "does not lead to a token of this id",
                f"make one with `remit config new-key {entry.id}`",
            )
        return token_hash(secret)

    def _check_keys(self, settings: Settings) -> None:
        if self.problems:
            return
        try:
            KeyIdentity(settings.callers, settings.operators, now=lambda: 0)
        except ConfigError as exc:
            where = self._sources.where("identity")
            self.problems.append(ConfigError(exc.code, exc.message, place=where, hint=exc.hint))

    def _check_addresses(self, settings: Settings) -> None:
        server = self._sections.server
        doors = (
            ("server.listen", settings.listen, settings.callers, "identity.keys"),
            ("server.admin", settings.admin, settings.operators, "identity.operators"),
        )
        for place, address, keys, section in doors:
            if address.loopback:
                continue
            if not keys:
                self._add(
                    place,
                    "would be open to the network, and nobody has a key",
                    f"listen on 127.0.0.1, or add a key to {section}",
                    Code.ADDRESS_REFUSED,
                )
            elif not server.allowed_hosts:
                self._add(
                    place,
                    "would be open to the network, and no Host header would be accepted there",
                    "name the hosts that clients use in server.allowed_hosts",
                    Code.ADDRESS_REFUSED,
                )
        if settings.listen == settings.admin and settings.listen.port:
            self._add("server.admin", "is the same as server.listen", "give it another port")


def _overlap(mount: Path, private: Path) -> bool:
    """Whether one holds the other, as written or after symbolic links."""
    pairs = ((mount, private), (mount.resolve(), private.resolve()))
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a, b in pairs)


def _ms(instant: str | None) -> int | None:
    return None if instant is None else int(datetime.fromisoformat(instant).timestamp() * 1000)
