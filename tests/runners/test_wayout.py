"""Runs that are let out, in profiles, with files handed to them: through the runner, for real."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from remit.errors import Code, RunnerFault
from remit.model import CredentialRule, EgressRule, HandedFile, Mount, Tier
from remit.profile import Profile
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import GATEWAY, contained, new_lease, python, run, shell

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("userns"),
    pytest.mark.needs("cgroup"),
]

FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
except Exception as fault:
    print(type(fault).__name__, getattr(fault, "code", ""))
"""


@dataclass(slots=True)
class Out:
    runner: SandboxRunner
    proxy: EgressProxy
    port: int
    seen: list[str]

    def rule(self, **more) -> EgressRule:
        return EgressRule(host="127.0.0.1", port=self.port, **more)

    def fetch(self, path: str = "/", *, port: int | None = None, **more):
        url = f"http://127.0.0.1:{port or self.port}{path}"
        spec = python(FETCH, **{"egress": (self.rule(),), **more})
        return replace(spec, argv=(*spec.argv, url))


@pytest.fixture
async def out(tmp_path: Path) -> AsyncIterator[Out]:
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = await EgressProxy.open(EgressSettings(internal=(f"127.0.0.1:{port}",)))
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "word").write_text("seen\n")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    profiles = {
        "sandbox": Profile(),
        "shows": Profile(
            name="shows", mounts=(Mount(name="given", source=str(tmp_path / "shown")),)
        ),
        "near": Profile(
            name="near", egress=(EgressRule(host="127.0.0.1", port=port, path_prefix="/a"),)
        ),
    }
    settings = SandboxSettings(state_dir=tmp_path / "own", gateway=GATEWAY, profiles=profiles)
    runner = await SandboxRunner.open(settings, proxy)
    yield Out(runner, proxy, port, seen)
    await runner.aclose()
    await proxy.aclose()
    server.close()


@pytest.mark.threat("T-32")
async def test_a_run_reaches_what_its_plan_names_and_its_record_says_so(out: Out) -> None:
    result, evidence = await run(out.runner, out.fetch("/a"))
    assert result.stdout == b"hello\n"
    assert out.seen == ["GET /a HTTP/1.1"]
    assert result.traffic is not None
    (connection,) = result.traffic.connections
    assert (connection.host, connection.port, connection.refused) == ("127.0.0.1", out.port, None)
    assert connection.received > 0
    assert evidence.complete
    assert {"processes", "cgroup", "mounts", "proxy"} <= set(evidence.seen_ms)
    assert {
        name: at for name, at in evidence.seen_ms.items() if abs(at - evidence.destroyed_ms) > 5_000
    } == {}


@pytest.mark.threat("T-32")
async def test_what_the_plan_does_not_name_is_refused_and_recorded(out: Out) -> None:
    rule = EgressRule(host="127.0.0.1", port=out.port, path_prefix="/only")
    result, _ = await run(out.runner, out.fetch("/other", egress=(rule,)))
    assert b"HTTPError 403" in result.stdout
    result, _ = await run(out.runner, out.fetch("/", port=out.port + 1 if out.port < 65535 else 1))
    assert b"HTTPError 403" in result.stdout
    assert result.traffic is not None
    assert result.traffic.refused == 1
    assert out.seen == []


@pytest.mark.threat("T-32")
async def test_a_plan_that_reaches_further_than_its_profile_is_not_made(out: Out) -> None:
    within = out.rule(path_prefix="/a/b")
    result, _ = await run(out.runner, out.fetch("/a/b", egress=(within,), profile="near"))
    assert result.stdout == b"hello\n"
    for beyond in (out.rule(), out.rule(path_prefix="/b"), replace(within, port=1)):
        with pytest.raises(RunnerFault):
            await out.runner.provision(new_lease(), out.fetch(egress=(beyond,), profile="near"))


async def test_a_run_without_a_way_out_has_neither_proxy_nor_its_variables(out: Out) -> None:
    script = "env; (: </dev/tcp/127.0.0.1/3128) 2>/dev/null && echo open; ls /run/remit 2>&1"
    result = await contained(out.runner, replace(shell(script), argv=("bash", "-c", script)))
    assert b"PROXY" not in result.stdout
    assert b"open" not in result.stdout
    assert result.traffic is None


async def test_made_twice_a_run_is_let_out_once(out: Out) -> None:
    lease, spec = new_lease(), out.fetch()
    await asyncio.gather(*(out.runner.provision(lease, spec) for _ in range(3)))
    await out.runner.start(lease)
    assert (await out.runner.collect(lease)).stdout == b"hello\n"
    assert (await out.runner.destroy(lease)).complete


@pytest.mark.threat("T-35")
async def test_an_older_fence_of_the_same_call_is_not_let_out_again(out: Out) -> None:
    newer = replace(new_lease(), fence=7)
    await out.runner.provision(newer, out.fetch(fence_key="sha256:one"))
    older = replace(new_lease(), fence=6)
    with pytest.raises(RunnerFault) as refused:
        await out.runner.provision(older, out.fetch(fence_key="sha256:one"))
    assert refused.value.code is Code.RUNNER_UNAVAILABLE
    assert not refused.value.started
    for lease in (newer, older):
        assert (await out.runner.destroy(lease)).complete


@pytest.mark.threat("T-32")
async def test_a_proxy_that_dies_takes_the_way_out_along_and_the_next_run_has_another(
    out: Out,
) -> None:
    lease = new_lease()
    await out.runner.provision(lease, out.fetch())
    assert out.proxy.pid is not None
    killed = os.pidfd_open(out.proxy.pid)
    os.kill(out.proxy.pid, signal.SIGKILL)
    await asyncio.to_thread(select.select, [killed], [], [])
    os.close(killed)
    await out.runner.start(lease)
    result = await out.runner.collect(lease)
    assert b"hello" not in result.stdout
    assert result.traffic is not None
    assert [each.kind for each in result.traffic.connections] == ["lost"]
    assert (await out.runner.destroy(lease)).complete
    again, _ = await run(out.runner, out.fetch())
    assert again.stdout == b"hello\n"


async def test_without_a_proxy_a_run_that_is_to_be_let_out_is_not_made(tmp_path: Path) -> None:
    runner = await SandboxRunner.open(SandboxSettings(state_dir=tmp_path, gateway=GATEWAY))
    try:
        assert runner.capabilities.holds["egress"] is False
        rule = EgressRule(host="a.example", port=443)
        with pytest.raises(RunnerFault):
            await runner.provision(new_lease(), shell("true", egress=(rule,)))
    finally:
        await runner.aclose()


async def test_each_profile_is_probed_and_gives_what_it_says(out: Out) -> None:
    plain, shows = out.runner.profile("sandbox"), out.runner.profile("shows")
    assert plain is not None
    assert shows is not None
    assert (plain.tier, shows.tier) == (Tier.SANDBOX, Tier.SANDBOX)
    assert plain.digest != shows.digest
    assert plain.holds["egress"] is shows.holds["egress"] is True
    seen, _ = await run(out.runner, shell("cat /mnt/given/word", profile="shows"))
    assert seen.stdout == b"seen\n"
    unseen, _ = await run(out.runner, shell("cat /mnt/given/word"))
    assert unseen.exit_code != 0
    assert out.runner.profile("other") is None
    with pytest.raises(RunnerFault):
        await out.runner.provision(new_lease(), shell("true", profile="other"))


@pytest.mark.threat("T-33")
async def test_a_handed_file_is_the_runs_alone_and_gone_with_it(out: Out) -> None:
    fd = os.memfd_create("secret")
    os.write(fd, b"planted-secret")
    lease = new_lease()
    spec = shell(
        "cat /run/remit/credentials/token; stat -c ' %a %u' /run/remit/credentials/token; "
        "env; tr '\\0' ' ' </proc/self/cmdline",
        credentials=(CredentialRule(ref="x"),),
    )
    await out.runner.provision(lease, spec)
    await out.runner.start(lease, (HandedFile(name="token", fd=fd),))
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    result = await out.runner.collect(lease)
    assert result.stdout.startswith(b"planted-secret 400 1000")
    assert result.stdout.count(b"planted-secret") == 1
    assert (await out.runner.destroy(lease)).complete


async def test_files_handed_to_a_run_that_cannot_start_are_closed(out: Out) -> None:
    fd = os.memfd_create("secret")
    with pytest.raises(RunnerFault):
        await out.runner.start(new_lease(), (HandedFile(name="token", fd=fd),))
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


async def test_equal_reads_go_out_side_by_side(out: Out) -> None:
    results = await asyncio.gather(*(run(out.runner, out.fetch(f"/{n}")) for n in range(3)))
    assert [result.stdout for result, _ in results] == [b"hello\n"] * 3
