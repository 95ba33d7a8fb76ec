"""kill -9 of the gateway, of the spawner, of both: nothing of any run stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remit.runners.channel import Channel, SpawnerGone
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.plugins.machine import ROOT
from tests.runners.support import (
    alive,
    begin,
    contained,
    eventually,
    first_line,
    groups_naming,
    new_lease,
    processes_of,
    shell,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-18"),
]


@contextlib.contextmanager
def gateway(
    state: Path, name: str, runs: int, *, seconds: float = 30
) -> Iterator[tuple[int, int, list[str]]]:
    """A gateway process with runs; gives its pid, its spawner's, and the leases."""
    given = [str(state), name, str(runs), str(seconds)]
    argv = [sys.executable, "-m", "tests.runners.gateway_script", *given]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        try:
            yield process.pid, said["spawner"], said["leases"]
        finally:
            process.kill()


def _processes(leases: list[str]) -> list[int]:
    return [pid for lease in leases for pid in processes_of(lease)]


async def _swept(state: Path, name: str) -> set[str]:
    runner = await SandboxRunner.open(SandboxSettings(state_dir=state, gateway=name))
    found = await runner.sweep(frozenset())
    assert all(each.complete for each in found), found
    assert await runner.sweep(frozenset()) == []
    await runner.aclose()
    assert list((state / "leases").iterdir()) == []
    return {each.lease_id for each in found}


async def test_a_killed_gateway_leaves_nothing_alive(tmp_path: Path) -> None:
    name = f"killed-{os.getpid()}"
    with gateway(tmp_path, name, 5) as (pid, spawner, leases):
        pids = _processes(leases)
        assert len(alive(pids)) == 5 * 5 + 2
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: alive([*pids, spawner]) == [], seconds=20)
    assert groups_naming(name) == []
    mounts = Path("/proc/self/mountinfo").read_text()
    assert not any(lease in mounts for lease in leases)
    assert await _swept(tmp_path, name) == set(leases)


async def test_gateway_and_spawner_killed_together_leave_only_what_a_sweep_ends(
    tmp_path: Path,
) -> None:
    name = f"both-{os.getpid()}"
    with gateway(tmp_path, name, 3) as (pid, spawner, leases):
        pids = _processes(leases)
        held = processes_of(leases[-1])
        os.kill(spawner, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        running = [each for each in pids if each not in held]
        assert eventually(lambda: alive(running) == [], seconds=1)
    assert await _swept(tmp_path, name) == set(leases)
    assert alive(pids) == []
    assert groups_naming(name) == []


async def test_a_killed_spawner_is_replaced_and_the_next_run_works(
    runner: SandboxRunner,
) -> None:
    running = await begin(runner, shell("echo; sleep 60"))
    held = new_lease("held")
    await runner.provision(held, shell("echo never"))
    await first_line(runner, running)
    first = runner.spawner_pid
    os.kill(first or 0, signal.SIGKILL)
    await runner.collect(running)
    assert (await contained(runner, shell("echo next"))).stdout == b"next\n"
    assert runner.spawner_pid not in {first, None}
    assert groups_naming(held.id) == groups_naming(running.id) == []
    for lease in (running, held):
        assert (await runner.destroy(lease)).complete


async def test_a_stopped_gateway_does_not_stop_its_deadlines(tmp_path: Path) -> None:
    """Every limit is held by the kernel or the spawner; the gateway only hears of it."""
    name = f"stopped-{os.getpid()}"
    with gateway(tmp_path, name, 2, seconds=2) as (pid, _, leases):
        pids = _processes(leases)
        os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: alive(pids) == [], seconds=5)
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
async def test_random_kills_leave_nothing(
    tmp_path: Path, seed: int, chaos_count: Callable[[int], int]
) -> None:
    choose = random.Random(seed)
    name = f"chaos-{os.getpid()}"
    for _ in range(chaos_count(50)):
        with gateway(tmp_path, name, choose.randrange(1, 6)) as (pid, spawner, leases):
            pids = _processes(leases)
            for victim in choose.sample([pid, spawner, *pids], choose.randrange(1, 4)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        await _swept(tmp_path, name)
        assert alive(pids) == []
        assert groups_naming(name) == []


@pytest.mark.threat("T-18")
async def test_a_sandbox_nobody_saw_end_holds_no_place_and_a_sweep_finds_it(
    runner: SandboxRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = new_lease()
    free = runner.attempts.places._value
    await runner.provision(lease, shell("true"))
    assert runner.attempts.places._value == free - 1

    async def gone() -> Channel:
        raise SpawnerGone

    assert runner.spawner_pid is not None
    os.kill(runner.spawner_pid, signal.SIGKILL)
    await runner.collect(lease)  # ends once the spawner's death is noticed
    with monkeypatch.context() as lost:  # and the one after it does not come up either
        lost.setattr(runner.attempts.link, "connect", gone)
        evidence = await runner.destroy(lease)
    assert not evidence.complete
    assert runner.attempts.places._value == free
    swept = {each.lease_id: each for each in await runner.sweep(frozenset())}
    assert swept[lease.id].complete
    assert groups_naming(lease.id) == []
