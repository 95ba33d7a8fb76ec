"""What a run is given, how it ends, and what is said of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from remit.errors import Code, RunnerFault
from remit.model import Channel, Ending, Mount
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import (
    alive,
    begin,
    contained,
    first_line,
    groups_naming,
    limited,
    new_lease,
    processes_of,
    run,
    shared_directory,
    shell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.needs("bwrap", "userns", "cgroup")]


async def test_every_probe_holds_on_this_machine(runner: SandboxRunner) -> None:
    found = runner.capabilities
    assert (found.tier.value, found.missing, found.hint) == ("sandbox", (), None)
    assert found.digest.startswith("sha256:")


@pytest.mark.threat("T-20")
async def test_the_environment_is_what_the_plan_names_and_four_more(runner: SandboxRunner) -> None:
    result = await contained(runner, shell("env", env=(("GREETING", "hello there"),)))
    assert set(result.stdout.decode().splitlines()) == {
        "GREETING=hello there",
        "PATH=/usr/bin:/bin",
        "HOME=/job",
        "LANG=C.UTF-8",
        "TMPDIR=/tmp",
        "PWD=/job",
    }


async def test_standard_input_is_whole_whatever_its_size(runner: SandboxRunner) -> None:
    data = os.urandom(3_000_000)
    result = await contained(runner, shell("wc -c", stdin=data))
    assert result.stdout.strip() == b"3000000"


async def test_exit_codes_and_signals_are_told_apart(runner: SandboxRunner) -> None:
    result = await contained(runner, shell("exit 7"))
    assert (result.ending, result.exit_code, result.signal) == (Ending.EXIT, 7, None)
    result = await contained(runner, shell("kill -SEGV $$"))
    assert (result.ending, result.signal) == (Ending.SIGNAL, 11)
    assert result.limits_hit == ()


async def test_what_a_run_used_is_measured(runner: SandboxRunner) -> None:
    loop = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    result = await contained(runner, shell(loop))
    assert result.cpu_ms is not None
    assert 10 < result.cpu_ms <= result.wall_ms * 1.5 + 50
    assert result.peak_memory_bytes is not None
    assert 100_000 < result.peak_memory_bytes < 64_000_000


async def test_output_is_streamed_while_the_command_runs(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("echo first; read -r line </dev/null; exec sleep 60"))
    assert await first_line(runner, lease) == b"first"
    assert alive(processes_of(lease.id))
    await runner.stop(lease, grace_s=0)
    assert (await runner.collect(lease)).ending is Ending.CANCELLED
    assert (await runner.destroy(lease)).complete


async def test_both_channels_are_kept_apart(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("echo out; echo err >&2"))
    frames = [frame async for frame in runner.stream(lease)]
    assert {(frame.channel, frame.data) for frame in frames} == {
        (Channel.STDOUT, b"out\n"),
        (Channel.STDERR, b"err\n"),
    }
    result = await runner.collect(lease)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    await runner.destroy(lease)


async def test_a_command_starts_with_every_signal_as_by_default(runner: SandboxRunner) -> None:
    result = await contained(runner, shell("", argv=("/bin/grep", "Sig[BI]", "/proc/self/status")))
    # Signals 32 and 33 are libc's own: no program can set them, and some hosts hand them down.
    blocked, ignored = (int(mask, 16) & ~0x1_8000_0000 for mask in result.stdout.split()[1::2])
    assert (blocked, ignored) == (0, 0)


async def test_a_signal_that_the_gateway_ignores_is_not_ignored_by_its_commands(
    tmp_path: Path,
) -> None:
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as a shell does for what runs beside
    try:
        runner = await SandboxRunner.open(SandboxSettings(state_dir=tmp_path, gateway="ignoring"))
    finally:
        signal.signal(signal.SIGQUIT, before)
    try:
        argv = ("/bin/grep", "SigIgn", "/proc/self/status")
        result = await contained(runner, shell("", argv=argv))
    finally:
        await runner.aclose()
    assert int(result.stdout.split()[1], 16) & ~0x1_8000_0000 == 0


async def test_a_stop_first_asks_the_command_to_end(runner: SandboxRunner) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
    lease = await begin(runner, shell(script))
    await first_line(runner, lease)
    await runner.stop(lease, grace_s=10)
    result = await runner.collect(lease)
    assert (result.ending, result.exit_code) == (Ending.CANCELLED, 5)
    assert result.stdout == b"ready\nbye\n"
    assert (await runner.destroy(lease)).complete


@pytest.mark.threat("T-17")
async def test_a_command_that_ignores_the_stop_is_killed_after_its_grace(
    runner: SandboxRunner,
) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
    lease = await begin(runner, shell(script))
    await first_line(runner, lease)
    pids = processes_of(lease.id)
    started = time.monotonic()
    await runner.stop(lease, grace_s=0.2)
    assert time.monotonic() - started > 0.15
    assert alive(pids) == []
    assert (await runner.collect(lease)).ending is Ending.CANCELLED
    assert (await runner.destroy(lease)).complete


@pytest.mark.threat("T-17")
async def test_a_run_ends_at_its_wall_time(runner: SandboxRunner) -> None:
    result = await contained(runner, limited(shell("sleep 60"), wall_s=1))
    assert (result.ending, result.limits_hit) == (Ending.TIMED_OUT, ("wall",))
    assert 950 <= result.wall_ms < 3000


@pytest.mark.threat("T-17")
async def test_a_run_ends_at_its_leases_deadline_if_that_comes_first(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("sleep 60"), new_lease(seconds=0.5))
    result = await runner.collect(lease)
    assert result.ending is Ending.TIMED_OUT
    assert result.wall_ms < 2000
    assert (await runner.destroy(lease)).complete


async def test_a_sandbox_that_is_never_started_ends_at_its_deadline(runner: SandboxRunner) -> None:
    lease = new_lease(seconds=0.3)
    await runner.provision(lease, shell("echo ran"))
    result = await runner.collect(lease)
    assert (result.ending, result.stdout) == (Ending.NOT_STARTED, b"")
    with pytest.raises(RunnerFault) as refused:
        await runner.start(lease)
    assert refused.value.started is False
    assert (await runner.destroy(lease)).complete


@pytest.mark.threat("T-18")
async def test_a_destroy_while_it_runs_ends_the_run(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("echo; exec sleep 60"))
    await first_line(runner, lease)
    pids = processes_of(lease.id)
    collecting = asyncio.ensure_future(runner.collect(lease))
    await asyncio.sleep(0)
    assert (await runner.destroy(lease)).complete
    assert alive(pids) == []
    assert groups_naming(lease.id) == []
    assert (await collecting).ending is Ending.CANCELLED


@pytest.mark.threat("T-14")
async def test_what_is_called_not_started_had_no_effect(
    runner: SandboxRunner, reachable: Path, seed: int
) -> None:
    """A kill anywhere between the release and the first instruction: never a wrong claim."""
    shared = shared_directory(reachable / "shared", runner)
    mount = Mount(name="shared", source=str(shared), writable=True)
    choose = random.Random(seed)
    endings = set()
    for n in range(40):
        lease = new_lease()
        await runner.provision(lease, shell(f": >/mnt/shared/{n}; sleep 60", mounts=(mount,)))
        await runner.start(lease)
        await asyncio.sleep(choose.random() * 0.008)
        await runner.stop(lease, grace_s=0)
        ending = (await runner.collect(lease)).ending
        endings.add(ending)
        if ending is Ending.NOT_STARTED:
            assert not (shared / str(n)).exists()
        assert (await runner.destroy(lease)).complete
    assert endings <= {Ending.NOT_STARTED, Ending.CANCELLED}


async def test_a_cancelled_provision_leaves_nothing(runner: SandboxRunner) -> None:
    lease = new_lease()
    provisioning = asyncio.ensure_future(runner.provision(lease, shell("echo")))
    await asyncio.sleep(0)
    provisioning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await provisioning
    assert groups_naming(lease.id) == []
    assert (await runner.destroy(lease)).complete


async def test_waiting_for_an_end_can_be_given_up_without_harm(runner: SandboxRunner) -> None:
    lease = await begin(runner, shell("echo ready; read -r x; echo done"))
    waiting = [asyncio.ensure_future(runner.collect(lease)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    results = await asyncio.gather(*waiting[1:])
    assert [result.stdout for result in results] == [b"ready\ndone\n"] * 2
    await runner.destroy(lease)


async def test_a_run_sees_a_mount_as_its_own(runner: SandboxRunner, reachable: Path) -> None:
    source = shared_directory(reachable / "desired", runner)
    source.joinpath("state").write_text("blue")
    source.joinpath("state").chmod(0o666)
    mount = Mount(name="desired", source=str(source), writable=True)
    script = "cat /mnt/desired/state; echo green >/mnt/desired/state; echo new >/mnt/desired/new"
    result = await contained(runner, shell(script, mounts=(mount,)))
    assert (result.stdout, result.stderr) == (b"blue", b"")
    assert source.joinpath("state").read_text() == "green\n"
    read_only = Mount(name="desired", source=str(source))
    result = await contained(runner, shell(script, mounts=(read_only,)))
    assert b"Read-only file system" in result.stderr
    assert source.joinpath("new").read_text() == "new\n"


@pytest.mark.threat("T-16")
@pytest.mark.parametrize("source", ["/", "/proc", "/sys/kernel", "/dev", "/run", "/etc/ssl"])
async def test_parts_of_the_host_are_never_mounted(runner: SandboxRunner, source: str) -> None:
    with pytest.raises(RunnerFault, match="never shown") as refused:
        await run(runner, shell("true", mounts=(Mount(name="x", source=source),)))
    assert refused.value.code is Code.RUNNER_UNAVAILABLE


@pytest.mark.threat("T-16")
async def test_a_mount_that_is_a_link_or_leads_out_is_refused(
    runner: SandboxRunner, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("/usr")
    for source in (str(link), f"{tmp_path}/../{tmp_path.name}", "relative", f"{tmp_path}/none"):
        with pytest.raises(RunnerFault):
            await run(runner, shell("true", mounts=(Mount(name="x", source=source),)))
    through = tmp_path / "etc"
    through.symlink_to("/etc")
    with pytest.raises(RunnerFault, match="leads through"):
        mount = Mount(name="x", source=f"{through}/ssl")
        await run(runner, shell("true", mounts=(mount,)))


async def test_a_mount_that_runs_cannot_reach_is_refused_with_the_reason(
    runner: SandboxRunner, reachable: Path
) -> None:
    if runner.mount_uid is None:
        pytest.skip("runs are this user here; to run it: be root")
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    (closed / "inside").mkdir()
    for source in (closed, closed / "inside"):
        with pytest.raises(RunnerFault, match=f"cannot be reached by user {runner.mount_uid}"):
            await run(runner, shell("true", mounts=(Mount(name="x", source=str(source)),)))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "", "a\0b"])
async def test_a_working_file_outside_the_job_directory_is_refused(
    runner: SandboxRunner, name: str
) -> None:
    with pytest.raises(RunnerFault):
        await run(runner, shell("true", files=((name, b""),)))


async def test_a_refused_provision_takes_no_place(tmp_path: Path) -> None:
    settings = SandboxSettings(state_dir=tmp_path, gateway="one-place", max_runs=3)
    runner = await SandboxRunner.open(settings)
    for _ in range(4):
        with pytest.raises(RunnerFault):
            await run(runner, shell("true", mounts=(Mount(name="x", source="/"),)))
    result, evidence = await run(runner, shell("echo fine"))
    assert (result.stdout, evidence.complete) == (b"fine\n", True)
    assert list((tmp_path / "leases").iterdir()) == []
    await runner.aclose()


async def test_more_runs_than_places_wait_and_all_end(tmp_path: Path) -> None:
    settings = SandboxSettings(state_dir=tmp_path, gateway="few-places", max_runs=3)
    runner = await SandboxRunner.open(settings)
    results = await asyncio.gather(*(run(runner, shell(f"echo {n}")) for n in range(10)))
    assert [result.stdout for result, _ in results] == [f"{n}\n".encode() for n in range(10)]
    held = [await begin(runner, shell("exec sleep 60")) for _ in range(3)]
    with pytest.raises(RunnerFault, match="in time"):
        await runner.provision(new_lease(seconds=0.2), shell("true"))
    for lease in held:
        assert (await runner.destroy(lease)).complete
    await runner.aclose()


async def test_a_large_request_travels_whole(runner: SandboxRunner) -> None:
    arguments = tuple("x" * 1000 for _ in range(80))
    spec = shell("true", argv=("/bin/sh", "-c", 'echo $#; echo "${#80}"', "sh", *arguments))
    assert (await contained(runner, spec)).stdout == b"80\n1000\n"
