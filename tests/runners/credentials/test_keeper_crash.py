"""Whatever is killed, and when: nothing that was lent outlives its run.

The lending system counts what is alive. It is a real server; the keeper, the ledger and what is
killed are real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from remit.errors import RunnerFault
from remit.model import Lease, Loan
from remit.runners.credentials.client import KeeperClient
from remit.testing import ledger_samples as sample
from tests.runners.credentials.fakes import FakeGithub, Reply, serving
from tests.runners.credentials.keeping import (
    APP_KEY,
    World,
    app_key,
    clock,
    github,
    keeping,
    kill,
    lease,
    settings,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lender() -> FakeGithub:
    return FakeGithub(APP_KEY.public_key())


@pytest.fixture
def api(lender: FakeGithub) -> Iterator[str]:
    with serving(lender) as url:
        yield url


@pytest.fixture
async def world(tmp_path: Path, api: str) -> AsyncIterator[World]:
    async with keeping(tmp_path, {"code": github(api, app_key(tmp_path))}) as made:
        yield made


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def journal(directory: Path) -> list[str]:
    return os.listdir(directory / "keeper/loans")


async def lend(world: World, wanted: Lease) -> None:
    for each in (await world.keeper.lend(wanted)).files:
        os.close(each.fd)


@pytest.mark.threat("T-34")
async def test_a_killed_keeper_is_replaced_and_the_next_one_ends_what_it_lent(
    world: World, lender: FakeGithub
) -> None:
    grant = await world.granted("code")
    await lend(world, lease(grant))
    assert len(lender.live) == 1
    first = world.keeper.pid
    kill(first)
    [loan] = await taken_back(world, lease(grant))
    assert world.keeper.pid != first
    assert loan.revoked
    assert lender.live == {}
    assert journal(world.directory) == []


async def test_a_question_between_the_start_of_the_next_keeper_and_its_news_keeps_that_one(
    world: World,
) -> None:
    keeper = world.keeper
    first = keeper._keeper
    kill(first.pid)
    keeper._lose(first)  # as when its socket ends
    keeper._revive(first)  # as a thread does, whose news the loop has not heard yet
    second = keeper.pid
    assert await keeper.keys() == {"keys": []}
    assert keeper.pid == second != first.pid


async def taken_back(world: World, wanted: Lease) -> tuple[Loan, ...]:
    """What a return gives once there is a keeper again."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(RunnerFault):
                return tuple(await world.keeper.take_back(wanted))
            await asyncio.sleep(0.01)


@pytest.mark.threat("T-34")
async def test_a_keeper_killed_while_it_asks_leaves_an_intent_that_the_next_one_reads(
    world: World, lender: FakeGithub
) -> None:
    held = threading.Event()
    lender.first = [Reply(500, held=held)]
    grant = await world.granted("code")
    lending = asyncio.ensure_future(world.keeper.lend(lease(grant)))
    await until(lambda: bool(lender.seen))
    assert journal(world.directory) == [grant.run_id]
    kill(world.keeper.pid)
    with pytest.raises(RunnerFault):
        await lending
    held.set()
    [loan] = await taken_back(world, lease(grant))
    assert not loan.revoked
    assert "while it asked" in (loan.note or "")
    assert journal(world.directory) == []
    assert lender.live == {}


@pytest.mark.threat("T-34")
async def test_output_of_a_run_whose_keeper_died_is_not_let_through(world: World) -> None:
    grant = await world.granted("code")
    await lend(world, lease(grant))
    kill(world.keeper.pid)
    for _ in range(2):
        with pytest.raises(RunnerFault):
            await world.keeper.scrub(lease(grant), b"anything")


@pytest.mark.threat("T-34")
async def test_the_log_goes_on_being_signed_over_a_killed_keeper(world: World) -> None:
    for _ in range(3):
        await world.store.freeze(True, operator="olga", reason="drill", now_ms=1)
        before = await world.store.checkpoint()
        kill(world.keeper.pid)
        await world.store.freeze(False, operator="olga", reason="over", now_ms=2)
        after = await world.store.checkpoint()
        assert after.size > before.size


async def test_without_a_keeper_that_can_start_nothing_is_lent_and_it_is_said(
    world: World, tmp_path: Path
) -> None:
    grant = await world.granted("code")
    (tmp_path / "app.pem").rename(tmp_path / "elsewhere")
    kill(world.keeper.pid)
    with pytest.raises(RunnerFault):
        await world.keeper.lend(lease(grant))
    (tmp_path / "elsewhere").rename(tmp_path / "app.pem")
    await lend(world, lease(grant))
    await world.keeper.take_back(lease(grant))


@pytest.mark.threat("T-34")
async def test_closing_ends_everything_that_lives(
    tmp_path: Path, api: str, lender: FakeGithub
) -> None:
    async with keeping(tmp_path, {"code": github(api, app_key(tmp_path))}) as world:
        for name in ("web", "db", "mail"):
            await lend(world, lease(await world.granted("code", service=name)))
        assert len(lender.live) == 3
    assert lender.live == {}
    assert journal(tmp_path) == []


@pytest.mark.threat("T-34")
async def test_what_was_lent_and_could_not_be_delivered_is_revoked_before_the_refusal(
    tmp_path: Path, api: str, lender: FakeGithub
) -> None:
    inject = [{"host": "127.0.0.1", "port": 8443, "value": "Bearer {token}"}]
    chosen = {"code": github(api, app_key(tmp_path), file=None, inject=inject)}
    async with keeping(tmp_path, chosen) as world:
        with pytest.raises(RunnerFault, match="the egress proxy does not inject"):
            await world.keeper.lend(lease(await world.granted("code")))
        assert [each.method for each in lender.seen] == ["POST", "DELETE"]
        assert lender.live == {}
        assert journal(tmp_path) == []


@pytest.mark.threat("T-34")
async def test_a_revocation_that_fails_is_tried_again_until_it_is_confirmed(
    world: World, lender: FakeGithub
) -> None:
    grant = await world.granted("code")
    await lend(world, lease(grant))
    lender.first = [Reply(500) for _ in range(4)]
    [loan] = await world.keeper.take_back(lease(grant))
    assert loan.returned_ms is None
    assert not loan.revoked
    assert journal(world.directory) == [grant.run_id]
    await until(lambda: not lender.live)
    swept: tuple[Loan, ...] = ()
    async with asyncio.timeout(20):
        while not swept or swept[0].returned_ms is None:
            swept = tuple(await world.keeper.sweep(frozenset()))
            await asyncio.sleep(0.05)
    assert swept[0].revoked
    assert journal(world.directory) == []


@pytest.mark.threat("T-34")
async def test_a_cancelled_loan_ends_though_the_lending_system_is_slow(
    world: World, lender: FakeGithub
) -> None:
    held = threading.Event()
    lender.first = [Reply(500, held=held)]
    grant = await world.granted("code")
    lending = asyncio.ensure_future(world.keeper.lend(lease(grant)))
    await until(lambda: bool(lender.seen))
    lending.cancel()
    [loan] = await world.keeper.take_back(lease(grant))
    held.set()
    assert loan.returned_ms is not None
    assert journal(world.directory) == []


@pytest.mark.threat("T-34")
@pytest.mark.parametrize("end", ["a sweep", "a newer run"])
async def test_what_is_given_after_its_run_was_ended_is_revoked_and_not_handed_on(
    world: World, lender: FakeGithub, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    go, give = threading.Event(), lender._token
    monkeypatch.setattr(lender, "_token", lambda asked: go.wait(10) and give(asked))
    grant = await world.granted("code")
    lending = asyncio.ensure_future(world.keeper.lend(lease(grant)))
    await until(lambda: bool(lender.seen))
    newer = None
    if end == "a sweep":
        await world.keeper.sweep(frozenset())
    else:
        await world.store.settle(
            sample.outcome(sample.SetClock(clock.now_ms()), grant), sample.outcome_entry()
        )
        newer = asyncio.ensure_future(lend(world, lease(await world.granted("code"))))
        await until(lambda: len(lender.seen) == 2)
    go.set()
    with pytest.raises(RunnerFault):
        await lending
    if newer is not None:
        await newer
    assert len(lender.live) == (1 if newer else 0)
    assert grant.run_id not in journal(world.directory)


@pytest.mark.threat("T-34")
@pytest.mark.parametrize("step", ["lending", "lent", "returned"])
@pytest.mark.parametrize("victims", ["gateway", "keeper first", "keeper last"])
async def test_after_a_kill_at_any_step_nothing_is_alive_once_a_gateway_is_back(
    tmp_path: Path, lender: FakeGithub, api: str, step: str, victims: str
) -> None:
    app_key(tmp_path)
    keeper_pid = await asyncio.to_thread(killed_at, tmp_path, api, step, victims)
    if victims == "gateway":
        await until(lambda: gone(keeper_pid))
        assert lender.live == {}, "its keeper outlives it just long enough"
    async with keeping(tmp_path, {"code": github(api, tmp_path / "app.pem")}):
        await until(lambda: not lender.live and not journal(tmp_path))


@pytest.mark.threat("T-34")
async def test_what_is_on_its_way_when_the_gateway_dies_is_revoked_when_it_comes(
    tmp_path: Path, lender: FakeGithub, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, give = threading.Event(), lender._token
    monkeypatch.setattr(lender, "_token", lambda asked: go.wait(10) and give(asked))
    app_key(tmp_path)
    keeper_pid = await asyncio.to_thread(
        killed_at, tmp_path, api, "lending", "gateway", lambda: bool(lender.seen)
    )
    go.set()
    await until(lambda: gone(keeper_pid))
    assert [each.method for each in lender.seen] == ["POST", "DELETE"]
    assert lender.live == {}
    assert journal(tmp_path) == []


def killed_at(
    directory: Path,
    api: str,
    step: str,
    victims: str,
    ready: Callable[[], bool] = lambda: True,
) -> int:
    """Run the gateway's half up to this step, kill when ready, and give the keeper's process."""
    gateway = subprocess.Popen(
        [sys.executable, "-m", "tests.runners.credentials.gateway_script", str(directory), api],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert gateway.stdout is not None
    assert gateway.stdin is not None
    keeper_pid = 0
    for line in gateway.stdout:
        what, _, value = line.strip().partition(" ")
        if what == "pid":
            keeper_pid = int(value)
        if what == step:
            break
        if what == "lent":
            gateway.stdin.write("go on\n")
            gateway.stdin.flush()
    while not ready():
        time.sleep(0.01)
    pids = {"gateway": [gateway.pid], "keeper first": [keeper_pid, gateway.pid]}
    for pid in pids.get(victims, [gateway.pid, keeper_pid]):
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
    gateway.wait()
    gateway.stdin.close()
    gateway.stdout.close()
    return keeper_pid


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except FileNotFoundError:
        return True


async def test_what_is_left_of_a_handle_that_is_no_more_configured_is_said(
    tmp_path: Path, lender: FakeGithub, api: str
) -> None:
    app_key(tmp_path)
    await asyncio.to_thread(killed_at, tmp_path, api, "lent", "keeper first")
    async with keeping(tmp_path) as world:
        swept: tuple[Loan, ...] = ()
        async with asyncio.timeout(20):
            while len(swept) < 2:
                swept += tuple(await world.keeper.sweep(frozenset()))
                await asyncio.sleep(0.02)
    [code] = [loan for loan in swept if loan.ref == "code"]
    assert "not configured any more" in (code.note or "")
    assert len(lender.live) == 1


async def test_what_revokes_a_loan_is_on_disk_only_sealed(world: World, lender: FakeGithub) -> None:
    grant = await world.granted("code")
    await lend(world, lease(grant))
    [token] = lender.live
    path = world.directory / "keeper/loans" / grant.run_id
    assert token.encode() not in path.read_bytes()
    assert b'"key"' in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (world.directory / "keeper").stat().st_mode & 0o777 == 0o700


def test_a_start_that_fails_leaves_no_process(tmp_path: Path) -> None:
    async def start() -> None:
        await KeeperClient.open(settings(tmp_path, {"x": {"broker": "none"}}))

    with pytest.raises(Exception, match="of no broker"):
        asyncio.run(start())
