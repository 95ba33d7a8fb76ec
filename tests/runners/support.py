"""Running one command in a real sandbox, and looking at the host from outside."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

from remit.model import Destruction, Lease, Limits, RunResult, RunSpec
from remit.runners.sandbox import SandboxRunner

GATEWAY = f"test-{os.getpid()}"
LIMITS = Limits(wall_s=15, memory_mb=128, pids=32, tmp_mb=8, output_bytes=65_536)
PYTHON = "/usr/bin/python3"

_numbers = itertools.count(1)


def new_lease(name: str = "run", *, seconds: float = 30, gateway: str = GATEWAY) -> Lease:
    deadline_ms = round((time.time() + seconds) * 1000)
    lease_id = f"{name}-{os.getpid()}-{next(_numbers)}"
    return Lease(id=lease_id, gateway=gateway, fence=1, deadline_ms=deadline_ms)


def shell(script: str, **more) -> RunSpec:
    return RunSpec(**{"argv": ("/bin/sh", "-c", script), "limits": LIMITS, **more})


def python(source: str, **more) -> RunSpec:
    return RunSpec(**{"argv": (PYTHON, "-I", "-S", "-c", source), "limits": LIMITS, **more})


def limited(spec: RunSpec, **limits) -> RunSpec:
    return replace(spec, limits=replace(spec.limits, **limits))


async def begin(runner: SandboxRunner, spec: RunSpec, lease: Lease | None = None) -> Lease:
    lease = lease or new_lease()
    await runner.provision(lease, spec)
    await runner.start(lease)
    return lease


async def run(runner: SandboxRunner, spec: RunSpec) -> tuple[RunResult, Destruction]:
    lease = await begin(runner, spec)
    result = await runner.collect(lease)
    return result, await runner.destroy(lease)


async def contained(runner: SandboxRunner, spec: RunSpec) -> RunResult:
    """Run it, check that nothing of it is left by looking from outside, give the result."""
    lease = await begin(runner, spec)
    result = await runner.collect(lease)
    evidence = await runner.destroy(lease)
    assert evidence.complete, evidence
    assert groups_naming(lease.id) == []
    assert lease.id not in Path("/proc/self/mountinfo").read_text()
    return result


async def first_line(runner: SandboxRunner, lease: Lease) -> bytes:
    """Wait until the run has written a whole line; give it."""
    seen = b""
    async for frame in runner.stream(lease):
        seen += frame.data
        if b"\n" in seen:
            break
    return seen.partition(b"\n")[0]


def groups_naming(name: str) -> list[str]:
    """Every control group directory of this machine whose path names this."""
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{directory}/{each}" for each in names if name in each]
    return found


def processes_of(lease_id: str) -> list[int]:
    """The processes in the lease's control groups."""
    pids: set[int] = set()
    for group in groups_naming(lease_id):
        with contextlib.suppress(OSError):  # the run has ended meanwhile
            pids |= {int(pid) for pid in Path(group, "cgroup.procs").read_text().split()}
    return sorted(pids)


def alive(pids: list[int]) -> list[int]:
    """Those that still run; a zombie runs nothing, unless only its first thread has ended."""
    return [pid for pid in pids if _state(pid) not in {"", "Z", "X"} or _threads(pid) > 1]


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def eventually(check, *, seconds: float) -> bool:
    """Whether `check` became true in time."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


def shared_directory(path: Path, runner: SandboxRunner) -> Path:
    """A new directory that runs may write to: it belongs to the user as which they act."""
    path.mkdir()
    if runner.mount_uid is not None:
        os.chown(path, runner.mount_uid, runner.mount_uid)
    return path
