"""The proxy as a process of its own: how it is asked, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from remit.errors import RunnerFault
from remit.model import EgressRule
from remit.runners.egress.settings import EgressSettings
from remit.runners.wire import receive, send
from tests.runners.egress.world import (
    SECRET,
    credential,
    now_ms,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-32")]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.threat("T-33")
async def test_a_run_goes_out_with_what_the_keeper_lends_and_never_sees_it(place):
    await place.open()
    assert await place.keeper.lend(place.there) == {"ev": "injecting", "run": "r"}
    client = await place.tunnel()
    assert await place.ask(client) == b"Bearer " + b"*" * len(SECRET)
    assert place.there.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert await place.keeper.say({"op": "forget", "run": "r"}) == {"ev": "forgotten", "run": "r"}
    assert await place.ask(client) == b"none"
    await client.close()
    traffic = await place.proxy.close_run("r")
    (seen,) = traffic.connections
    assert (seen.host, seen.kind, seen.address, seen.requests) == (
        "localhost",
        "https",
        "127.0.0.1",
        2,
    )
    assert (seen.injected, seen.echoed, traffic.echoed) == (("ci",), True, True)
    assert SECRET not in repr(traffic)
    assert (await place.proxy.close_run("r")).connections == ()


@pytest.mark.threat("T-35")
async def test_the_keeper_is_told_no_without_a_word_of_the_secret(place):
    await place.open()
    for facts in (
        {"fence": 2},
        {"run": "other"},
        {"credentials": [credential("evil.test", 443)]},
        {"credentials": [credential("localhost", place.there.port, value=SECRET + "\n")]},
        {"credentials": [{"value": SECRET}]},
        {"credentials": [{**credential("localhost", 1), "port": SECRET}]},
        {"credentials": SECRET},
        {"op": SECRET},
    ):
        answer = await place.keeper.lend(place.there, **facts)
        assert answer["ev"] == "refused"
        assert SECRET not in answer["fault"]
    client = await place.tunnel()
    assert await place.ask(client) == b"none"
    await client.close()


@pytest.mark.threat("T-35")
async def test_a_stale_fence_and_a_listener_that_is_none_open_nothing(place):
    await place.open(fence=5)
    with pytest.raises(RunnerFault, match="later fence"):
        await place.open(run="older", fence=5)
    facts = {"prepared": "x", "fence": 9, "key": "k", "rules": (), "ends_ms": now_ms() + 9_000}
    await place.proxy.prepare("x")
    with socket.socket() as unbound, pytest.raises(RunnerFault, match="listens"):
        await place.proxy.open_run("y", listener_fd=unbound.fileno(), **facts)
    with open("/dev/null") as no_socket, pytest.raises(RunnerFault):
        await place.proxy.open_run("y", listener_fd=no_socket.fileno(), **facts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(RunnerFault, match="no authority"):
            await place.proxy.open_run(
                "y", listener_fd=listener.fileno(), **{**facts, "prepared": "never"}
            )
        odd = EgressRule(host="*.test", port=1)
        with pytest.raises(RunnerFault, match="plain"):
            await place.proxy.open_run(
                "y", listener_fd=listener.fileno(), **{**facts, "rules": (odd,)}
            )
    await place.open(run="newer", fence=6)


async def test_what_is_not_live_is_swept_and_told(place):
    await place.open()
    await place.open(run="s", fence=2)
    found = await place.proxy.sweep(["s"])
    assert [run for run, _ in found] == ["r"]
    assert await place.proxy.sweep(["s"]) == []


async def test_when_it_dies_every_connection_ends_and_the_next_need_starts_another(place):
    await place.open()
    client = await place.tunnel()
    assert await place.ask(client) == b"none"
    first = place.proxy.pid
    os.kill(first, signal.SIGKILL)
    assert await client.ended() == b""
    await client.close()
    await until(lambda: place.proxy.pid is None)
    traffic = await place.proxy.close_run("r")
    assert traffic.connections[0].kind == "lost"
    assert traffic.connections[0].refused == "lost"
    with pytest.raises(ConnectionError):
        await place.tunnel()
    await place.open()
    assert place.proxy.pid not in (None, first)
    assert place.keeper.given == 2
    assert (await place.keeper.lend(place.there))["ev"] == "injecting"
    client = await place.tunnel()
    assert await place.ask(client) == b"Bearer " + b"*" * len(SECRET)
    await client.close()


@pytest.mark.threat("T-35")
async def test_without_its_keeper_it_forgets_what_was_lent(place):
    await place.open()
    await place.keeper.lend(place.there)
    client = await place.tunnel()
    assert await place.ask(client) != b"none"
    place.keeper.close()
    async with asyncio.timeout(5):
        while await place.ask(client) != b"none":
            await asyncio.sleep(0.01)
    await place.proxy.connect_keeper()
    assert (await place.keeper.lend(place.there))["ev"] == "injecting"
    assert await place.ask(client) != b"none"
    await client.close()


async def test_it_is_joined_again_to_a_keeper_that_only_cut_its_line(place):
    await place.open()
    place.keeper.close()
    await until(lambda: place.keeper.given == 2)
    await until(place.proxy._rejoining.done)
    assert (await place.keeper.lend(place.there))["ev"] == "injecting"
    client = await place.tunnel()
    assert await place.ask(client) != b"none"
    await client.close()


async def test_when_it_hangs_it_is_ended(place, monkeypatch):
    monkeypatch.setattr("remit.runners.egress.client._ANSWER_S", 0.2)
    await place.open()
    os.kill(place.proxy.pid, signal.SIGSTOP)
    with pytest.raises(RunnerFault, match="in time"):
        await place.proxy.prepare("x")
    assert place.proxy.pid is None
    assert (await place.proxy.close_run("r")).connections[0].kind == "lost"


async def test_it_ends_with_its_control_socket_and_takes_its_connections_along(place):
    await place.open()
    client = await place.tunnel()
    pid = place.proxy.pid
    await place.proxy.aclose()
    assert await client.ended() == b""
    await client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RunnerFault):
        await place.proxy.prepare("x")


async def test_it_ends_by_itself_when_the_gateway_is_gone(certs):
    """Without anybody to kill it: only the other end of its socket goes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    from remit.runners.egress import proxy

    with theirs:
        argv = [sys.executable, "-I", str(proxy.__file__), str(theirs.fileno())]
        process = subprocess.Popen(argv, env={}, pass_fds=[theirs.fileno()])
    send(ours, {"op": "hello", "id": 1, "uid": None, **EgressSettings().facts()})
    answer = await asyncio.to_thread(receive, ours)
    assert answer is not None
    assert answer[0]["ev"] == "ready"
    ours.close()
    assert await asyncio.to_thread(process.wait, 5) == 0
