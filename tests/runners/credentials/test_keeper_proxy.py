"""Keeper and egress proxy, both real: what a run's requests carry, and from when on no more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.errors import RunnerFault
from remit.model import EgressRule, Grant, Traffic
from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from tests.runners.credentials.keeping import SECRET, World, keeping, kill, lease, static
from tests.runners.egress.world import Destination, certificates, destination

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Out:
    """A gateway's half with a way out: ledger, keeper, proxy, and one destination."""

    def __init__(self, world: World, proxy: EgressProxy, there: Destination) -> None:
        self.world = world
        self.proxy = proxy
        self.there = there

    async def run(self, service: str = "web") -> tuple[Grant, socket.socket]:
        """A started run whose way out is open; gives the address at which its proxy listens."""
        rule = {"host": "127.0.0.1", "port": self.there.port}
        grant = await self.world.granted("static", service=service, egress=[rule])
        listener = socket.create_server(("127.0.0.1", 0))
        await self.proxy.prepare(grant.run_id)
        await self.proxy.open_run(
            grant.run_id,
            prepared=grant.run_id,
            fence=grant.fence,
            key=grant.plan.call_digest,
            rules=[EgressRule(host="127.0.0.1", port=self.there.port)],
            listener_fd=listener.fileno(),
            ends_ms=grant.deadline_ms,
        )
        return grant, listener

    async def carried(self, listener: socket.socket) -> str | None:
        """The header that a request of the run arrives with."""
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        request = (
            f"GET /127.0.0.1:{self.there.port}/v1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        writer.write(request.encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.close()
        return self.there.asked[-1].headers.get("authorization")

    async def close(self, grant: Grant, listener: socket.socket) -> Traffic:
        await self.world.keeper.take_back(lease(grant))
        listener.close()
        return await self.proxy.close_run(grant.run_id)


@pytest.fixture
async def out(tmp_path: Path) -> AsyncIterator[Out]:
    certs = certificates(tmp_path)
    async with destination(certs.chain) as there, contextlib.AsyncExitStack() as stack:
        where = {"host": "127.0.0.1", "port": there.port, "value": "Bearer {token}"}
        chosen = {"static": static(file=None, inject=[where])}
        world = await stack.enter_async_context(keeping(tmp_path, chosen))
        settings = EgressSettings(
            internal=(f"127.0.0.1:{there.port}",), ca_pem=certs.authority, uid=None
        )
        proxy = await EgressProxy.open(settings, world.keeper.proxy_socket)
        stack.push_async_callback(proxy.aclose)
        world.keeper.on_restart = proxy.connect_keeper
        yield Out(world, proxy, there)


@pytest.mark.threat("T-33")
async def test_requests_carry_what_was_lent_until_it_is_given_back(out: Out) -> None:
    grant, listener = await out.run()
    assert await out.carried(listener) is None
    lent = await out.world.keeper.lend(lease(grant))
    assert [loan.delivered for loan in lent.loans] == ["proxy"]
    assert await out.carried(listener) == f"Bearer {SECRET}"
    await out.world.keeper.take_back(lease(grant))
    assert await out.carried(listener) is None
    traffic = await out.close(grant, listener)
    assert "static" in {ref for each in traffic.connections for ref in each.injected}


@pytest.mark.threat("T-35")
async def test_a_run_that_the_proxy_does_not_have_open_is_lent_nothing(out: Out) -> None:
    grant, listener = await out.run()
    await out.proxy.close_run(grant.run_id)
    listener.close()
    with pytest.raises(RunnerFault, match="does not inject"):
        await out.world.keeper.lend(lease(grant))


@pytest.mark.threat("T-34")
async def test_requests_carry_nothing_once_the_keeper_died_and_the_next_serves_new_runs(
    out: Out,
) -> None:
    grant, listener = await out.run()
    await out.world.keeper.lend(lease(grant))
    assert await out.carried(listener) == f"Bearer {SECRET}"
    first = out.world.keeper.pid
    kill(first)
    async with asyncio.timeout(20):
        while await out.carried(listener) is not None or out.world.keeper.pid == first:
            await asyncio.sleep(0.01)
    await out.close(grant, listener)
    other, there = await out.run("db")
    async with asyncio.timeout(20):
        while True:  # until the proxy has met the new keeper
            try:
                await out.world.keeper.lend(lease(other))
                break
            except RunnerFault:
                await out.close(other, there)
                other, there = await out.run("db" + other.run_id)
    assert await out.carried(there) == f"Bearer {SECRET}"
    await out.close(other, there)


@pytest.mark.threat("T-34")
async def test_a_proxy_that_hung_for_a_moment_serves_new_runs_with_the_same_keeper(
    out: Out,
) -> None:
    """The keeper cuts its line to a proxy that does not answer; nobody has died, so nobody else
    would join the two again."""
    grant, listener = await out.run()
    proxy, keeper = out.proxy.pid, out.world.keeper.pid
    assert proxy is not None
    os.kill(proxy, signal.SIGSTOP)
    try:
        with pytest.raises(RunnerFault, match="does not inject"):
            await out.world.keeper.lend(lease(grant))
    finally:
        os.kill(proxy, signal.SIGCONT)
    assert await out.carried(listener) is None
    await out.close(grant, listener)
    async with asyncio.timeout(20):
        while (joining := out.proxy._rejoining) is None or not joining.done():
            await asyncio.sleep(0.01)
    other, there = await out.run("db")
    await out.world.keeper.lend(lease(other))
    assert await out.carried(there) == f"Bearer {SECRET}"
    assert (out.proxy.pid, out.world.keeper.pid) == (proxy, keeper)
    await out.close(other, there)
