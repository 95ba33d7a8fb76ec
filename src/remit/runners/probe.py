"""Finds out by running jobs what really holds here, instead of trusting versions.

Three jobs run at once when the runner starts: one looks at the world from inside, one allocates
more than it may, one starts more processes than it may.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from remit.canonical import digest_of
from remit.model import Capabilities, Ending, Limits, RunResult, RunSpec, Tier
from remit.runners import hints, seccomp
from remit.runners.bubblewrap import Bubblewrap
from remit.runners.jail import WALLS, JailRequest, base_options, run_options

PROFILE = "sandbox/1"
"""Changes when what a run sees or may do changes in a way that its options do not show."""

ISOLATION = (
    "user_namespace",
    "pid_namespace",
    "network_none",
    "read_only_base",
    "host_files_hidden",
    "no_environment_leak",
    "no_nested_userns",
    "no_privileges",
)
LIMITS = ("memory_limit", "pids_limit")
OWN_UID = "own_uid"
"""Each run is a host user of its own; needs root, and its absence does not lower the tier."""

_LOOK = r"""
say() { echo "$1"; }
read -r inside outside count </proc/self/uid_map
[ "$inside" = 1000 ] && [ "$count" = 1 ] && say user_namespace
[ $$ -lt 10 ] && say pid_namespace
others=0; routes=-1
while read -r name rest; do case $name in lo:*) ;; *:*) others=1 ;; esac; done </proc/net/dev
while read -r line; do routes=$((routes + 1)); done </proc/net/route
[ $others = 0 ] && [ $routes -le 0 ] && say network_none
( : >/usr/x || : >/etc/x || : >/x || : >/dev/x ) 2>/dev/null || say read_only_base
[ ! -e /root ] && [ ! -e /home ] && [ ! -e /etc/shadow ] && [ ! -e /sys ] && say host_files_hidden
[ -z "$(tr -d '\0' </proc/1/environ)" ] && say no_environment_leak
unshare -U true 2>/dev/null || say no_nested_userns
found=0
while read -r name value; do
  case "$name $value" in
    "CapEff: 0000000000000000" | "CapBnd: 0000000000000000" | "NoNewPrivs: 1" | "Seccomp: 2")
      found=$((found + 1)) ;;
  esac
done </proc/self/status
[ $found = 4 ] && say no_privileges
exit 0
"""

_SMALL = Limits(wall_s=5, memory_mb=32, pids=16, tmp_mb=4, output_bytes=4096)
NOTHING = RunSpec(argv=("true",), limits=_SMALL)

JOBS = {
    "look": RunSpec(argv=("/bin/sh", "-c", _LOOK), limits=_SMALL),
    "memory": RunSpec(
        argv=("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"), limits=_SMALL
    ),
    "pids": RunSpec(
        argv=("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 0.05 & done"),
        limits=Limits(wall_s=5, memory_mb=32, pids=4, tmp_mb=4, output_bytes=4096),
    ),
}

Run = Callable[[RunSpec, str], Awaitable[RunResult | None]]


def nothing(bwrap: Bubblewrap | None) -> Capabilities:
    """What is known before a probe has run: nothing holds."""
    hint = hints.install_bubblewrap() if bwrap is None else hints.user_namespaces()
    missing = "bubblewrap" if bwrap is None else "user_namespace"
    return Capabilities(
        name="sandbox",
        tier=Tier.NONE,
        digest=digest(bwrap),
        version="none" if bwrap is None else bwrap.text,
        holds=dict.fromkeys((*ISOLATION, *LIMITS, OWN_UID), False),
        missing=(missing,),
        hint=hint,
    )


async def examine(run: Run, hello: Mapping[str, Any], bwrap: Bubblewrap) -> Capabilities:
    """Run the probe jobs and say what held; what was not seen to hold does not."""
    cgroups = hello["mode"] != "none"
    names = list(JOBS) if cgroups else ["look"]
    results = await asyncio.gather(*(run(JOBS[name], name) for name in names))
    found = dict(zip(names, results, strict=True))
    seen = set((found["look"].stdout if found["look"] else b"").decode("ascii", "replace").split())
    holds = {name: name in seen for name in ISOLATION}
    holds["memory_limit"] = _hit(found.get("memory"), "memory", Ending.OUT_OF_MEMORY)
    holds["pids_limit"] = _hit(found.get("pids"), "pids", None)
    holds[OWN_UID] = bool(hello.get("own_uid"))
    missing = tuple(name for name in (*ISOLATION, *LIMITS) if not holds[name])
    if any(name in missing for name in ISOLATION):
        tier, hint = Tier.NONE, hints.user_namespaces()
    elif missing:
        tier, hint = Tier.DEGRADED, hints.cgroups()
    else:
        tier, hint = Tier.SANDBOX, None
    return Capabilities(
        name="sandbox",
        tier=tier,
        digest=digest(bwrap),
        version=bwrap.text,
        holds=holds,
        missing=missing,
        hint=hint,
    )


def _hit(result: RunResult | None, limit: str, ending: Ending | None) -> bool:
    if result is None or limit not in result.limits_hit:
        return False
    return ending is None or result.ending is ending


def digest(bwrap: Bubblewrap | None) -> str:
    """What identifies this runner in a plan: its binary, its options, its filter, its profile.

    It does not cover the contents of the host's /usr, which the operator updates.
    """
    arch = seccomp.ARCHITECTURES.get(platform.machine())
    empty = JailRequest(argv=(), tmp_bytes=0)
    filter_text = b"" if arch is None else seccomp.program(arch)
    return digest_of(
        "remit.runner/1",
        {
            "profile": PROFILE,
            "bwrap": "none" if bwrap is None else bwrap.digest,
            "options": [*WALLS, *base_options(), *run_options(empty)],
            "seccomp": hashlib.sha256(filter_text).hexdigest(),
        },
    )
