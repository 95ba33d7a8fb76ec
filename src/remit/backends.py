"""What a pipeline is made of: one implementation of each port, and what the operator may set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from secrets import token_bytes
from typing import Any

from remit.errors import Code, NotFound, Refused, RunnerFault
from remit.model import (
    Consent,
    ConsentPage,
    ConsentState,
    EgressRule,
    Frozen,
    Lease,
    Lent,
    Loan,
    PartDifference,
    Principal,
    ResourceLists,
    ServedBundle,
    ServerStatus,
    ToolStatus,
)
from remit.ports import (
    ArgumentCheck,
    Artifacts,
    Bundles,
    Catalog,
    Clock,
    Consents,
    Credentials,
    Identity,
    Ledger,
    Notifier,
    Policy,
    Rates,
    Runner,
    Servers,
    Watches,
)
from remit.profile import DEFAULT, Profile


class NoChannels:
    """The `Notifier` of a gateway that has no channels."""

    channels: frozenset[str] = frozenset()

    async def notify(self, channel: str, message: Frozen) -> str | None:
        return "there is no such channel"


class NoBundles:
    """The `Bundles` of a gateway that hands no policy on."""

    async def bundle(self, layer: str, *, known: frozenset[str], wait_s: float) -> ServedBundle:
        raise NotFound(Code.NOT_FOUND, "this gateway hands no policy on")

    def close(self) -> None:
        """Nobody waits."""


class NoCredentials:
    """The `Credentials` of a gateway that has none to lend."""

    def digest(self, ref: str) -> str | None:
        return None

    async def lend(self, lease: Lease) -> Lent:
        raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "this gateway has no credentials")

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        return ()

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        return data, 0

    async def sweep(self, live: frozenset[str]) -> Sequence[Loan]:
        return ()

    async def keys(self) -> Mapping[str, Any]:
        return {"keys": []}


class NoConsents:
    """The `Consents` of a gateway none of whose servers wants any."""

    def asks(self, ref: str) -> bool:
        return False

    async def status(
        self, ref: str, principal: Principal, scopes: Sequence[str] = ()
    ) -> ConsentState:
        raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "this gateway keeps no consents")

    async def begin(
        self,
        ref: str,
        principal: Principal,
        scopes: Sequence[str],
        redirect_uri: str,
        client_document: str | None,
    ) -> ConsentPage:
        raise Refused(Code.CONSENT_UNAVAILABLE, "this gateway keeps no consents")

    async def finish(self, state: str, answer: Mapping[str, str]) -> Consent:
        raise Refused(Code.CONSENT_STATE_INVALID, "this gateway keeps no consents")

    async def listed(self, tenant: str | None = None) -> Sequence[Consent]:
        return ()

    async def revoke(self, ref: str, principal: Principal) -> bool:
        return False

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        """Nothing was lent."""


class NoArtifacts:
    """The `Artifacts` of a gateway that keeps no files of runs."""

    async def put(self, data: bytes) -> str:
        raise RunnerFault(Code.RUNNER_LACKS, "this gateway keeps no files of runs", started=True)

    async def get(self, digest: str) -> bytes | None:
        return None

    async def prune(self, now_ms: int) -> int:
        return 0


class NoServers:
    """The `Servers` of a gateway with no MCP servers behind it."""

    def statuses(self) -> Sequence[ServerStatus]:
        return ()

    def differences(self, server: str, tool: str) -> Sequence[PartDifference]:
        raise NotFound(Code.NOT_FOUND, "there is no such server")

    async def look(self, server: str) -> ServerStatus:
        raise NotFound(Code.NOT_FOUND, "there is no such server")

    async def accept(self, server: str, tool: str, digest: str, *, operator: str) -> ToolStatus:
        raise NotFound(Code.NOT_FOUND, "there is no such server")

    def on_change(self, changed: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def resources(self) -> Sequence[ResourceLists]:
        return ()

    def watcher(self, uri: str) -> str | None:
        return None

    def reader(self, uri: str) -> str | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """One implementation of each port."""

    identity: Identity
    catalog: Catalog
    arguments: ArgumentCheck
    policy: Policy
    runner: Runner
    ledger: Ledger
    rates: Rates
    clock: Clock
    notifier: Notifier = field(default_factory=NoChannels)
    bundles: Bundles = field(default_factory=NoBundles)
    credentials: Credentials = field(default_factory=NoCredentials)
    consents: Consents = field(default_factory=NoConsents)
    artifacts: Artifacts = field(default_factory=NoArtifacts)
    servers: Servers = field(default_factory=NoServers)
    watches: Watches | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a credential reaches a run: as a file of that name, or in requests to destinations.

    `inject` has the host, port and path prefix of each request that the egress proxy puts it into.
    """

    file: str | None = None
    inject: tuple[EgressRule, ...] = ()


def _default_profile() -> Mapping[str, Profile]:
    return {DEFAULT: Profile()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSettings:
    """What the operator may set about the path; see docs/configuration.md."""

    gateway: str
    hold_s: float = 50
    result_ttl_s: int = 900
    ttl_s: int = 900
    ttl_max_s: int = 86_400
    concurrent_runs: int = 8
    tenant: str = "default"
    visible_ttl_s: int = 10
    list_batches: int = 1
    history_s: int = 86_400
    questions_per_minute: int = 30
    unsafe: tuple[str, ...] = ()
    profiles: Mapping[str, Profile] = field(default_factory=_default_profile)
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    public_url: str | None = None
    """Where people's browsers find the MCP door, without a path; None if they cannot."""
    state_key: bytes = field(default_factory=partial(token_bytes, 32), repr=False)
    """With which the state is sealed that a caller brings back with its answers."""
