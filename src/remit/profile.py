"""Runner profiles: the named environments that an operator lets tools run in.

A profile says what a run of it sees and gets at most; a plan names the profile, and by the
runner's digest what it was. Policy may put a run into another profile, if that one gives no more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from remit.model import EgressRule, Limits, Mount
from remit.reach import egress_facts, meet_egress, normal_egress

DEFAULT = "sandbox"
"""The profile that is there even if no file names it."""

ELSEWHERE = "http"
"""The profile of calls to MCP servers over HTTP, which run where Remit isolates nothing."""


class RunnerKind(StrEnum):
    """What makes the environment."""

    SANDBOX = "sandbox"
    GVISOR = "gvisor"
    HTTP = "http"
    """Nothing is made: a server elsewhere is asked. No profile of a file is of this kind."""


class BaseKind(StrEnum):
    """Where the read-only file system of a run comes from."""

    HOST = "host"
    DIRECTORY = "directory"
    IMAGE = "image"


class Tls(StrEnum):
    """Whether TLS of a run may end at the egress proxy."""

    TERMINATE = "terminate"
    PASSTHROUGH = "passthrough"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSystem:
    """A read-only root. `digest` (`sha256:` and hex) is what path has to hold; the host's own
    system has neither."""

    kind: BaseKind = BaseKind.HOST
    path: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The most that a run of a profile gets; None: no opinion. Names and units as in `Limits`."""

    wall_s: int | None = None
    memory_mb: int | None = None
    pids: int | None = None
    cpu_percent: int | None = None
    tmp_mb: int | None = None
    output_bytes: int | None = None
    open_files: int | None = None

    def lower(self, limits: Limits) -> Limits:
        """The limits, none above its ceiling."""
        found = {
            each.name: min(getattr(limits, each.name), ceiling)
            for each in fields(self)
            if (ceiling := getattr(self, each.name)) is not None
        }
        return replace(limits, **found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Slots made ahead of need: how many of each kind, how old, how fast, how much memory."""

    shell: int = 0
    python: int = 0
    max_age_s: int = 300
    refill_per_s: int = 50
    memory_mb: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named environment. Egress None: no opinion, what the tool declares; () is none at all."""

    name: str = DEFAULT
    runner: RunnerKind = RunnerKind.SANDBOX
    base: BaseSystem = field(default_factory=BaseSystem)
    mounts: tuple[Mount, ...] = ()
    ceilings: Ceilings = field(default_factory=Ceilings)
    io_mb_per_s: int | None = None
    egress: tuple[EgressRule, ...] | None = None
    tls: Tls = Tls.TERMINATE
    warm: Warm = field(default_factory=Warm)


def profile_facts(profile: Profile) -> dict[str, Any]:
    """All of a profile that decides what a run sees and gets, for the runner's digest.

    Not the name, and not how many slots are kept warm: a run is the same without.
    """
    return {
        "runner": profile.runner.value,
        "base": {
            "kind": profile.base.kind.value,
            "path": profile.base.path,
            "digest": profile.base.digest,
        },
        "mounts": [asdict(mount) for mount in sorted(profile.mounts, key=lambda m: m.name)],
        "ceilings": asdict(profile.ceilings),
        "io_mb_per_s": profile.io_mb_per_s,
        "egress": None if profile.egress is None else egress_facts(normal_egress(profile.egress)),
        "tls": profile.tls.value,
    }


def gives_no_more(inner: Profile, outer: Profile) -> bool:
    """Whether a run of `inner` sees, reaches and uses no more than one of `outer`.

    Bases are compared by what they name: another base is never "less". A stronger runner is.
    """
    strength = [RunnerKind.SANDBOX, RunnerKind.GVISOR]
    if RunnerKind.HTTP in (inner.runner, outer.runner):
        return inner == outer  # what runs here and what runs elsewhere are never "less"
    return (
        strength.index(inner.runner) >= strength.index(outer.runner)
        and inner.base == outer.base
        and _mounts_within(inner.mounts, outer.mounts)
        and all(
            _at_most(getattr(inner.ceilings, each.name), getattr(outer.ceilings, each.name))
            for each in fields(Ceilings)
        )
        and _at_most(inner.io_mb_per_s, outer.io_mb_per_s)
        and meet_egress(inner.egress, outer.egress)
        == (None if inner.egress is None else normal_egress(inner.egress))
        and (inner.tls is outer.tls or inner.tls is Tls.TERMINATE)
    )


def _at_most(inner: int | None, outer: int | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


def _mounts_within(inner: tuple[Mount, ...], outer: tuple[Mount, ...]) -> bool:
    given = {mount.name: mount for mount in outer}
    return all(
        (wide := given.get(mount.name)) is not None
        and mount.source == wide.source
        and (wide.writable or not mount.writable)
        for mount in inner
    )
