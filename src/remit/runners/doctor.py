"""The machine, line by line, as far as runners need it: what was found, and what mends it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.model import Capabilities, Tier
from remit.profile import DEFAULT, Profile, RunnerKind
from remit.runners import gvisor, hints
from remit.runners.bubblewrap import SOUND, Bubblewrap, find
from remit.runners.check import Check
from remit.runners.doctor_profiles import profile_checks
from remit.runners.gvisor import Runsc
from remit.runners.sandbox import UID_BASE, SandboxRunner, SandboxSettings
from remit.runners.users import exist_here, others_of

_LOW_DISK_BYTES = 512 * 1024 * 1024


async def machine_checks(
    state_dir: Path,
    *,
    capabilities: Capabilities | None = None,
    profiles: Mapping[str, Profile] | None = None,
    bwrap: Path | None = None,
    runsc: Path | None = None,
    gvisor_platform: str | None = None,
    unsafe_degraded: bool = False,
    data_dir: Path | None = None,
    uid_base: int = UID_BASE,
) -> list[Check]:
    """Look at this machine; starts a sandbox runner for it unless one was probed already.

    Changes nothing that stays: the runner it starts is closed, its control groups removed.

    Args:
        state_dir: an existing directory that lease files may be put into for the moment.
        profiles: run the escape checks of each of these, which takes seconds; else of none.
        bwrap: the bubblewrap to look at, as `SandboxSettings` takes it; `runsc` and
            `gvisor_platform` likewise.
        unsafe_degraded: runs are let go where only rlimits hold; a warning instead of a failure.
        data_dir: where the ledger lies, for the room that is left; the state's if None.
        uid_base: with root, the first user that runs act as.
    """
    if capabilities is None:
        settings = SandboxSettings(
            state_dir=state_dir,
            gateway=f"doctor-{os.getpid()}",
            bwrap=bwrap,
            runsc=runsc,
            gvisor_platform=gvisor_platform,
            unsafe_degraded=unsafe_degraded,
            uid_base=uid_base,
            profiles={DEFAULT: Profile(), **(profiles or {})},
        )
        looked = await _look(settings, profiles or {})
    else:
        looked = _Looked(capabilities=capabilities)
    found = looked.capabilities
    lines = [
        _bubblewrap(find(bwrap, for_others=os.geteuid() == 0), named=bwrap is not None),
        _namespaces(found),
        _cgroups(found, looked.mode, unsafe_degraded=unsafe_degraded),
        _tier(found, unsafe_degraded=unsafe_degraded),
        _user(found, looked.uids, uid_base),
        _disk(data_dir or state_dir),
    ]
    if not profiles:
        return lines
    wanted = any(each.runner is RunnerKind.GVISOR for each in profiles.values())
    gvisors = gvisor.find(runsc, gvisor_platform, for_others=os.geteuid() == 0)
    return [*lines, _processes(), _gvisor(gvisors, wanted, named=runsc is not None), *looked.blocks]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What a runner said of this machine: of its default profile, and a block for each other."""

    capabilities: Capabilities
    mode: str | None = None
    uids: str | None = None
    blocks: Sequence[Check] = ()


async def _look(settings: SandboxSettings, profiles: Mapping[str, Profile]) -> _Looked:
    runner = await SandboxRunner.open(settings)
    try:
        blocks = await profile_checks(
            runner, settings.gateway, profiles, unsafe_degraded=settings.unsafe_degraded
        )
        return _Looked(
            capabilities=runner.capabilities,
            mode=runner.cgroup_mode,
            uids=runner.attempts.link.hello.get("uids"),
            blocks=blocks,
        )
    finally:
        await runner.aclose()


def _bubblewrap(bwrap: Bubblewrap | None, *, named: bool = False) -> Check:
    if bwrap is None:
        fix = hints.named("bubblewrap") if named else hints.install_bubblewrap()
        return Check(name="bubblewrap", status="fail", found="none that runs can use", fix=fix)
    kind = "bundled" if bwrap.bundled else "the system's"
    if bwrap.version >= SOUND:
        return Check(name="bubblewrap", status="ok", found=f"{bwrap.text}, {kind}")
    found = (
        f"{bwrap.text}, {kind}; CVE-2026-87766 (before 0.12) lets set-up follow a symlink; "
        "Remit mounts only at fixed paths of a fresh tmpfs, which holds none; a newer one can be "
        "named in runners.sandbox.bwrap"
    )
    return Check(name="bubblewrap", status="warn", found=found)


def _namespaces(capabilities: Capabilities) -> Check:
    if capabilities.holds.get("user_namespace"):
        return Check(name="user namespaces", status="ok", found="a sandbox could be made")
    fix = hints.user_namespaces()
    return Check(name="user namespaces", status="fail", found="no sandbox could be made", fix=fix)


def _cgroups(capabilities: Capabilities, mode: str | None, *, unsafe_degraded: bool) -> Check:
    if not capabilities.holds.get("user_namespace"):
        found = "could not be looked at without a sandbox"
        return Check(name="cgroups", status="unknown", found=found)
    held = [name for name in ("memory_limit", "pids_limit") if capabilities.holds.get(name)]
    where = f" ({mode})" if mode else ""
    if len(held) == 2:
        return Check(name="cgroups", status="ok", found=f"limits hold{where}")
    found = f"memory and process limits do not hold{where}"
    status = "warn" if unsafe_degraded else "fail"
    return Check(name="cgroups", status=status, found=found, fix=hints.cgroups())


def _tier(capabilities: Capabilities, *, unsafe_degraded: bool) -> Check:
    missing = ", ".join(capabilities.missing)
    if capabilities.tier in {Tier.NONE, Tier.DEGRADED}:
        found = f"{capabilities.tier}, without: {missing}"
        allowed = unsafe_degraded and capabilities.tier is Tier.DEGRADED
        status = "warn" if allowed else "fail"
        return Check(name="sandbox", status=status, found=found, fix=capabilities.hint)
    return Check(name="sandbox", status="ok", found=f"{capabilities.tier}, every probe held")


_USERS = {
    "host": "a host user of its own for each run",
    "subuid": "a subordinate user (subuid(5)) of its own for each run",
}


_RUN_USERS = 1_000
"""How many from `uid_base` on are looked at: more than runs and slots there are at once."""


def _user(capabilities: Capabilities, uids: str | None, uid_base: int) -> Check:
    if uids == "host" and (other := others_of(uid_base - 2, uid_base + _RUN_USERS)) is not None:
        found = f"host users of their own, which {other} may act as too (/etc/subuid, /etc/subgid)"
        fix = "set runners.sandbox.uid_base to numbers that nobody has, and chown what is mounted"
        return Check(name="user of runs", status="warn", found=found, fix=fix)
    if capabilities.holds.get("own_uid"):
        return Check(name="user of runs", status="ok", found=_USERS[uids or "host"])
    found = (
        f"the gateway's own (uid {os.geteuid()}), in a user namespace; with a range in /etc/subuid "
        "and newuidmap each run has one of its own"
    )
    return Check(name="user of runs", status="ok", found=found)


def _processes() -> Check:
    """Who the processes beside the gateway act as."""
    if os.geteuid() == 0 and exist_here(UID_BASE - 2, UID_BASE - 1):
        found = "spawner: root, which makes the runs' users; egress proxy and keeper: one of their own each"
    else:
        found = f"spawner, egress proxy and keeper: the gateway's own (uid {os.geteuid()})"
    return Check(name="user of processes", status="ok", found=found)


def _gvisor(found: Runsc | None, wanted: bool, *, named: bool) -> Check:
    if found is None:
        said = "no runsc that runs can use"
        if wanted:
            fix = hints.named("runsc") if named else hints.install_runsc()
            return Check(name="gvisor", status="fail", found=said, fix=fix)
        return Check(name="gvisor", status="ok", found=f"{said}; no profile asks for it")
    said = f"{found.version}, platform {found.platform}"
    if wanted and found.old:
        said += "; an old build: slow, and without calls that current programs make"
        return Check(name="gvisor", status="warn", found=said, fix=hints.newer_runsc())
    return Check(name="gvisor", status="ok", found=said)


def _disk(state_dir: Path) -> Check:
    existing = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    status = "ok" if free >= _LOW_DISK_BYTES else "warn"
    fix = None if status == "ok" else "free some space, or set the data directory elsewhere"
    return Check(name="disk", status=status, found=f"{free // (1024 * 1024)} MiB free", fix=fix)
