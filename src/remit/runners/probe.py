"""Finds out by running jobs what really holds here, instead of trusting versions.

One job for each profile runs when the runner starts: it looks at the world from inside, starts
more processes than it may, and ends by allocating more than it may. A profile that limits disks
gets a second one, which reads. The longer checks are `escapes`, for `remit doctor`.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remit.canonical import digest_of
from remit.errors import RunnerFault
from remit.model import Capabilities, Ending, Limits, RunResult, RunSpec, Tier
from remit.profile import Profile, RunnerKind, profile_facts
from remit.runners import hints, landlock, looks, recipe_gvisor, seccomp
from remit.runners.bubblewrap import Bubblewrap
from remit.runners.faults import ASK_DOCTOR
from remit.runners.gvisor import Runsc
from remit.runners.jail import WALLS, JailRequest, base_options, run_options
from remit.runners.messages import EGRESS_PORT

REVISION = "2"
"""Changes when what a run sees or may do changes in a way that its options do not show."""

ISOLATION = (
    "user_namespace",
    "pid_namespace",
    "ipc_and_uts_namespaces",
    "network_none",
    "read_only_base",
    "host_files_hidden",
    "devices_reduced",
    "sized_tmpfs",
    "no_environment_leak",
    "no_descriptors",
    "no_nested_userns",
    "no_privileges",
    "filtered_calls",
)
GVISOR_ISOLATION = (
    "own_kernel",
    "pid_namespace",
    "network_none",
    "read_only_base",
    "host_files_hidden",
    "sized_tmpfs",
    "no_descriptors",
    "no_privileges",
)
LIMITS = ("memory_limit", "pids_limit")
IO_LIMIT = "io_limit"
OWN_UID = "own_uid"
"""Each run is a host user of its own; its absence does not lower the tier."""
LANDLOCK = ("landlock_network", "landlock_scope")
"""A wall behind the namespaces, where the kernel has it; its absence does not lower the tier."""
EGRESS = "egress"

_SMALL = Limits(
    wall_s=5, memory_mb=looks.MEMORY_MB, pids=16, tmp_mb=looks.TMP_MB, output_bytes=4096
)
_FEW = replace(_SMALL, pids=looks.PIDS)
NOTHING = RunSpec(argv=("true",), limits=_SMALL)

Run = Callable[[RunSpec, str, Profile], Awaitable[RunResult | RunnerFault | None]]
"""Runs a job of that name in a profile, whatever its tier; a fault, given and not raised, or None if
it could not be made. The job `look` of a profile that is examined with egress has to get its way
out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What runs are made with here."""

    bwrap: Bubblewrap | None
    runsc: Runsc | None = None
    named: frozenset[str] = frozenset()
    """Those whose path the configuration names, so that nothing else is taken."""


def walls(profile: Profile) -> tuple[str, ...]:
    """What has to hold in a profile, or there is no sandbox."""
    return GVISOR_ISOLATION if profile.runner is RunnerKind.GVISOR else ISOLATION


def nothing(
    tools: Tools, profile: Profile | None = None, egress_digest: str | None = None
) -> Capabilities:
    """What is known before a probe has run: nothing holds."""
    profile = profile or Profile()
    if tools.bwrap is None:
        missing = "bubblewrap"
        hint = hints.named(missing) if missing in tools.named else hints.install_bubblewrap()
    elif profile.runner is RunnerKind.GVISOR and tools.runsc is None:
        missing = "runsc"
        hint = hints.named(missing) if missing in tools.named else hints.install_runsc()
    else:
        missing, hint = walls(profile)[0], hints.user_namespaces()
    return Capabilities(
        name=profile.runner.value,
        tier=Tier.NONE,
        digest=digest(tools, profile, egress_digest),
        version=_version(tools, profile),
        holds=dict.fromkeys((*walls(profile), *LIMITS, OWN_UID, *LANDLOCK, EGRESS), False),
        missing=(missing,),
        hint=hint,
        profile=profile.name,
    )


async def examine(
    run: Run,
    hello: Mapping[str, Any],
    tools: Tools,
    profile: Profile | None = None,
    *,
    state_dir: str = "",
    egress: bool = False,
    egress_digest: str | None = None,
) -> Capabilities:
    """Run the probe jobs of a profile and say what held; what was not seen to hold does not.

    Args:
        hello: what the spawner said of itself when it started.
        state_dir: a directory of this host that no run may see, if there is one to look for.
        egress: the job of `look` is given a way out, which has to be seen from inside.
        egress_digest: what decides, beside the profile, what runs can reach.
    """
    profile = profile or Profile()
    if tools.bwrap is None or (profile.runner is RunnerKind.GVISOR and tools.runsc is None):
        return nothing(tools, profile, egress_digest)
    jobs = _jobs(profile, state_dir, bombs=hello["mode"] != "none", egress=egress)
    slowest = replace(profile, io_mb_per_s=looks.SLOW_DISK_MB_PER_S)
    plain = replace(profile, io_mb_per_s=None)
    results = await asyncio.gather(
        *(run(spec, name, slowest if name == "disk" else plain) for name, spec in jobs.items())
    )
    found = {
        name: None if isinstance(each, RunnerFault) else each
        for name, each in zip(jobs, results, strict=True)
    }
    look, bombed = found["look"], found.get("memory", found["look"])
    seen = set((look.stdout if look else b"").decode("ascii", "replace").split())
    holds = {name: name in seen for name in walls(profile)}
    holds["network_none"] &= _way_out_alone(profile, seen, egress=egress)
    holds["memory_limit"] = _hit(bombed, "memory") and _ended(bombed, Ending.OUT_OF_MEMORY)
    holds["pids_limit"] = _hit(look, "pids")
    holds[OWN_UID] = bool(hello.get("own_uid"))
    holds |= {
        name: name.removeprefix("landlock_") in hello.get("landlock", ()) for name in LANDLOCK
    }
    holds[EGRESS] = egress and holds["network_none"]
    if profile.io_mb_per_s is not None:
        holds[IO_LIMIT] = _slowed(found["disk"])
    return _told(_judged(holds, tools, profile, egress_digest), results)


def _told(judged: Capabilities, results: Sequence[RunResult | RunnerFault | None]) -> Capabilities:
    """What was found of a profile, and what the runner said where it made no sandbox of it."""
    fault = next((each for each in results if isinstance(each, RunnerFault)), None)
    if fault is None or judged.tier is not Tier.NONE:
        return judged
    known = fault.hint not in {None, ASK_DOCTOR}
    return replace(judged, fault=fault.message, hint=fault.hint if known else judged.hint)


_WAY_OUT = f"listens=0100007F:{EGRESS_PORT:04X}"
"""127.0.0.1 and the port as /proc/net/tcp writes them on little-endian machines."""


def _way_out_alone(profile: Profile, seen: set[str], *, egress: bool) -> bool:
    """Whether the way out, and nothing else, listens. gVisor does not list what listens outside of
    it, so there the job connects."""
    listening = {each for each in seen if each.startswith("listens=")}
    if profile.runner is RunnerKind.GVISOR:
        return not listening and ("way_out" in seen) is egress
    return listening == ({_WAY_OUT} if egress else set())


def _jobs(profile: Profile, state_dir: str, *, bombs: bool, egress: bool) -> dict[str, RunSpec]:
    """What to run. Without control groups no bomb is set off to find out."""
    gvisor = profile.runner is RunnerKind.GVISOR
    script = looks.GVISOR if gvisor else looks.SANDBOX
    if bombs:
        script += looks.GVISOR_BOMB if gvisor else looks.BOMBS
    given = (state_dir, profile.base.kind.value, platform.release(), str(int(egress)))
    scripts: dict[str, tuple[str, ...]] = {"look": ("/bin/sh", "-c", script, "sh", *given)}
    if bombs and gvisor:
        scripts["memory"] = ("/bin/sh", "-c", looks.GVISOR_MEMORY_BOMB)
    if profile.io_mb_per_s is not None:
        scripts["disk"] = ("/bin/sh", "-c", looks.SLOW_DISK)
    return {
        name: RunSpec(
            argv=argv, limits=_FEW if bombs and name == "look" else _SMALL, profile=profile.name
        )
        for name, argv in scripts.items()
    }


def _judged(
    holds: Mapping[str, bool], tools: Tools, profile: Profile, egress_digest: str | None
) -> Capabilities:
    needed = (*walls(profile), *LIMITS, IO_LIMIT)
    missing = tuple(name for name in needed if not holds.get(name, True))
    gvisor = profile.runner is RunnerKind.GVISOR
    if any(name in missing for name in walls(profile)):
        tier, hint = Tier.NONE, hints.install_runsc() if gvisor else hints.user_namespaces()
    elif IO_LIMIT in missing:
        tier, hint = Tier.NONE, hints.disks()
    elif missing:
        tier, hint = Tier.DEGRADED, hints.cgroups()
    else:
        tier, hint = Tier.GVISOR if gvisor else Tier.SANDBOX, None
    return Capabilities(
        name=profile.runner.value,
        tier=tier,
        digest=digest(tools, profile, egress_digest),
        version=_version(tools, profile),
        holds=holds,
        missing=missing,
        hint=hint,
        profile=profile.name,
    )


def _version(tools: Tools, profile: Profile) -> str:
    if profile.runner is RunnerKind.GVISOR:
        return "none" if tools.runsc is None else f"{tools.runsc.version} ({tools.runsc.platform})"
    return "none" if tools.bwrap is None else tools.bwrap.text


def _hit(result: RunResult | None, limit: str) -> bool:
    return result is not None and limit in result.limits_hit


def _ended(result: RunResult | None, ending: Ending) -> bool:
    return result is not None and result.ending is ending


def _slowed(result: RunResult | None) -> bool:
    return (
        result is not None and result.exit_code == 0 and result.wall_ms >= 1000 * looks.SLOW_DISK_S
    )


def digest(tools: Tools, profile: Profile | None = None, egress_digest: str | None = None) -> str:
    """What identifies a runner in a plan: its binaries, options, filter, rules, and the profile.

    It does not cover the contents of the host's /usr, which the operator updates.
    """
    profile = profile or Profile()
    facts: dict[str, Any] = {
        "revision": REVISION,
        "bwrap": "none" if tools.bwrap is None else tools.bwrap.digest,
        "landlock": landlock.abi(),
        "profile": profile_facts(profile),
        "egress": egress_digest,
    }
    if profile.runner is RunnerKind.GVISOR:
        facts["runsc"] = "none" if tools.runsc is None else tools.runsc.digest
        facts["platform"] = None if tools.runsc is None else tools.runsc.platform
        facts["options"] = [*recipe_gvisor.WALLS, *base_options()]
        return digest_of("remit.runner/1", facts)
    arch = seccomp.ARCHITECTURES.get(platform.machine())
    filter_text = b"" if arch is None else seccomp.program(arch)
    empty = JailRequest(argv=(), tmp_bytes=0)
    facts["seccomp"] = hashlib.sha256(filter_text).hexdigest()
    facts["options"] = [*WALLS, *base_options(), *run_options(empty)]
    return digest_of("remit.runner/1", facts)
