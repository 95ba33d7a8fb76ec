"""The keeper as a process: who it is, who can look into it, what it has, how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remit.errors import ConfigError
from remit.keeper import confine
from remit.ledger.sqlite import SqliteLedger
from remit.runners.credentials.process import KeeperProcess
from tests.runners.credentials.fakes import FakeGithub, serving
from tests.runners.credentials.keeping import (
    APP_KEY,
    ISSUER,
    SECRET,
    app_key,
    github,
    keeping,
    lease,
    oidc,
    settings,
    static,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

UID = 299_999
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give it a user; to run it: sudo")


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[KeeperProcess]:
    made, _ = KeeperProcess.start(settings(tmp_path, {"static": static()}))
    yield made
    made.leave()
    made.wait()


LOOK = """
import ctypes, os, sys
at = f'/proc/{sys.argv[1]}/'
for name in ('environ', 'mem', 'maps', 'auxv'):
    try: open(at + name, 'rb').read(1); print('read', name)
    except PermissionError: pass
    except OSError: print('opened', name)
try: os.listdir(at + 'fd'); print('fd')
except PermissionError: pass
if ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) == 0: print('traced')
print('looked', os.getuid())
"""


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def ends(keeper: KeeperProcess) -> None:
    keeper.leave()
    keeper.wait()


@ROOT
@pytest.mark.threat("T-38")
async def test_root_gives_it_a_user_of_its_own_that_reads_the_ledger_as_it_grows(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    groups = os.getgroups()
    os.setgroups([4, 20])
    try:
        starting = keeping(home, uid=UID)
        world = await starting.__aenter__()
    finally:
        os.setgroups(groups)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(starting.__aexit__)
        assert set(status(world.keeper.pid)["Uid"].split()) == {str(UID)}
        assert set(status(world.keeper.pid)["Gid"].split()) == {str(UID)}
        assert status(world.keeper.pid)["Groups"] == ""
        assert status(world.keeper.pid)["CapEff"] == "0" * 16
        assert (home / "keeper/loans").stat().st_uid == UID
        assert home.stat().st_mode & 0o077 == 0
        for turn in range(3):
            grant = await world.granted("static", service=f"web-{turn}")
            lent = await world.keeper.lend(lease(grant))
            os.close(lent.files[0].fd)
            await world.keeper.take_back(lease(grant))
            # The log's write-ahead file is copied back, emptied and begun anew.
            await emptied(world.store)
            assert (home / "ledger.db-wal").stat().st_size == 0
        for number in range(300):
            await world.store.freeze(number % 2 == 0, operator="o", reason="r", now_ms=number)
        last = await world.granted("static", service="last")
        os.close((await world.keeper.lend(lease(last))).files[0].fd)
    again = home / "keeper"
    async with keeping(home, uid=UID) as world:
        assert again.stat().st_uid == UID
        grant = await world.granted("static", service="next life")
        os.close((await world.keeper.lend(lease(grant))).files[0].fd)


async def emptied(store: SqliteLedger) -> None:
    """Empty the write-ahead log, as the writer does when nobody reads."""
    async with asyncio.timeout(10):
        while store._writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]:
            await asyncio.sleep(0.01)


@ROOT
async def test_a_broker_reaches_its_server_as_a_user_that_can_read_nothing(tmp_path: Path) -> None:
    lender = FakeGithub(APP_KEY.public_key())
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with serving(lender) as api:
        chosen = {"code": github(api, app_key(home)), "there": oidc()}
        async with keeping(home, chosen, issuer=ISSUER, uid=UID) as world:
            for ref in ("code", "there"):
                grant = await world.granted(ref, service=ref)
                os.close((await world.keeper.lend(lease(grant))).files[0].fd)
                await world.keeper.take_back(lease(grant))
            assert lender.live == {}


@ROOT
@pytest.mark.threat("T-33")
async def test_its_own_user_cannot_look_into_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    async with keeping(home, uid=UID) as world:
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-S", "-c", LOOK, str(world.keeper.pid)],
            capture_output=True, text=True, check=True, env={}, cwd="/", user=UID, group=UID,
            extra_groups=[],
        )  # fmt: skip
    assert done.stdout == f"looked {UID}\n"


@ROOT
@pytest.mark.threat("T-33")
@pytest.mark.parametrize("hardened", [True, False])
def test_nor_can_its_gateways_user_where_they_are_the_same(hardened: bool) -> None:
    waits = "import sys\nprint('there', flush=True)\nsys.stdin.readline()\n"
    code = Path(confine.__file__).read_text() + ("harden()\n" if hardened else "") + waits
    how: dict[str, Any] = {"env": {}, "cwd": "/", "user": UID, "group": UID, "extra_groups": []}
    python = ["/usr/bin/python3", "-I", "-S", "-c"]
    with subprocess.Popen(
        [*python, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **how
    ) as kept:
        assert kept.stdout is not None
        assert kept.stdout.readline() == "there\n"
        done = subprocess.run(
            [*python, LOOK, str(kept.pid)], capture_output=True, text=True, check=True, **how
        )
        kept.kill()
    assert (done.stdout == f"looked {UID}\n") == hardened


@pytest.mark.threat("T-33")
def test_it_has_the_variables_that_are_named_and_no_other(keeper: KeeperProcess) -> None:
    if os.geteuid() == 0:
        environ = Path(f"/proc/{keeper.pid}/environ").read_bytes()
        assert environ == f"STATIC_SECRET={SECRET}\0".encode()
    cmdline = Path(f"/proc/{keeper.pid}/cmdline").read_bytes()
    assert SECRET.encode() not in cmdline


@pytest.mark.threat("T-33")
def test_it_leaves_no_core_and_gains_no_rights(keeper: KeeperProcess) -> None:
    limits = Path(f"/proc/{keeper.pid}/limits")
    if os.geteuid() == 0:
        [core] = [line for line in limits.read_text().splitlines() if "core file" in line]
        assert core.split()[4:6] == ["0", "0"]
    assert status(keeper.pid)["NoNewPrivs"] == "1"


def test_a_signal_to_its_group_does_not_end_it_before_its_gateway(keeper: KeeperProcess) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(keeper.pid, number)
    answer = keeper.ask({"op": "keys"})
    assert answer["jwks"] == {"keys": []}


def test_a_message_that_is_none_is_refused_and_the_next_is_served(keeper: KeeperProcess) -> None:
    for message in (
        {"op": "nothing"},
        {"op": "lend"},
        {"op": "proxy"},
        {"op": "scrub", "run": "x"},
    ):
        with pytest.raises(ConfigError):
            keeper.ask(message)
    assert keeper.ask({"op": "keys"})["ev"] == "keys"


def test_it_is_there_within_a_moment(tmp_path: Path) -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        made, _ready = KeeperProcess.start(settings(tmp_path, {"static": static()}))
        took.append(time.monotonic() - began)
        ends(made)
    assert min(took) < 0.6, took


async def test_signing_through_it_costs_a_fraction_of_a_millisecond(tmp_path: Path) -> None:
    async with keeping(tmp_path) as world:
        took = []
        for number in range(200):
            await world.store.freeze(number % 2 == 0, operator="o", reason="r", now_ms=number)
            began = time.perf_counter()
            await world.store.checkpoint()
            took.append(time.perf_counter() - began)
    assert sorted(took)[100] < 0.005, sorted(took)[100]
