"""A server that cannot be heard, or refuses: what is left of that, for whom, and for how long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from remit.errors import UpstreamFault
from remit.servers import watches as module
from remit.servers.watch import WatchTimes
from tests.servers.test_watches import GONE, heard

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-54")]


async def test_who_comes_and_goes_does_not_have_a_server_opened_that_cannot_be_heard(
    tmp_path: Path,
) -> None:
    slow = WatchTimes(retry_s=(600.0,), idle_s=0.01)
    async with heard(tmp_path, times=slow) as (watches, server):
        server.faults = [GONE]
        with pytest.raises(UpstreamFault):
            await watches.subscribe("notes", "a:1", within_s=10)
        for _ in range(10):
            end = watches.listen()
            await asyncio.sleep(0)
            end()
            await asyncio.sleep(0)
        assert server.lines == []
        await watches.subscribe("notes", "a:1", within_s=10)  # for which there is a decision
        assert len(server.lines) == 1


async def test_a_server_left_alone_for_which_nobody_waits_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    slow = WatchTimes(retry_s=(600.0,), idle_s=0.01)
    async with heard(tmp_path, "a", "b", times=slow) as (watches, server):
        server.faults = [GONE]
        with pytest.raises(UpstreamFault):
            await watches.subscribe("a", "a:1", within_s=10)
        (left,) = watches._watches.values()
        await watches.subscribe("b", "a:1", within_s=10)
        assert len(server.lines) == 1
        with anyio.fail_after(20):
            while not left.done:
                await asyncio.sleep(0)


async def test_whatever_fails_while_a_server_is_opened_it_is_opened_again(tmp_path: Path) -> None:
    async with heard(tmp_path) as (watches, server):
        server.faults = [ValueError("nobody knew")]
        end = watches.listen()
        await server.until(opened=1)
        end()


async def test_of_what_a_server_refused_nothing_is_kept_for_whom_nobody_waits(
    tmp_path: Path,
) -> None:
    async with heard(tmp_path) as (watches, server):
        server.refuses = frozenset({"a:1", "a:2"})
        end = watches.listen()
        for uri in ("a:1", "a:2"):
            with pytest.raises(UpstreamFault):
                await watches.subscribe("notes", uri, within_s=10)
        (watch,) = watches._watches.values()
        assert not watch._refused
        end()
