"""The sections of `remit.yaml` in the order of the request path; every key with its meaning.

The descriptions are what `remit config schema` and docs/configuration.md say.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from remit.catalog.server_spec import ServerSpec
from remit.catalog.spec import Count, Strict, ToolSpec
from remit.model import CallerKind, Permission
from remit.settings.fields import (
    FilePath,
    Group,
    Hash,
    Instant,
    KeyId,
    Listen,
    Origin,
    Reference,
    Subject,
)
from remit.settings.policy import PolicySection
from remit.settings.runners import RunnersSection


class ServerSection(Strict):
    """Where Remit listens and what it accepts before anything is looked at."""

    listen: Listen = Field(
        default="127.0.0.1:8700", description="Address of the MCP door, as host:port."
    )
    admin: Listen = Field(
        default="127.0.0.1:8701", description="Address of the admin API, health and metrics."
    )
    public_url: Origin | None = Field(
        default=None,
        description="Where people's browsers find the MCP door (https://HOST[:PORT], no path): for "
        "pages on which they consent. If absent, server.listen, where that is of this machine alone.",
    )
    allowed_hosts: list[Annotated[str, Field(max_length=261)]] = Field(
        default_factory=list,
        max_length=64,
        description="Host headers accepted beside those of loopback; `name:*` is any port.",
    )
    allowed_origins: list[Annotated[str, Field(max_length=512)]] = Field(
        default_factory=list,
        max_length=64,
        description="Origin headers accepted beside those of loopback (browsers send them).",
    )
    body_limit_bytes: Count = Field(
        default=1_048_576, ge=1_024, le=67_108_864, description="Largest request body."
    )
    data_dir: FilePath = Field(
        default=".remit",
        description="Directory of the ledger and keys; relative to this file, mode 0700.",
    )


class KeyEntry(Strict):
    """One caller's key, known by its hash or by a reference to the token."""

    id: KeyId = Field(description="Public name of the key; part of its token.")
    sha256: Hash | None = Field(
        default=None, description="SHA-256 of the token, as `remit config new-key` prints it."
    )
    token: Reference | None = Field(
        default=None,
        description="Instead of sha256: where the token is (env:NAME, file:PATH, exec:COMMAND).",
    )
    subject: Subject = Field(description="Who holds the key.")
    kind: CallerKind = Field(default=CallerKind.AGENT, description="human, agent or service.")
    groups: list[Group] = Field(
        default_factory=list, max_length=64, description="Groups that policy can go by."
    )
    on_behalf_of: list[Subject] = Field(
        default_factory=list,
        max_length=8,
        description="People it acts for, the one with the original authority first; none of "
        "them can approve what it asks for.",
    )
    expires: Instant | None = Field(
        default=None, description="When the key ends (RFC 3339, with offset); never if left out."
    )


class OperatorEntry(Strict):
    """One operator's key for the admin API; it never calls tools."""

    id: KeyId = Field(description="Public name of the key; part of its token.")
    sha256: Hash | None = Field(
        default=None, description="SHA-256 of the token, as `remit config new-key` prints it."
    )
    token: Reference | None = Field(
        default=None,
        description="Instead of sha256: where the token is (env:NAME, file:PATH, exec:COMMAND).",
    )
    subject: Subject = Field(description="Who holds the key.")
    groups: list[Group] = Field(
        default_factory=list, max_length=64, description="Groups that approval rules go by."
    )
    may: list[Permission] = Field(
        default_factory=lambda: [Permission.READ],
        description="What it may do: read, approve, resolve, freeze, evaluate, pin, consent.",
    )
    expires: Instant | None = Field(
        default=None, description="When the key ends (RFC 3339, with offset); never if left out."
    )


class IdentitySection(Strict):
    """Who may call tools, and who may approve."""

    tenant: Subject = Field(default="default", description="The name all callers are under.")
    keys: list[KeyEntry] = Field(default_factory=list, description="Callers' keys.")
    operators: list[OperatorEntry] = Field(default_factory=list, description="Operators' keys.")
    unsafe_same_user: bool = Field(
        default=False,
        strict=True,
        description="Acknowledges that agents may run as the gateway's own OS user and could "
        "then read its keys (threat T-01).",
    )


class CatalogSection(Strict):
    """The tools that can be asked for."""

    tools: list[ToolSpec] = Field(
        default_factory=list, max_length=20_000, description="Command tools; see docs/tools.md."
    )
    servers: list[ServerSpec] = Field(
        default_factory=list, max_length=1_000, description="MCP servers; see docs/servers.md."
    )


class LimitsSection(Strict):
    """Floods and sizes."""

    calls_per_minute: Count = Field(
        default=600, ge=1, le=1_000_000, description="Requests of one caller in a minute."
    )
    refusals_recorded_per_minute: Count = Field(
        default=60,
        ge=0,
        le=100_000,
        description="Refusals of one caller in a minute that get an entry of their own; more "
        "are counted.",
    )
    auth_failures_per_minute: Count = Field(
        default=30, ge=1, le=100_000, description="Wrong credentials of one address in a minute."
    )
    arguments_bytes: Count = Field(
        default=262_144, ge=256, le=4_194_304, description="Largest arguments, as JSON."
    )
    arguments_depth: Count = Field(
        default=32, ge=1, le=64, description="Deepest nesting of arguments."
    )
    concurrent_runs: Count = Field(
        default=8, ge=1, le=1_024, description="Runs at the same time, of all callers."
    )
    kept_processes: Count = Field(
        default=16,
        ge=1,
        le=256,
        description="Processes of MCP servers that are kept between calls, of all servers, besides.",
    )


class ApprovalsSection(Strict):
    """How long people may take, and how long their answer holds."""

    hold_s: Count = Field(
        default=50, ge=0, le=3_600, description="Longest a call is held while people decide."
    )
    result_ttl_s: Count = Field(
        default=900,
        ge=0,
        le=86_400,
        description="How long an approved call that is repeated gets its stored result.",
    )
    ttl_s: Count = Field(
        default=900, ge=10, le=604_800, description="Life of an approval, unless policy says."
    )
    ttl_max_s: Count = Field(
        default=86_400, ge=10, le=604_800, description="Longest life that policy can give."
    )


class LedgerSection(Strict):
    """Where the record is kept and how it is signed."""

    path: FilePath | None = Field(
        default=None, description="The ledger's file; by default ledger.db in server.data_dir."
    )
    origin: Annotated[str, Field(pattern=r"^[^\s+]{1,255}$")] | None = Field(
        default=None, description="The log's name; by default the one in its signing key."
    )
    key_file: FilePath | None = Field(
        default=None,
        description="The log's signing key; by default keys/log.key in server.data_dir.",
    )


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class TelemetrySection(Strict):
    """What Remit tells operators while it runs."""

    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto is console on a terminal, else json."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="debug, info, warning or error.")


class ConsoleSection(Strict):
    """Kept for the console; it has no settings yet."""


class Sections(Strict):
    """Settings of a Remit gateway (remit.yaml)."""

    server: ServerSection = Field(
        default_factory=ServerSection, description="Where it listens and what it accepts."
    )
    identity: IdentitySection = Field(
        default_factory=IdentitySection, description="Who may call, and who may approve."
    )
    catalog: CatalogSection = Field(
        default_factory=CatalogSection, description="The tools that can be asked for."
    )
    policy: PolicySection = Field(
        default_factory=PolicySection, description="Which policy answers."
    )
    limits: LimitsSection = Field(default_factory=LimitsSection, description="Floods and sizes.")
    approvals: ApprovalsSection = Field(
        default_factory=ApprovalsSection, description="How long people may take."
    )
    runners: RunnersSection = Field(default_factory=RunnersSection, description="Where tools run.")
    ledger: LedgerSection = Field(
        default_factory=LedgerSection, description="Where the record is kept."
    )
    telemetry: TelemetrySection = Field(
        default_factory=TelemetrySection, description="What it tells while it runs."
    )
    console: ConsoleSection = Field(
        default_factory=ConsoleSection, description="Kept for the console."
    )
