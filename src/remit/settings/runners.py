"""The section `runners` of `remit.yaml`: the machine's runners, profiles of them, and egress."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from remit.catalog.spec import Count, EgressSpec, MountSpec, Strict
from remit.profile import BaseKind, RunnerKind, Tls
from remit.settings.credentials import CredentialSection, IssuerSection
from remit.settings.fields import FilePath

ProfileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class SandboxSection(Strict):
    """The bubblewrap runner."""

    bwrap: FilePath | None = Field(
        default=None, description="Path of bwrap; by default the system's, else the packaged one."
    )
    unsafe_degraded: bool = Field(
        default=False,
        strict=True,
        description="Runs tools with limits by rlimit alone where cgroups cannot be had.",
    )
    uid_base: Count = Field(
        default=300_000,
        ge=1_000,
        le=2_000_000_000,
        description="First of the user ids that runs get when the gateway is root.",
    )


class Platform(StrEnum):
    """How gVisor's kernel gets at what a run does."""

    PTRACE = "ptrace"
    SYSTRAP = "systrap"
    KVM = "kvm"


class GvisorSection(Strict):
    """The gVisor runner, for profiles that name it."""

    runsc: FilePath | None = Field(
        default=None, description="Path of runsc; by default the system's."
    )
    platform: Platform | None = Field(
        default=None, description="ptrace, systrap or kvm; by default the first that works here."
    )


class BaseSection(Strict):
    """The read-only file system that a run sees."""

    kind: BaseKind = Field(
        default=BaseKind.HOST,
        description="host (the host's own /usr), directory, or image (one erofs or squashfs file).",
    )
    path: FilePath | None = Field(
        default=None, description="The directory or image file; absent for host."
    )
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="What it has to be, as `remit doctor --digest PATH` prints it; for directory "
        "and image.",
    )


class CeilingsSection(Strict):
    """The most that any tool of the profile gets, whatever the tool says; absent: as the tool says."""

    wall_s: Count | None = Field(default=None, ge=1, le=3_600, description="Seconds.")
    memory_mb: Count | None = Field(default=None, ge=8, le=65_536, description="MiB.")
    pids: Count | None = Field(default=None, ge=1, le=4_096, description="Processes and threads.")
    cpu_percent: Count | None = Field(default=None, ge=1, le=6_400, description="100 is one core.")
    tmp_mb: Count | None = Field(default=None, ge=1, le=16_384, description="MiB.")
    output_bytes: Count | None = Field(default=None, ge=256, le=16_777_216, description="Bytes.")
    open_files: Count | None = Field(default=None, ge=16, le=65_536, description="Per process.")


class WarmSection(Strict):
    """Slots made ahead of need, each used once."""

    shell: Count = Field(
        default=0, ge=0, le=64, description="Slots that wait to become any command."
    )
    python: Count = Field(
        default=0,
        ge=0,
        le=64,
        description="Slots with a Python interpreter started, for commands that are python3.",
    )
    max_age_s: Count = Field(
        default=300, ge=5, le=3_600, description="Age at which an unused slot is made anew."
    )
    refill_per_s: Count = Field(
        default=50, ge=1, le=1_000, description="Slots made a second at most, by all profiles."
    )
    memory_mb: Count = Field(
        default=256, ge=8, le=16_384, description="Memory that all waiting slots may take together."
    )


class ProfileSection(Strict):
    """A kind of environment that tools may be run in."""

    runner: RunnerKind = Field(default=RunnerKind.SANDBOX, description="sandbox or gvisor.")
    base: BaseSection = Field(default_factory=BaseSection, description="What / is.")
    mounts: list[MountSpec] = Field(
        default_factory=list, max_length=32, description="Directories that every run of it sees."
    )
    limits: CeilingsSection = Field(
        default_factory=CeilingsSection, description="The most that any run of it gets."
    )
    io_mb_per_s: Count | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Disk reads and writes, in MiB a second each; not limited where absent.",
    )
    egress: list[EgressSpec] | None = Field(
        default=None,
        max_length=256,
        description="All that any run of it could ever reach; where absent, what each tool says.",
    )
    tls: Tls = Field(
        default=Tls.TERMINATE,
        description="terminate: rules with methods, paths or credentials are held inside TLS by a "
        "certificate authority of the run's own; passthrough: never, and such rules are refused.",
    )
    warm: WarmSection = Field(default_factory=WarmSection, description="Slots made ahead of need.")


Destination = Annotated[str, Field(pattern=r"^[!-~]{1,253}:[0-9]{1,5}$")]


class EgressSection(Strict):
    """What every run's way out goes by."""

    internal: list[Destination] = Field(
        default_factory=list,
        max_length=64,
        description="Exact host:port that may be reached though its address is private or "
        "loopback; never a wildcard, never a metadata service.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of authorities that destinations' certificates may be of, beside "
        "the system's.",
    )
    unsafe_plain: list[Destination] = Field(
        default_factory=list,
        max_length=64,
        description="Exact host:port to which credentials may be sent without TLS.",
    )
    connections: Count = Field(
        default=64, ge=1, le=4_096, description="Open connections of one run at once."
    )
    bytes_mb: Count = Field(
        default=1_024, ge=1, le=1_048_576, description="MiB that one run may send and receive."
    )


class ArtifactsSection(Strict):
    """Files that tools declare as results."""

    keep_days: Count = Field(default=30, ge=1, le=3_650, description="Days they are kept.")
    max_mb: Count = Field(
        default=1_024, ge=1, le=1_048_576, description="MiB kept in all; the oldest go first."
    )


class RunnersSection(Strict):
    """Where tools run."""

    sandbox: SandboxSection = Field(
        default_factory=SandboxSection, description="The bubblewrap runner."
    )
    gvisor: GvisorSection = Field(default_factory=GvisorSection, description="The gVisor runner.")
    profiles: dict[ProfileName, ProfileSection] = Field(
        default_factory=dict,
        max_length=32,
        description="Environments by name; `sandbox` is there even if it is not written.",
    )
    egress: EgressSection = Field(
        default_factory=EgressSection, description="What every way out goes by."
    )
    credentials: dict[Annotated[str, Field(pattern=r"^[!-~]{1,256}$")], CredentialSection] = Field(
        default_factory=dict, max_length=256, description="What tools' credentials are, by handle."
    )
    issuer: IssuerSection | None = Field(
        default=None, description="Remit as an OpenID Connect issuer of tokens for runs."
    )
    artifacts: ArtifactsSection = Field(
        default_factory=ArtifactsSection, description="Files that tools declare as results."
    )
