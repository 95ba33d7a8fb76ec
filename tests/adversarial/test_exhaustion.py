"""Hostile commands that use the machine up, or will not end.

A bomb is set off only where its limit was just found to hold.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from pathlib import Path

import pytest

from remit.model import Ending
from remit.runners.sandbox import SandboxRunner
from tests.runners.support import (
    alive,
    begin,
    contained,
    first_line,
    groups_naming,
    limited,
    processes_of,
    python,
    run,
    shell,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-17"),
]


async def test_a_fork_bomb_stays_within_its_processes(limited_runner: SandboxRunner) -> None:
    source = """
import os, time
for n in range(10_000):
    try:
        if os.fork() == 0:
            time.sleep(60)
    except OSError:
        print(n); break
"""
    spec = limited(python(source), pids=20, wall_s=10)
    lease = await begin(limited_runner, spec)
    assert int(await first_line(limited_runner, lease)) == 19
    result = await limited_runner.collect(lease)
    assert (result.ending, result.limits_hit) == (Ending.EXIT, ("pids",))
    assert (await limited_runner.destroy(lease)).complete


async def test_a_fork_bomb_without_end_is_ended(limited_runner: SandboxRunner) -> None:
    spec = limited(shell("f() { f | f & }; f; while :; do sleep 1; done"), wall_s=2, pids=24)
    result = await contained(limited_runner, spec)
    assert result.ending in {Ending.TIMED_OUT, Ending.EXIT}
    assert "pids" in result.limits_hit


async def test_a_memory_bomb_is_killed_and_named(limited_runner: SandboxRunner) -> None:
    source = "b = []\nwhile True: b.append(bytearray(1 << 20))"
    result = await contained(limited_runner, limited(python(source), memory_mb=64))
    assert (result.ending, result.limits_hit) == (Ending.OUT_OF_MEMORY, ("memory",))
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes <= 64 * 1024 * 1024


async def test_a_killed_child_for_memory_is_named_though_the_command_ends_well(
    limited_runner: SandboxRunner,
) -> None:
    child = "b=[]\nwhile 1: b.append(bytearray(1<<20))"
    script = f'/usr/bin/python3 -I -S -c "{child}"; echo went on'
    result = await contained(limited_runner, limited(shell(script), memory_mb=64))
    assert result.limits_hit == ("memory",)
    if result.ending is Ending.EXIT:  # under cgroup2 the whole run is killed together
        assert result.stdout == b"went on\n"


async def test_a_kill_that_is_not_for_memory_is_not_called_that(runner: SandboxRunner) -> None:
    result = await contained(runner, shell("kill -9 $$"))
    assert (result.ending, result.signal, result.limits_hit) == (Ending.SIGNAL, 9, ())


@pytest.mark.parametrize("directory", ["/tmp", "/job", "/dev/shm"])
async def test_a_full_disk_is_its_own(runner: SandboxRunner, directory: str) -> None:
    free = os.statvfs("/tmp").f_bavail
    script = f"dd if=/dev/zero of={directory}/fill bs=1M count=64; stat -c %s {directory}/fill"
    result = await contained(runner, limited(shell(script), tmp_mb=8))
    assert int(result.stdout) == 8 * 1024 * 1024
    assert b"No space left" in result.stderr
    assert abs(os.statvfs("/tmp").f_bavail - free) < 32_768


async def test_many_small_files_meet_the_memory_limit(limited_runner: SandboxRunner) -> None:
    source = "n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'x').close()"
    result = await contained(limited_runner, limited(python(source), memory_mb=32, wall_s=10))
    assert result.ending in {Ending.OUT_OF_MEMORY, Ending.EXIT}
    assert result.ending is Ending.OUT_OF_MEMORY or b"No space left" in result.stderr


@pytest.mark.parametrize("stream", ["", ">&2"])
async def test_a_flood_of_output_is_cut_and_ended(runner: SandboxRunner, stream: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = await contained(runner, shell(f"exec cat /dev/zero {stream}"))
    assert (result.ending, result.limits_hit[0]) == (Ending.OUTPUT_LIMIT, "output")
    kept, cut = (
        (result.stderr, result.stderr_truncated)
        if stream
        else (result.stdout, result.stdout_truncated)
    )
    assert (len(kept), cut) == (65_536, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024


async def test_a_flood_does_not_hold_up_the_others(runner: SandboxRunner) -> None:
    floods = [asyncio.ensure_future(run(runner, shell("exec cat /dev/zero"))) for _ in range(2)]
    result, _ = await run(runner, shell("echo fine"))
    assert result.stdout == b"fine\n"
    assert [(await flood)[0].ending for flood in floods] == [Ending.OUTPUT_LIMIT] * 2


async def test_exactly_the_limit_is_no_flood(runner: SandboxRunner) -> None:
    result = await contained(runner, shell("head -c 65536 /dev/zero"))
    assert (result.ending, result.stdout_truncated) == (Ending.EXIT, False)
    assert len(result.stdout) == 65_536


async def test_a_flood_that_ends_at_once_is_still_marked(runner: SandboxRunner) -> None:
    result = await contained(runner, shell("head -c 65537 /dev/zero"))
    assert (len(result.stdout), result.stdout_truncated) == (65_536, True)
    assert "output" in result.limits_hit
    assert result.ending is Ending.OUTPUT_LIMIT


async def test_a_spin_uses_its_share_of_the_processor_until_its_time(
    limited_runner: SandboxRunner,
) -> None:
    spec = limited(shell("while :; do :; done & while :; do :; done"), wall_s=2, cpu_percent=30)
    result = await contained(limited_runner, spec)
    assert result.ending is Ending.TIMED_OUT
    assert result.cpu_ms is not None
    assert result.cpu_ms < 1000
    # Where the machine was too busy to give it its share, the limit was never met.
    assert set(result.limits_hit) == {"wall", "cpu"} or result.cpu_ms < 500


@pytest.mark.threat("T-18")
async def test_a_daemon_dies_with_its_run(runner: SandboxRunner) -> None:
    source = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0); os.closerange(1, 3)
        time.sleep(1000)
    os._exit(0)
os.wait()
print("daemon away", flush=True)
time.sleep(0.05)
"""
    lease = await begin(runner, python(source))
    await first_line(runner, lease)
    pids = processes_of(lease.id)
    assert len(pids) >= 3
    result = await runner.collect(lease)
    assert alive(pids) == []
    assert (result.ending, result.exit_code) == (Ending.EXIT, 0)
    assert (await runner.destroy(lease)).complete


@pytest.mark.threat("T-18")
async def test_a_grandchild_that_holds_the_output_open_holds_nobody_up(
    runner: SandboxRunner,
) -> None:
    started = time.monotonic()
    result = await contained(runner, limited(shell("setsid sleep 1000 & echo done"), wall_s=600))
    assert (result.ending, result.stdout) == (Ending.EXIT, b"done\n")
    assert time.monotonic() - started < 300


async def test_a_command_that_closes_its_output_is_still_waited_for(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("exec >&- 2>&-; sleep 0.2; exit 3"))
    assert [frame async for frame in runner.stream(lease)] == []
    result = await runner.collect(lease)
    assert (result.ending, result.exit_code) == (Ending.EXIT, 3)
    assert result.wall_ms >= 200
    await runner.destroy(lease)


@pytest.mark.threat("T-18")
async def test_a_stopped_process_is_ended_too(runner: SandboxRunner) -> None:
    result = await contained(runner, limited(shell("kill -STOP $$"), wall_s=1))
    assert result.ending is Ending.TIMED_OUT


async def test_too_many_open_files_meet_their_limit(runner: SandboxRunner) -> None:
    source = """
import os
n = 0
try:
    while True:
        os.open("/dev/null", os.O_RDONLY); n += 1
except OSError as exc:
    print(n, exc.errno)
"""
    result = await contained(runner, limited(python(source), open_files=32))
    assert result.stdout == b"29 24\n"


async def test_twenty_runs_that_ignore_everything_are_gone_at_once(runner: SandboxRunner) -> None:
    script = "trap '' TERM INT HUP; echo; while :; do sleep 5; done"
    leases = [await begin(runner, shell(script)) for _ in range(20)]
    for lease in leases:
        await first_line(runner, lease)
    pids = [pid for lease in leases for pid in processes_of(lease.id)]
    assert len(pids) >= 60
    evidence = await asyncio.gather(*(runner.destroy(lease) for lease in leases))
    assert all(each.complete for each in evidence)
    assert alive(pids) == []


async def test_what_waits_in_sockets_is_counted_and_limited(limited_runner: SandboxRunner) -> None:
    source = """
import socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setblocking(False)
held = []
try:
    for n in range(200):
        held.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        held[-1].bind(("127.0.0.1", 0))
        for _ in range(8):
            sender.sendto(b"x" * 60_000, held[-1].getsockname())
except OSError:
    pass
print("full", flush=True)
time.sleep(60)
"""
    lease = await begin(limited_runner, limited(python(source), memory_mb=32))
    assert await first_line(limited_runner, lease) == b"full"
    groups = groups_naming(lease.id)
    group = next((each for each in groups if "/memory/" in each), groups[0])
    apart = Path(group, "memory.kmem.tcp.usage_in_bytes")
    counted = apart if apart.exists() else Path(group, "memory.current")
    assert 16 << 20 < int(counted.read_text()) <= 32 << 20
    assert (await limited_runner.destroy(lease)).complete
