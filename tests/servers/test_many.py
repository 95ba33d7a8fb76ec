"""Many servers that are seen for the first time: the work is as much as there are tools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from remit.model import Tool
from remit.servers import first, gathering, named, oversight
from remit.servers.catalog import WholeCatalog, arrange
from remit.servers.gathering import Gathering
from remit.servers.oversight import Oversight
from remit.servers.pins import PinStore
from remit.upstreams.names import skeleton
from tests.servers.make import Told, item, names, spec, tool_status
from tests.servers.make import oversight as made

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-43")]

EACH = 10


class Work:
    """What is done while servers are seen, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arranged = 0
        self.compared = 0
        self.written: list[str] = []
        write = PinStore.write

        def counted_arrange(commands: Any, candidates: Any, prefixes: Any) -> Any:
            found = list(candidates)
            self.arranged += len(found)
            return arrange(commands, found, prefixes)

        def counted_skeleton(name: str) -> Any:
            self.compared += 1
            return skeleton(name)

        def counted_write(store: PinStore, server: str, tools: Any) -> None:
            self.written.append(server)
            write(store, server, tools)

        monkeypatch.setattr(oversight, "arrange", counted_arrange)
        monkeypatch.setattr(named, "skeleton", counted_skeleton)
        monkeypatch.setattr(PinStore, "write", counted_write)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, nothing is offered because of the time that went by."""
    monkeypatch.setattr(gathering, "PACE_S", 3_600.0)
    monkeypatch.setattr(gathering, "REST", 0)
    monkeypatch.setattr(first, "PATIENCE_S", 3_600.0)


async def until(over: Oversight, told: Told, count: int) -> list[Sequence[Tool]]:
    """What is put in force, until so many tools are."""
    put: list[Sequence[Tool]] = []
    done = asyncio.Event()

    async def activate() -> None:
        put.append(over.catalog.tools())
        if len(put[-1]) >= count:
            done.set()

    async with over.kept(told, activate):
        await done.wait()
    return put


async def seen(folder: Path, servers: int) -> list[Sequence[Tool]]:
    listed = [f"s{number:03}" for number in range(servers)]
    told = Told(**{name: [item(f"t{n}") for n in range(EACH)] for name in listed})
    over = made(folder, *[spec(name) for name in listed])
    return await until(over, told, servers * EACH)


async def test_the_work_of_a_first_sight_grows_as_the_tools_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, int]] = []
    for servers in (20, 80):
        work = Work(monkeypatch)
        put = await seen(tmp_path / str(servers), servers)
        tools = servers * EACH
        assert sorted(work.written) == sorted({each.server for each in _upstreams(put[-1])})
        assert len(put) < 25
        assert work.arranged < 8 * tools
        counted.append((work.arranged, work.compared))
        monkeypatch.undo()
        monkeypatch.setattr(gathering, "PACE_S", 3_600.0)
        monkeypatch.setattr(first, "PATIENCE_S", 3_600.0)
    (arranged, compared), (arranged_more, compared_more) = counted
    # Four times as many tools; each for itself would be sixteen times the work.
    assert arranged_more < 8 * arranged
    assert compared_more == 4 * compared


def _upstreams(tools: Sequence[Tool]) -> list[Any]:
    return [tool.upstream for tool in tools]


async def test_whatever_is_offered_is_on_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[int] = []
    put = WholeCatalog.put

    def checked(self: Any, tools: tuple[Tool, ...]) -> bool:
        store = PinStore(tmp_path / "pins")
        for tool in tools:
            assert tool.upstream is not None
            accepted = store.read(tool.upstream.server)[tool.upstream.tool].accepted
            assert accepted is not None
            assert accepted.definition.digest == tool.upstream.definition
        offered.append(len(tools))
        return put(self, tools)

    monkeypatch.setattr(WholeCatalog, "put", checked)
    await seen(tmp_path, 12)
    assert offered[-1] == 12 * EACH
    assert len(offered) > 3


async def test_a_name_that_another_servers_looks_like_is_offered_no_longer_than_it_takes_to_see_it(
    tmp_path: Path,
) -> None:
    """It does not wait for others, however few tools the server has that took it."""
    many = [item(f"t{n}") for n in range(100)]

    class Last(Told):
        async def ask(self, server: Any) -> Any:
            if server.spec.name == "z":
                await asyncio.Event().wait()
            return await super().ask(server)

    over = made(tmp_path, spec("a", prefix=""), spec("b", prefix=""), spec("z"))
    taken = asyncio.Event()
    force: list[list[str]] = []

    async def activate() -> None:
        force.append(names(over))
        if "pay" not in force[-1]:
            taken.set()

    async with over.kept(Last(a=[*many, item("pay")], b=[item("PAY")]), activate):
        await taken.wait()
        assert "pay" in force[0]
        assert len(force) == 2
        assert tool_status(over, "PAY", "b").state is tool_status(over, "pay", "a").state
        assert not {"pay", "PAY"} & set(names(over))


async def test_what_an_operator_asks_to_see_waits_for_nobody(tmp_path: Path) -> None:
    hangs = asyncio.Event()

    class Hanging(Told):
        async def ask(self, server: Any) -> Any:
            if self.asked.count(server.spec.name) == 0 and server.spec.name != "a":
                self.asked.append(server.spec.name)
                await hangs.wait()
            return await super().ask(server)

    told = Hanging(a=[item(f"t{n}") for n in range(100)], b=[item()], c=[item()])
    over = made(tmp_path, spec("a"), spec("b"), spec("c"))
    begun = asyncio.Event()

    async def activate() -> None:
        begun.set()

    async with over.kept(told, activate):
        await begun.wait()
        assert "b_read" not in names(over)
        while "b" not in told.asked:
            await asyncio.sleep(0)
        await over.look("b")
        assert "b_read" in names(over)


async def test_what_waits_is_offered_though_others_are_still_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PACE_S", 0.0)

    class Hanging(Told):
        async def ask(self, server: Any) -> Any:
            if server.spec.name == "z":
                await asyncio.Event().wait()
            return await super().ask(server)

    told = Hanging(a=[item(f"t{n}") for n in range(100)], b=[item()])
    put = await until(made(tmp_path, spec("a"), spec("b"), spec("z")), told, 101)
    assert [len(each) for each in put] == [100, 101]


async def test_nobody_waits_once_the_last_in_line_was_heard_or_is_waited_for_no_more() -> None:
    waiting = Gathering()
    waiting.line(["a", "b"])
    assert waiting.add(10, 0)
    with waiting.offering():
        pass
    assert not waiting.add(1, 10)
    due = asyncio.ensure_future(waiting.due())
    waiting.leaves("a")
    await asyncio.sleep(0)
    assert not due.done()
    waiting.leaves("b")
    await due


async def test_a_share_of_what_is_offered_is_enough() -> None:
    waiting = Gathering()
    waiting.line(["a"])
    assert not waiting.add(2, 12)
    assert waiting.add(1, 12)
    with waiting.offering():
        pass
    assert not waiting.add(2, 15)
