"""Finds out by running jobs what really holds here, instead of trusting versions.

One job for each profile runs when the runner starts: it looks at the world from inside, starts
more processes than it may, and ends by allocating more than it may. A profile that limits disks
gets a second one, which reads. The longer checks are `escapes`, for `remit doctor`.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from remit.canonical import digest_of
from remit.model import Capabilities, Ending, Limits, RunResult, RunSpec, Tier
from remit.profile import Profile, profile_facts
from remit.runners import hints, landlock, looks, seccomp
from remit.runners.bubblewrap import Bubblewrap
from remit.runners.jail import WALLS, JailRequest, base_options, run_options
from remit.runners.messages import EGRESS_PORT

REVISION = "sandbox/2"
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
NOTHING = RunSpec(argv=("true",), limits=_SMALL)

Run = Callable[[RunSpec, str, Profile], Awaitable[RunResult | None]]
"""Runs a job of that name in a profile, whatever its tier; None if it could not be made. The job
`look` of a profile that is examined with egress has to get its way out."""


def nothing(bwrap: Bubblewrap | None, profile: Profile | None = None) -> Capabilities:
    """What is known before a probe has run: nothing holds."""
    profile = profile or Profile()
    hint = hints.install_bubblewrap() if bwrap is None else hints.user_namespaces()
    missing = "bubblewrap" if bwrap is None else "user_namespace"
    return Capabilities(
        name=profile.runner.value,
        tier=Tier.NONE,
        digest=digest(bwrap, profile),
        version="none" if bwrap is None else bwrap.text,
        holds=dict.fromkeys((*ISOLATION, *LIMITS, OWN_UID, *LANDLOCK, EGRESS), False),
        missing=(missing,),
        hint=hint,
        profile=profile.name,
    )


async def examine(
    run: Run,
    hello: Mapping[str, Any],
    bwrap: Bubblewrap,
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
    jobs = _jobs(profile, state_dir, bombs=hello["mode"] != "none")
    slowest = replace(profile, io_mb_per_s=looks.SLOW_DISK_MB_PER_S)
    inside = {"look": replace(profile, io_mb_per_s=None), "disk": slowest}
    results = await asyncio.gather(*(run(spec, name, inside[name]) for name, spec in jobs.items()))
    found = dict(zip(jobs, results, strict=True))
    look = found["look"]
    seen = set((look.stdout if look else b"").decode("ascii", "replace").split())
    holds = {name: name in seen for name in ISOLATION}
    listening = {each for each in seen if each.startswith("listens=")}
    holds["network_none"] &= listening == ({_WAY_OUT} if egress else set())
    holds["memory_limit"] = _hit(look, "memory") and _ended(look, Ending.OUT_OF_MEMORY)
    holds["pids_limit"] = _hit(look, "pids")
    holds[OWN_UID] = bool(hello.get("own_uid"))
    holds |= {f"landlock_{name}": True for name in hello.get("landlock", ())}
    holds |= {name: False for name in LANDLOCK if name not in holds}
    holds[EGRESS] = egress and holds["network_none"]
    if profile.io_mb_per_s is not None:
        holds[IO_LIMIT] = _slowed(found["disk"])
    return _judged(holds, bwrap, profile, egress_digest)


_WAY_OUT = f"listens=0100007F:{EGRESS_PORT:04X}"
"""127.0.0.1 and the port as /proc/net/tcp writes them on little-endian machines."""


def _jobs(profile: Profile, state_dir: str, *, bombs: bool) -> dict[str, RunSpec]:
    """What to run. Without control groups no bomb is set off to find out."""
    script = looks.SANDBOX + (looks.BOMBS if bombs else "")
    limits = replace(_SMALL, pids=looks.PIDS) if bombs else _SMALL
    look = ("/bin/sh", "-c", script, "sh", state_dir, profile.base.kind.value)
    jobs = {"look": RunSpec(argv=look, limits=limits, profile=profile.name)}
    if profile.io_mb_per_s is not None:
        argv = ("/bin/sh", "-c", looks.SLOW_DISK)
        jobs["disk"] = RunSpec(argv=argv, limits=_SMALL, profile=profile.name)
    return jobs


def _judged(
    holds: Mapping[str, bool], bwrap: Bubblewrap, profile: Profile, egress_digest: str | None
) -> Capabilities:
    missing = tuple(name for name in (*ISOLATION, *LIMITS, IO_LIMIT) if not holds.get(name, True))
    if any(name in missing for name in ISOLATION):
        tier, hint = Tier.NONE, hints.user_namespaces()
    elif IO_LIMIT in missing:
        tier, hint = Tier.NONE, hints.disks()
    elif missing:
        tier, hint = Tier.DEGRADED, hints.cgroups()
    else:
        tier, hint = Tier.SANDBOX, None
    return Capabilities(
        name=profile.runner.value,
        tier=tier,
        digest=digest(bwrap, profile, egress_digest),
        version=bwrap.text,
        holds=holds,
        missing=missing,
        hint=hint,
        profile=profile.name,
    )


def _hit(result: RunResult | None, limit: str) -> bool:
    return result is not None and limit in result.limits_hit


def _ended(result: RunResult | None, ending: Ending) -> bool:
    return result is not None and result.ending is ending


def _slowed(result: RunResult | None) -> bool:
    return (
        result is not None and result.exit_code == 0 and result.wall_ms >= 1000 * looks.SLOW_DISK_S
    )


def digest(
    bwrap: Bubblewrap | None, profile: Profile | None = None, egress_digest: str | None = None
) -> str:
    """What identifies a runner in a plan: its binary, options, filter, rules, and the profile.

    It does not cover the contents of the host's /usr, which the operator updates.
    """
    arch = seccomp.ARCHITECTURES.get(platform.machine())
    empty = JailRequest(argv=(), tmp_bytes=0)
    filter_text = b"" if arch is None else seccomp.program(arch)
    return digest_of(
        "remit.runner/1",
        {
            "revision": REVISION,
            "bwrap": "none" if bwrap is None else bwrap.digest,
            "options": [*WALLS, *base_options(), *run_options(empty)],
            "seccomp": hashlib.sha256(filter_text).hexdigest(),
            "landlock": landlock.abi(),
            "profile": profile_facts(profile or Profile()),
            "egress": egress_digest,
        },
    )
