"""The processes beside the gateway, put together: keeper, egress proxy, and the spawner of runs.

They are started before the gateway has a thread or opens its ledger, and at once. Each is given what it needs and no more: only the keeper reads what references to secrets
name, and only it and the proxy ever hold what a run is lent.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from remit.addresses import split_authority
from remit.config import Settings
from remit.errors import Code, ConfigError
from remit.model import Command, InputMode, Limits, RunSpec, SessionMode
from remit.ports import Clock, Runner
from remit.profile import Profile
from remit.runners.credentials.client import KeeperClient, KeeperSettings
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from remit.runners.pool import SlotClass
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.runners.slots import classes_of
from remit.runners.users import exist_here
from remit.secret import SecretRef
from remit.settings.credentials import (
    CredentialSection,
    ExchangeCredential,
    GithubCredential,
    StaticCredential,
)
from remit.upstreams.asking import Seen
from remit.upstreams.http_asking import PooledServers
from remit.upstreams.runner import SessionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """What the gateway asks of the processes beside it."""

    keeper: KeeperClient
    runner: Runner
    drain: Callable[[str], Awaitable[None]]
    """Throws away what was made ahead of need, and says why."""


async def _nothing_to_drain(reason: str) -> None:
    """A runner that keeps nothing."""


async def open_processes(
    settings: Settings, name: str, stack: AsyncExitStack, *, runner: Runner | None = None
) -> Processes:
    """Start them; the stack ends them, the keeper last.

    Args:
        name: the gateway's.
        runner: used instead of the sandbox; then no proxy is started either.

    Raises:
        ConfigError: a reference leads nowhere, a key or file cannot be used.
        RunnerFault: the egress proxy did not start.
    """
    keeping: asyncio.Future[KeeperClient] = asyncio.get_running_loop().create_future()
    side = None if runner else asyncio.ensure_future(_run_side(settings, name, keeping))
    await asyncio.sleep(0)  # its first process begins, and goes on while the keeper's does
    try:
        keeper = await _keeper(settings)
    except BaseException:
        keeping.cancel()
        if side is not None:
            with suppress(Exception, asyncio.CancelledError):
                await (await side).stack.aclose()
        raise
    stack.push_async_callback(keeper.aclose)
    keeping.set_result(keeper)
    if side is None:
        assert runner is not None
        return Processes(keeper=keeper, runner=runner, drain=_nothing_to_drain)
    beside = await side
    stack.push_async_callback(beside.stack.aclose)
    if beside.proxy is not None:
        keeper.on_restart = beside.proxy.connect_keeper
    return Processes(keeper=keeper, runner=beside.runner, drain=beside.runner.drain)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunSide:
    """What runs are made with; `stack` ends it."""

    runner: SandboxRunner
    proxy: EgressProxy | None
    stack: AsyncExitStack


async def _run_side(
    settings: Settings, name: str, keeping: asyncio.Future[KeeperClient]
) -> _RunSide:
    async def keeper_socket() -> socket.socket:
        return await (await asyncio.shield(keeping)).proxy_socket()

    async with AsyncExitStack() as own:
        proxy = None
        if goes_out(settings):
            proxy = await EgressProxy.open(egress_settings(settings), keeper_socket)
            own.push_async_callback(proxy.aclose)
        chosen = sandbox_settings(settings, settings.data_dir / "runners", name)
        runner = await SandboxRunner.open(chosen, proxy)
        own.push_async_callback(runner.aclose)
        return _RunSide(runner=runner, proxy=proxy, stack=own.pop_all())


def goes_out(settings: Settings) -> bool:
    """Whether any run could be let out: without one, no proxy is started."""
    tools, servers = settings.tools, settings.servers
    return any(tool.egress for tool in tools) or any(server.egress for server in servers)


def sandbox_settings(settings: Settings, state_dir: Path, name: str) -> SandboxSettings:
    """How the sandbox runner is set.

    Raises:
        ConfigError: `config_invalid`: the file of authorities cannot be read.
    """
    section = settings.sections.runners
    chosen, runsc = section.sandbox, section.gvisor.runsc
    return SandboxSettings(
        state_dir=state_dir,
        gateway=name,
        bwrap=None if chosen.bwrap is None else settings.file.parent / chosen.bwrap,
        runsc=None if runsc is None else settings.file.parent / runsc,
        gvisor_platform=section.gvisor.platform,
        unsafe_degraded=chosen.unsafe_degraded,
        uid_base=chosen.uid_base,
        max_runs=settings.sections.limits.concurrent_runs + sessions(settings),
        profiles=settings.profiles,
        classes=slot_classes(settings),
        authorities=authorities(settings).encode(),
    )


def kept(settings: Settings, clock: Clock, name: str, beside: Processes) -> SessionSettings:
    """How processes of MCP servers are kept between calls."""
    return SessionSettings(
        clock=clock,
        gateway=name,
        keeper=beside.runner if isinstance(beside.runner, SandboxRunner) else None,
        most=settings.sections.limits.kept_processes,
        most_of={each.name: each.session_limit for each in settings.servers},
    )


def asked_elsewhere(settings: Settings, seen: Seen) -> PooledServers:
    """What asks the servers that are reached at a URL; made without touching anything.

    Raises:
        ConfigError: `config_invalid`: the file of authorities cannot be read.
    """
    named = map(split_authority, settings.sections.runners.egress.internal)
    return PooledServers(
        internal={each for each in named if each is not None},
        ca_pem=authorities(settings),
        seen=seen,
        list_age_s={each.name: each.list_age_s for each in settings.servers},
    )


def sessions(settings: Settings) -> int:
    """How many places processes of MCP servers may take that are kept beside runs."""
    kept = any(each.session is not SessionMode.PER_CALL for each in settings.servers)
    return settings.sections.limits.kept_processes if kept else 0


def slot_classes(settings: Settings) -> tuple[SlotClass, ...]:
    """What slots are kept for: the commands of tools whose profile keeps some warm.

    A tool that may be let out has a class with a way out and one without: policy decides.
    """
    found: dict[SlotClass, None] = {}
    for tool in settings.tools:
        profile = settings.profiles[tool.runner]
        commands = [(tool.command, tool.limits, bool(tool.egress))]
        if tool.preview is not None:
            commands.append((tool.preview.command, tool.preview.limits, False))
        for command, limits, goes in commands:
            spec = _as_planned(command, profile, limits)
            for out in (False, True)[: 1 + goes]:
                found |= dict.fromkeys(classes_of(spec, profile, out=out))
    return tuple(found)


def _as_planned(command: Command, profile: Profile, limits: Limits) -> RunSpec:
    """What runs of a command have in common, whatever its arguments."""
    return RunSpec(
        argv=command.argv,
        env=command.env,
        stdin=b"{}" if command.input is InputMode.STDIN_JSON else b"",
        mounts=command.mounts,
        limits=profile.ceilings.lower(limits),
        profile=profile.name,
    )


def egress_settings(settings: Settings) -> EgressSettings:
    """How the egress proxy is set.

    Raises:
        ConfigError: `config_invalid`: the file of authorities cannot be read.
    """
    section = settings.sections.runners.egress
    return EgressSettings(
        internal=tuple(section.internal),
        unsafe_plain=tuple(section.unsafe_plain),
        ca_pem=authorities(settings),
        connections=section.connections,
        bytes_mb=section.bytes_mb,
        uid=_uid(settings, 2),
    )


def _uid(settings: Settings, below: int) -> int | None:
    """A user of its own for a process, where the gateway has the right to give one: root of a
    user namespace has few."""
    uid = settings.sections.runners.sandbox.uid_base - below
    return uid if os.geteuid() == 0 and exist_here(uid, uid) else None


def authorities(settings: Settings) -> str:
    """The authorities (PEM) of `runners.egress.ca_file`, or nothing.

    Raises:
        ConfigError: `config_invalid`: the file cannot be read, or holds none.
    """
    named = settings.sections.runners.egress.ca_file
    if named is None:
        return ""
    place = settings.sources.where("runners.egress.ca_file")
    try:
        pem = (settings.file.parent / named).read_text(encoding="ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        fault, hint = "holds no certificates in PEM", "it begins with -----BEGIN CERTIFICATE-----"
    except OSError as error:
        fault, hint = f"cannot be read: {error.strerror}", "check the path and who may read it"
    else:
        return pem
    message = f"the file of authorities (runners.egress.ca_file) {fault}"
    raise ConfigError(Code.CONFIG_INVALID, message, place=place, hint=hint)


async def _keeper(settings: Settings) -> KeeperClient:
    """The keeper; what is wrong is said with its line in the file."""
    try:
        return await KeeperClient.open(keeper_settings(settings, os.environ))
    except ConfigError as error:
        place = error.place or ""
        known = place.startswith(("runners.", "ledger."))
        where = settings.sources.where(place) if known else error.place
        raise ConfigError(error.code, error.message, place=where, hint=error.hint) from None


def keeper_settings(settings: Settings, environ: Mapping[str, str]) -> KeeperSettings:
    """How the keeper is set: references as they were written, and the variables that they name.

    Args:
        environ: where those variables are; of it nothing else is passed on.
    """
    section = settings.sections.runners
    wanted = set(_variables(section.credentials))
    return KeeperSettings(
        key_file=settings.key_file,
        state_dir=settings.data_dir / "keeper",
        base=settings.file.parent,
        credentials={ref: _as_written(each) for ref, each in section.credentials.items()},
        issuer=None if section.issuer is None else section.issuer.model_dump(mode="json"),
        environ={name: environ[name] for name in sorted(wanted & environ.keys())},
        uid=_uid(settings, 1),
    )


def _references(section: CredentialSection) -> dict[str, str]:
    """The references to secrets in a section, by field."""
    match section:
        case StaticCredential():
            return {"secret": section.secret}
        case GithubCredential():
            return {"private_key": section.private_key}
        case ExchangeCredential(client_secret=str(named)):
            return {"client_secret": named}
        case _:
            return {}


def _as_written(section: CredentialSection) -> dict[str, object]:
    """The section as JSON; a dump hides what `exec:` runs, and the keeper has to run it."""
    return {**section.model_dump(mode="json"), **_references(section)}


def _variables(sections: Mapping[str, CredentialSection]) -> Iterator[str]:
    for section in sections.values():
        for text in _references(section).values():
            found = SecretRef.parse(text)
            if found.kind == "env":
                yield found.where
