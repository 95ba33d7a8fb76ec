"""What can be told of MCP servers before any of them is asked: how they are reached, and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from remit.addresses import covers
from remit.backends import Delivery
from remit.catalog.command import RESERVED
from remit.catalog.safety import check_command
from remit.catalog.server_means import command_of, credentials_of, egress_of, prefix_of, profile_of
from remit.catalog.server_spec import Mode, ServerSpec
from remit.catalog.spec import EnvironmentSpec
from remit.errors import ConfigError
from remit.loopback import address_fault
from remit.model import (
    Command,
    Effect,
    Frozen,
    ResultKind,
    SessionMode,
    Tool,
)
from remit.profile import ELSEWHERE, Profile, RunnerKind
from remit.reach import plain_host
from remit.settings import lending, profiles
from remit.settings.credentials import ClientCredential, ConsentCredential
from remit.settings.profiles import Add, is_metadata
from remit.settings.runners import RunnersSection
from remit.upstreams.http_header import header_fault
from remit.upstreams.names import skeleton
from remit.visible import shown

RUNNERS_OF_PACKAGES = frozenset({"npx", "uvx", "bunx", "pipx"})
"""Programs that fetch another one each time they start."""

_STARTED_ONLY = (
    "runner", "session", "session_idle_s", "session_age_s", "session_limit", "unsafe_session_writes",
)  # fmt: skip
_REACHED_ONLY = ("sse", "authorization", "header", "scopes", "list_age_s")


def elsewhere(specs: Sequence[ServerSpec]) -> Mapping[str, Profile]:
    """The profile of calls over HTTP, if a server is reached so."""
    if all(spec.url is None for spec in specs):
        return {}
    return {ELSEWHERE: Profile(name=ELSEWHERE, runner=RunnerKind.HTTP)}


class Check:
    """Checks the servers of a configuration.

    Args:
        section: where their profiles and credentials are.
        add: takes each problem.
    """

    def __init__(
        self,
        specs: Sequence[ServerSpec],
        section: RunnersSection,
        known: Mapping[str, Profile],
        deliveries: Mapping[str, Delivery],
        add: Add,
    ) -> None:
        self._specs = specs
        self._section = section
        self._known = {**known, **elsewhere(specs)}
        self._deliveries = deliveries
        self._add = add

    def run(self, tools: Sequence[Tool]) -> None:
        """Tell everything that is wrong.

        Args:
            tools: the command tools, whose names servers' tools may not take.
        """
        if ELSEWHERE in self._section.profiles:
            why = "is the name of calls to MCP servers over HTTP"
            self._add(f"runners.profiles.{ELSEWHERE}", why, "give the profile another name")
        for number, spec in enumerate(self._specs):
            place = f"catalog.servers[{number}]"
            self._session(spec, place)
            self._tools(spec, place)
            if self._transport(spec, place):
                self._means(spec, place)
        self._names(tools)

    def _transport(self, spec: ServerSpec, place: str) -> bool:
        """Whether it is said in one way how the server is reached."""
        if spec.definition is not None and spec.command is None and spec.url is None:
            return False  # what is wrong with it was told when it was read
        if (spec.command is None) == (spec.url is None):
            hint = "write one of the two, or definition"
            self._add(place, "needs either command or url", hint)
            return False
        odd = _STARTED_ONLY if spec.url is not None else _REACHED_ONLY
        odd = (*odd, "egress", "credentials") if spec.url is not None else odd
        for name in sorted(spec.model_fields_set & set(odd)):
            other = "command" if spec.url is not None else "url"
            self._add(f"{place}.{name}", f"is for servers with a {other}", "leave it out")
        return spec.url is None or self._url(spec.url, f"{place}.url")

    def _url(self, url: str, place: str) -> bool:
        fault = address_fault(url)
        if fault is not None:
            self._add(place, fault, "write https://HOST[:PORT]/PATH; http:// is for loopback")
            return False
        host = urlsplit(url).hostname or ""
        if not plain_host(host):
            self._add(place, "has a host that could be read in two ways", "write it plainly")
        elif is_metadata(host):
            self._add(place, "is a metadata service", "no call may ever reach it")
        return True

    def _session(self, spec: ServerSpec, place: str) -> None:
        kept = spec.session is not SessionMode.PER_CALL
        if spec.session is SessionMode.SHARED and spec.credentials:
            self._add(
                f"{place}.session",
                "keeps a process for all callers, and what is lent for one could serve another",
                "write `session: per_caller` or `session: per_call`",
            )
        shown = [self._deliveries.get(each.ref) for each in spec.credentials]
        if kept and any(each is not None and each.file is not None for each in shown):
            self._add(
                f"{place}.session",
                "keeps a process, which would keep the credential in its file too",
                "have the credential injected, or write `session: per_call`",
            )
        if spec.unsafe_session_writes and not kept:
            why = "is set, and there is no session"
            self._add(f"{place}.unsafe_session_writes", why, "leave it out, or set session")

    def _tools(self, spec: ServerSpec, place: str) -> None:
        seen: set[str] = set()
        self._environment(spec.environment, f"{place}.environment")
        for number, said in enumerate(spec.tools):
            here = f"{place}.tools[{number}]"
            if said.name in seen:
                self._add(f"{here}.name", "is there twice", "say all of a tool in one place")
            seen.add(said.name)
            self._environment(said.environment, f"{here}.environment")
            if said.shadow and spec.mode is not Mode.SHADOW:
                why = "is set, and the server is not in shadow mode"
                self._add(f"{here}.shadow", why, "write `mode: shadow` for the server, or leave it")

    def _environment(self, said: EnvironmentSpec | None, place: str) -> None:
        if said is not None and (said.fixed is None) == (said.argument is None):
            self._add(place, "needs either fixed or argument", "give one of the two")

    # ------------------------------------------------------------------------------------- names

    def _names(self, tools: Sequence[Tool]) -> None:
        names: set[str] = set()
        prefixes: dict[str, str] = {}
        taken = {skeleton(tool.name): f"the command tool {tool.name}" for tool in tools}
        for number, spec in enumerate(self._specs):
            place = f"catalog.servers[{number}]"
            if spec.name in names:
                self._add(f"{place}.name", "is another server's", "give it one of its own")
            names.add(spec.name)
            shape = skeleton(prefix_of(spec))
            other = prefixes.setdefault(shape, spec.name) if shape else spec.name
            if other != spec.name:
                why = f"is the prefix of {other}, or looks like it"
                self._add(f"{place}.prefix", why, "give it one of its own")
            if f"{shape}_".startswith(RESERVED):
                why = f"makes names that begin with {RESERVED}, which are the gateway's own"
                self._add(f"{place}.prefix", why, "choose another")
            for at, alias in self._aliases(spec, place):
                if skeleton(alias).startswith(RESERVED):
                    why = f"begins with {RESERVED}: such names are the gateway's own"
                    self._add(at, why, "choose another")
                elif (known := taken.get(skeleton(alias))) is not None:
                    self._add(at, f"is the name of {known}, or looks like it", "choose another")
                taken[skeleton(alias)] = f"the alias {alias} of {spec.name}"

    def _aliases(self, spec: ServerSpec, place: str) -> Iterator[tuple[str, str]]:
        for number, said in enumerate(spec.tools):
            if said.alias is not None:
                yield f"{place}.tools[{number}].alias", said.alias

    # -------------------------------------------------------------- what its calls are made with

    def _means(self, spec: ServerSpec, place: str) -> None:
        """Hold calls of it against profiles and credentials, as is done with command tools."""
        try:
            command = command_of(spec, writes=True)
            if spec.command is not None:
                check_command(command, frozenset(), place="command")
            samples = [
                self._sample(spec, command, effect)
                for effect in sorted({spec.effect, *(t.effect or spec.effect for t in spec.tools)})
            ]
        except ConfigError as error:
            hint = error.hint or "docs/servers.md says what a server takes"
            if spec.command is not None and Path(spec.command.argv[0]).name in RUNNERS_OF_PACKAGES:
                hint = (
                    "what fetches a program at each start finds no network in a sandbox: `remit init "
                    "--import FILE --install` installs it once, and so does a `definition`"
                )
            self._add(f"{place}.{error.place}", error.message, hint)
            return
        told: dict[str, ConfigError] = {}
        for sample in samples:
            found = profiles.check_tools([sample], self._known)
            found += lending.check_tools([sample], self._section, self._deliveries, self._known)
            told |= {each.message: each for each in found}
        for each in told.values():
            why = each.message.removeprefix(f"the tool {spec.name} ")
            self._add(place, why, each.hint or "docs/servers.md says what a server takes")
        self._shown(spec, place)

    def _shown(self, spec: ServerSpec, place: str) -> None:
        """Whether what a server over HTTP is shown is a file's token, and is for that server."""
        if spec.scopes and spec.authorization is None:
            why = "are of the credential that the server is shown, and there is none"
            self._add(f"{place}.scopes", why, "write authorization, or leave them out")
        if "header" in spec.model_fields_set and spec.authorization is None:
            why = "is for the credential that the server is shown, and there is none"
            self._add(f"{place}.header", why, "write authorization, or leave it out")
        if (fault := header_fault(spec.header)) is not None:
            hint = 'such as `header: "X-Api-Key: {token}"`, or `header: "Authorization: Token {token}"`'
            self._add(f"{place}.header", fault, hint)
        section = self._section.credentials.get(spec.authorization or "")
        if isinstance(section, ClientCredential | ConsentCredential) and not covers(
            section.resource, spec.url or ""
        ):
            why = f"is for {section.resource}, and the server's url is not below that"
            hint = "each resource has a credential of its own"
            self._add(f"{place}.authorization", why, hint)
        shown = self._deliveries.get(spec.authorization or "")
        if shown is not None and shown.file is None:
            why = "is injected by the egress proxy, and Remit itself shows it to this server"
            hint = 'give the credential a file with `content: "{token}"`'
            self._add(f"{place}.authorization", why, hint)

    def _sample(self, spec: ServerSpec, command: Command, effect: Effect) -> Tool:
        return Tool(
            name=spec.name,
            description="",
            input_schema=Frozen(b"{}"),
            command=command,
            effect=effect,
            result=ResultKind.MCP,
            runner=profile_of(spec),
            egress=egress_of(spec),
            credentials=credentials_of(spec),
        )


def unsafe(specs: Sequence[ServerSpec]) -> Mapping[str, bool]:
    """The unsafe choices of servers, by the name of their key."""
    return {"unsafe_session_writes": any(spec.unsafe_session_writes for spec in specs)}


def warnings(specs: Sequence[ServerSpec]) -> list[str]:
    """What an operator should know of servers at start, a sentence each."""
    return [_shadowed(spec) for spec in specs if spec.mode is Mode.SHADOW]


def _shadowed(spec: ServerSpec) -> str:
    named = [said.name for said in spec.tools if said.shadow]
    effects = {spec.effect, *(said.effect for said in spec.tools if said.effect is not None)}
    if not named and effects == {Effect.DESTRUCTIVE}:
        return (
            f"the server {spec.name} has `mode: shadow`, and no tool is in shadow mode: destructive "
            "tools stay enforced, and so do those whose effect is not written; write `effect` for its "
            "tools, or for the server"
        )
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    but = f", except {', '.join(map(shown, named[:5]))}{more}" if named else ""
    unsaid = spec.effect is Effect.DESTRUCTIVE
    return (
        f"the server {spec.name} is in shadow mode: its calls run whatever policy says, and nobody is "
        f"asked to approve them; policy's answers are only recorded. Still enforced: its destructive "
        f"tools{but}{', and those whose effect is not written' if unsaid else ''}"
    )
