"""Escape checks: programs that try to get out of a profile, and what became of each.

They take seconds and are for `remit doctor` and for tests; a start of the gateway runs `probe`
alone. What they need of the host to be found (a file, a socket, a segment of shared memory) is made
before and removed after.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remit.model import Capabilities, Ending, Limits, RunResult, RunSpec
from remit.profile import BaseKind, Profile, RunnerKind

Run = Callable[[RunSpec], Awaitable[RunResult | None]]
"""Runs one command in the profile that is examined, destroys it, and gives its result with the
evidence; None if it could not be made."""

INSIDE = Path(__file__).with_name("escape_inside.py")
LIMITS = Limits(wall_s=20, memory_mb=128, pids=32, tmp_mb=8, output_bytes=65_536)

BOTH = {
    "host_files": "files of the host",
    "host_processes": "processes of the host",
    "environment_of_others": "the environment of another process",
    "privileges": "capabilities, or another user",
    "host_abstract_socket": "an abstract socket of the host",
    "host_network": "the host's network, or any other",
    "interfaces": "a network interface beside lo",
    "way_out": "a way out that the profile has not",
    "shared_memory": "shared memory of the host",
    "base_writable": "writing to the base",
    "devices": "devices",
    "kernel_files": "the kernel's files in /proc and /sys",
    "descriptors": "a descriptor that was left open",
    "memory_disk": "more than the size of a tmpfs",
}
"""What is tried in every profile, in words."""

FILTERED = {
    "mounting": "mounting",
    "namespaces": "namespaces of its own",
    "tracing": "tracing and reading other processes",
    "kernel_doors": "keys, BPF, io_uring, modules and their like",
    "terminal_input": "input to a terminal",
    "socket_families": "sockets of other families and protocols",
}
"""What a seccomp filter refuses; under gVisor these calls are to gVisor's own kernel."""

RULED = {"tcp_by_rule": "TCP beside the way out, by Landlock's rule"}

_OF_GVISOR = frozenset({"environment_of_others", "devices", "kernel_files", "descriptors"})
"""What gVisor shows of these is its own: other processes of the run, devices and files that it
makes up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check. `held` None: it could not be found out, and `found` says why."""

    name: str
    about: str
    held: bool | None
    found: str = ""


async def attempt(
    run: Run, profile: Profile, capabilities: Capabilities, *, egress: bool
) -> list[Finding]:
    """Try every escape in a profile, then to go beyond each of its limits.

    Args:
        egress: runs of the profile are given a way out, so that it has to be there.
    """
    tried = _attempts(profile, capabilities)
    with _host() as facts:
        facts |= {
            "attempts": list(tried),
            "egress": egress,
            "host_base": profile.base.kind is BaseKind.HOST,
            "tmp_bytes": LIMITS.tmp_mb << 20,
        }
        argv = ("python3", "-I", "-S", "-c", INSIDE.read_text())
        spec = RunSpec(
            argv=argv, limits=LIMITS, profile=profile.name, stdin=json.dumps(facts).encode()
        )
        findings = _walls(tried, await run(spec))
    return [*findings, *[await check(run, profile) for check in _checks(profile)]]


def _attempts(profile: Profile, capabilities: Capabilities) -> Mapping[str, str]:
    if profile.runner is RunnerKind.GVISOR:
        return {name: about for name, about in BOTH.items() if name not in _OF_GVISOR}
    ruled = RULED if capabilities.holds.get("landlock_network") else {}
    return {**BOTH, **FILTERED, **ruled}


def _walls(tried: Mapping[str, str], result: RunResult | None) -> list[Finding]:
    try:
        found = json.loads(result.stdout if result else b"")
    except ValueError:
        why = "its base has no python3 to look with" if result else "no run could be made in it"
        return [
            Finding(name=name, about=about, held=None, found=why) for name, about in tried.items()
        ]
    findings = []
    for name, about in tried.items():
        got = [str(each) for each in found.get(name, ["could not be tried: no answer"])]
        unknown = any(each.startswith("could not be tried") for each in got)
        held = None if unknown else not got
        findings.append(Finding(name=name, about=about, held=held, found="; ".join(got)[:500]))
    return findings


@contextlib.contextmanager
def _host() -> Iterator[dict[str, Any]]:
    """Things of the host that an escape would reach, and how they are found."""
    name, key = f"remit-escape-{secrets.token_hex(8)}", secrets.randbelow(1 << 30) + 1
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(key, 4096, 0o1666)  # IPC_CREAT, for everybody
    try:
        with (
            tempfile.TemporaryDirectory(prefix="remit-escape-") as directory,
            socket.socket(socket.AF_UNIX) as abstract,
            socket.create_server(("127.0.0.1", 0)) as tcp,
        ):
            os.chmod(directory, 0o755)  # noqa: S103 - it is to be found, if anything can
            marker = Path(directory) / "marker"
            marker.write_text("found")
            abstract.bind("\0" + name)
            abstract.listen()
            yield {
                "marker": str(marker),
                "abstract": name,
                "tcp": tcp.getsockname()[1],
                "pid": os.getpid(),
                "shm_key": key,
            }
    finally:
        if segment >= 0:
            libc.shmctl(segment, 0, None)  # IPC_RMID


# ----------------------------------------------------------------------------------- limits


def _checks(profile: Profile) -> list[Callable[[Run, Profile], Awaitable[Finding]]]:
    return [_memory, _processes, _cpu, _leaves_nothing]


def _shell(profile: Profile, script: str, **limits: int) -> RunSpec:
    return RunSpec(
        argv=("/bin/sh", "-c", script), limits=replace(LIMITS, **limits), profile=profile.name
    )


async def _memory(run: Run, profile: Profile) -> Finding:
    script = "exec dd if=/dev/zero of=/dev/null bs=512M count=1"
    result = await run(_shell(profile, script, memory_mb=64))
    held = None if result is None else result.ending is Ending.OUT_OF_MEMORY
    return _limit("memory_limit", "more memory than its limit", held, result)


async def _processes(run: Run, profile: Profile) -> Finding:
    script = "n=0; while [ $n -lt 400 ]; do sleep 5 & n=$((n+1)); done"
    result = await run(_shell(profile, script, pids=16, memory_mb=512))
    held = None if result is None else "pids" in result.limits_hit
    return _limit("pids_limit", "more processes than its limit", held, result)


async def _cpu(run: Run, profile: Profile) -> Finding:
    """A second at a fifth of a core, with some room for what starts the command."""
    result = await run(_shell(profile, "while :; do :; done", wall_s=1, cpu_percent=20))
    if result is None or result.cpu_ms is None:
        held = None if result is None else "cpu" in result.limits_hit
    else:
        held = result.cpu_ms <= 0.35 * max(1000, result.wall_ms) and "cpu" in result.limits_hit
    return _limit("cpu_limit", "more of a processor than its limit", held, result)


async def _leaves_nothing(run: Run, profile: Profile) -> Finding:
    """A process that left its session and its parent is gone with the run."""
    script = "(trap '' TERM HUP INT; sleep 60 </dev/null >/dev/null 2>&1 &) & exit 0"
    result = await run(_shell(profile, script))
    evidence = None if result is None else result.destruction
    held = None if evidence is None else evidence.complete
    about = "outliving its end"
    return Finding(
        name="leaves_nothing", about=about, held=held, found="" if held else "not seen gone"
    )


def _limit(name: str, about: str, held: bool | None, result: RunResult | None) -> Finding:
    if held:
        return Finding(name=name, about=about, held=True)
    found = "no run could be made" if result is None else f"it ended with {result.ending}"
    return Finding(name=name, about=about, held=held, found=found)
