"""Seven ways in which a bubblewrap runner looks sound and is not; each was seen to happen.

That plain bubblewrap does fall into them is seen in `test_traps_sprung`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from remit.model import Ending, Mount
from remit.runners.bubblewrap import OLDEST, SOUND, Bubblewrap
from remit.runners.doctor import _bubblewrap
from remit.runners.jail import WALLS, JailRequest, base_options, run_options
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import (
    alive,
    begin,
    contained,
    eventually,
    first_line,
    groups_naming,
    new_lease,
    processes_of,
    python,
    run,
    shared_directory,
    shell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.needs("bwrap", "userns", "cgroup")]


@pytest.mark.threat("T-20")
async def test_trap_1_pid_1_holds_none_of_the_gateways_environment(
    monkeypatch: pytest.MonkeyPatch, runner: SandboxRunner
) -> None:
    monkeypatch.setenv("REMIT_TRAP_SECRET", "hunter2")
    os.environ["REMIT_TRAP_SECRET"] = "hunter2"
    result = await contained(runner, shell("cat /proc/1/environ /proc/1/cmdline; env"))
    assert b"hunter2" not in result.stdout
    assert b"--clearenv" in result.stdout  # the command line was read, and says only flags
    environment = await contained(runner, shell("wc -c </proc/1/environ"))
    assert environment.stdout.strip() == b"0"


@pytest.mark.threat("T-20")
async def test_trap_1_the_spawner_itself_is_started_with_an_empty_environment(
    runner: SandboxRunner,
) -> None:
    assert Path(f"/proc/{runner.spawner_pid}/environ").read_bytes() == b""


@pytest.mark.threat("T-16")
async def test_trap_2_the_command_has_no_capability_and_is_not_the_hosts_root(
    runner: SandboxRunner,
) -> None:
    lease = await begin(runner, shell("grep Cap /proc/self/status; echo; exec sleep 60"))
    lines = await first_line(runner, lease)
    assert lines.startswith(b"CapInh:\t0000000000000000")
    outside = [Path(f"/proc/{pid}/status").read_text() for pid in processes_of(lease.id)]
    uids = {line for text in outside for line in text.splitlines() if line.startswith("Uid:")}
    assert len(uids) == 1
    uid = int(next(iter(uids)).split()[1])
    assert uid != 0
    assert uid > 300_000 if os.geteuid() == 0 else uid == os.geteuid()
    await runner.destroy(lease)


@pytest.mark.threat("T-16")
async def test_trap_2_two_runs_at_a_time_are_two_users_of_the_host(runner: SandboxRunner) -> None:
    if not runner.capabilities.holds["own_uid"]:
        pytest.skip("runs are one user here; to run it: be root")
    leases = [await begin(runner, shell("echo; exec sleep 60")) for _ in range(2)]
    owners = [os.stat(f"/proc/{processes_of(lease.id)[0]}").st_uid for lease in leases]
    assert len(set(owners)) == 2
    for lease in leases:
        await runner.destroy(lease)


@pytest.mark.threat("T-16")
async def test_trap_3_a_further_user_namespace_is_refused_twice_over(runner: SandboxRunner) -> None:
    source = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000, 0x20000, 0x40000000, 0):
    print(libc.unshare(flags), ctypes.get_errno())
print(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())
print(libc.syscall(435, 0, 0), ctypes.get_errno())
"""
    result = await contained(runner, python(source))
    assert result.stdout.split(b"\n")[:5] == [b"-1 1"] * 5
    assert result.stdout.split(b"\n")[5] == b"-1 38"
    assert "--disable-userns" in WALLS


@pytest.mark.threat("T-18")
def test_trap_4_a_run_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    """`--die-with-parent` is per thread: the spawner has one, and it never ends before its runs."""
    settings = SandboxSettings(state_dir=tmp_path, gateway=f"thread-{os.getpid()}")
    loop = asyncio.new_event_loop()
    runners: list[SandboxRunner] = []
    pids: list[int] = []

    async def made() -> None:
        runners.append(await SandboxRunner.open(settings))
        lease = await begin(runners[0], shell("echo; exec sleep 60"))
        await first_line(runners[0], lease)
        pids.extend([runners[0].spawner_pid or 0, *processes_of(lease.id)])

    thread = threading.Thread(target=lambda: loop.run_until_complete(made()))
    thread.start()
    thread.join()
    assert len(pids) == 4  # the spawner, bubblewrap, PID 1 and the command
    assert alive(pids) == pids
    assert len(os.listdir(f"/proc/{pids[0]}/task")) == 1
    loop.run_until_complete(runners[0].aclose())
    loop.close()
    assert alive(pids) == []


@pytest.mark.threat("T-18")
async def test_trap_5_a_killed_spawner_takes_every_run_with_it(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("sleep 61 & sleep 62 & echo; wait"))
    await first_line(runner, lease)
    pids = processes_of(lease.id)
    assert len(alive(pids)) >= 4
    os.kill(runner.spawner_pid or 0, signal.SIGKILL)
    assert eventually(lambda: alive(pids) == [], seconds=1)
    assert (await runner.collect(lease)).ending is Ending.LOST
    assert (await runner.destroy(lease)).complete


@pytest.mark.threat("T-15")
async def test_trap_5_the_death_of_the_spawner_never_starts_a_held_command(
    runner: SandboxRunner, reachable: Path
) -> None:
    """bubblewrap takes the end of its block pipe for a release: it holds that pipe open itself."""
    shared = shared_directory(reachable / "shared", runner)
    lease = new_lease()
    mount = Mount(name="out", source=str(shared), writable=True)
    spec = shell("echo ran >/mnt/out/ran", mounts=(mount,))
    await runner.provision(lease, spec)
    os.kill(runner.spawner_pid or 0, signal.SIGKILL)
    assert (await runner.collect(lease)).ending is Ending.NOT_STARTED
    assert (await runner.destroy(lease)).complete
    assert groups_naming(lease.id) == []
    assert list(shared.iterdir()) == []


@pytest.mark.threat("T-18")
async def test_trap_6_the_reaper_believes_what_it_finds_and_no_record(
    runner: SandboxRunner,
) -> None:
    """A run of which no lease file, and nobody, tells is found by its group and ended."""
    lease = await begin(runner, shell("echo; exec sleep 60"))
    await first_line(runner, lease)
    pids = processes_of(lease.id)
    stranger = f"stranger-{os.getpid()}"
    for group in groups_naming(lease.id):
        os.mkdir(Path(group).with_name(stranger))
        for pid in pids:
            Path(group).with_name(stranger).joinpath("cgroup.procs").write_text(str(pid))
    found = await runner.sweep(frozenset())
    assert [each.lease_id for each in found if each.complete] == [stranger]
    # A process leaves its group a moment before it is nothing but a zombie.
    assert eventually(lambda: alive(pids) == [], seconds=1)
    assert groups_naming(stranger) == []
    await runner.destroy(lease)


@pytest.mark.threat("T-16")
def test_trap_7_mounts_go_only_to_fixed_paths_of_a_fresh_root() -> None:
    request = JailRequest(
        argv=("true",), tmp_bytes=1, files=("a",), mounts=(("x", "/srv/x", True),)
    )
    options = base_options() + run_options(request)
    targets = [
        options[at + 2]
        for at, option in enumerate(options)
        if option in {"--bind", "--ro-bind", "--dev-bind"}
    ]
    allowed = ("/usr", "/bin", "/sbin", "/lib", "/etc/", "/dev/", "/proc/", "/mnt/")
    assert all(target.startswith(allowed) for target in targets)
    written_by_the_run = ("/job", "/tmp")
    assert not any(target.startswith(written_by_the_run) for target in targets)


@pytest.mark.threat("T-16")
def test_trap_7_doctor_warns_of_a_bubblewrap_with_the_known_hole() -> None:
    old = Bubblewrap(path="/usr/bin/bwrap", version=OLDEST, digest="", bundled=False)
    assert _bubblewrap(old).status == "warn"
    assert "CVE-2026-87766" in _bubblewrap(old).found
    sound = Bubblewrap(path="/usr/bin/bwrap", version=SOUND, digest="", bundled=False)
    assert _bubblewrap(sound).status == "ok"


async def test_a_command_that_cannot_be_found_is_no_success(runner: SandboxRunner) -> None:
    result, _ = await run(runner, shell("true", argv=("/usr/bin/no-such-program",)))
    assert (result.ending, result.exit_code) == (Ending.EXIT, 1)
    assert b"No such file" in result.stderr
