"""A block of `remit doctor` for each runner profile: what its probes and its escape checks found."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import replace

from remit.errors import RunnerFault
from remit.model import Capabilities, Lease, RunResult, RunSpec, Tier
from remit.profile import Profile
from remit.runners import escapes
from remit.runners.check import Check
from remit.runners.sandbox import SandboxRunner

_LEASE_S = 60


async def profile_checks(
    runner: SandboxRunner,
    gateway: str,
    profiles: Mapping[str, Profile],
    *,
    unsafe_degraded: bool = False,
) -> list[Check]:
    """Run every escape check in every profile; the lines of a profile begin with its name.

    Args:
        runner: a runner of these profiles and of no way out.
    """
    lines: list[Check] = []
    for name, profile in sorted(profiles.items()):
        found = runner.profile(name)
        if (
            found is None
            or found.tier is Tier.NONE
            or (found.tier is Tier.DEGRADED and not unsafe_degraded)
        ):
            lines.append(_refused(name, found))
        else:
            lines += await _block(runner, gateway, profile, found)
    return lines


def _refused(name: str, found: Capabilities | None) -> Check:
    """A profile in which nothing runs."""
    if found is None:
        return Check(name=f"profile {name}", status="fail", found="it was not probed")
    if found.fault is not None:
        said = f"{found.tier}: refused: {found.fault}"
        return Check(name=f"profile {name}", status="fail", found=said, fix=found.hint)
    missing = ", ".join(found.missing)
    said = f"{found.tier}: refused, because these do not hold: {missing}"
    return Check(name=f"profile {name}", status="fail", found=said, fix=found.hint)


async def _block(
    runner: SandboxRunner, gateway: str, profile: Profile, found: Capabilities
) -> list[Check]:
    numbers = itertools.count(1)

    async def run(spec: RunSpec) -> RunResult | None:
        lease = Lease(
            id=f"doctor-{profile.name}-{os.getpid()}-{next(numbers)}",
            gateway=gateway,
            fence=1,
            deadline_ms=round((time.time() + _LEASE_S) * 1000),
        )
        try:
            await runner.provision(lease, spec)
            await runner.start(lease)
            result = await runner.collect(lease)
        except RunnerFault:
            return None
        finally:
            evidence = await runner.destroy(lease)
        return replace(result, destruction=evidence)

    began = time.monotonic()
    findings = await escapes.attempt(run, profile, found, egress=False)
    took = time.monotonic() - began
    held = sum(each.held is True for each in findings)
    said = (
        f"{found.tier}, {found.version}; {held} of {len(findings)} escape checks held, {took:.1f} s"
    )
    degraded = found.tier is Tier.DEGRADED
    whole = "ok" if held == len(findings) else "warn" if degraded else "fail"
    if any(each.held is None for each in findings) and whole == "fail":
        whole = "fail" if any(each.held is False for each in findings) else "warn"
    lines = [Check(name=f"profile {profile.name}", status=whole, found=said)]
    lines += [_line(profile.name, each, degraded=degraded) for each in findings]
    lines += [_wall(profile.name, name, found.holds) for name in _WALLS if name in found.holds]
    return lines


def _line(profile: str, finding: escapes.Finding, *, degraded: bool) -> Check:
    name = f"{profile}: {finding.name}"
    if finding.held:
        return Check(name=name, status="ok", found=f"refused: {finding.about}")
    if finding.held is None:
        return Check(name=name, status="warn", found=f"not tried: {finding.found}")
    status = "warn" if degraded else "fail"
    return Check(name=name, status=status, found=f"{finding.about}: {finding.found}")


_WALLS = {
    "own_uid": ("runs have host users of their own", "runs act as the gateway's own host user"),
    "landlock_network": (
        "Landlock refuses TCP beside the way out",
        "this kernel has no Landlock rules for TCP (Linux 6.7 has); the namespace alone stands",
    ),
    "landlock_scope": (
        "Landlock keeps signals and abstract sockets inside",
        "this kernel has no Landlock scopes (Linux 6.12 has); the namespaces alone stand",
    ),
    "io_limit": ("disks are as slow as the profile says", "disks are not slowed"),
}
"""What a probe found beside: where it holds, and where it does not, which refuses no run."""


def _wall(profile: str, name: str, holds: Mapping[str, bool]) -> Check:
    there, missing = _WALLS[name]
    status, found = ("ok", there) if holds[name] else ("warn", missing)
    return Check(name=f"{profile}: {name}", status=status, found=found)
