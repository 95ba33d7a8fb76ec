"""All servers together: what is seen is judged, kept, offered, and told to operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.errors import Code, Conflict, NotFound, RemitError
from remit.model import Health, Noticed, ServerStatus, ToolState
from remit.servers import first
from remit.servers import oversight as module
from remit.servers.oversight import Oversight
from remit.servers.pins import PinStore
from tests.servers.make import (
    SLY,
    Told,
    command_tool,
    item,
    names,
    oversight,
    spec,
    status,
    tool_status,
)

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-43")]


class World:
    """Servers that are kept, and how often what is offered was put in force."""

    def __init__(self, over: Oversight, told: Told) -> None:
        self.over = over
        self.told = told
        self.in_force: list[list[str]] = []
        self._changed = asyncio.Event()
        over.on_change(self._changed.set)

    async def activate(self) -> None:
        self.in_force.append(names(self.over))

    async def until(self, *wanted: str) -> None:
        """Wait until exactly these are offered, and in force."""
        while self.in_force[-1:] != [list(wanted)]:
            self._changed.clear()
            if self.in_force[-1:] != [list(wanted)]:
                await self._changed.wait()


@asynccontextmanager
async def kept(over: Oversight, told: Told) -> AsyncIterator[World]:
    world = World(over, told)
    async with over.kept(told, world.activate):
        yield world


async def test_a_server_that_was_never_seen_is_asked_without_anybody_waiting(
    tmp_path: Path,
) -> None:
    over = oversight(tmp_path, commands=[command_tool("say")])
    assert names(over) == ["say"]
    assert status(over).health is Health.UNSEEN
    async with kept(over, Told(files=[item("read"), item("write")])) as world:
        await world.until("files_read", "files_write", "say")
    found = status(over)
    assert (found.health, found.revision, found.seen_ms) == (Health.READY, "2025-11-25", 1_000)
    assert (found.transport, found.address) == ("stdio", "/usr/bin/server")
    assert [each.state for each in found.tools] == [ToolState.OFFERED] * 2


async def test_what_was_accepted_is_offered_at_once_and_nobody_is_asked(tmp_path: Path) -> None:
    async with kept(oversight(tmp_path), Told(files=[item()])) as world:
        await world.until("files_read")
    again = oversight(tmp_path)
    assert names(again) == ["files_read"]
    assert status(again).health is Health.UNSEEN
    async with kept(again, Told(files=[item()])) as world:
        for _ in range(20):
            await asyncio.sleep(0)
    assert world.told.asked == []
    assert again.catalog.tools() is again.catalog.tools()


async def test_a_server_that_does_not_answer_keeps_nobody_from_being_asked(tmp_path: Path) -> None:
    never = asyncio.Event()

    class Stuck(Told):
        async def ask(self, server: Any) -> Any:
            if server.spec.name == "a":
                await never.wait()
            return await super().ask(server)

    specs = [spec("a"), spec("b"), spec("c")]
    async with kept(oversight(tmp_path, *specs), Stuck(b=[item()], c=[item()])) as world:
        await world.until("b_read", "c_read")


async def test_many_servers_that_do_not_answer_keep_nobody_from_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "PATIENCE_S", 0.0)
    never = asyncio.Event()

    class Stuck(Told):
        async def ask(self, server: Any) -> Any:
            if server.spec.name != "z":
                await never.wait()
            return await super().ask(server)

    specs = [spec(f"s{number}") for number in range(3 * first.AT_A_TIME)]
    async with kept(oversight(tmp_path, *specs, spec("z")), Stuck(z=[item()])) as world:
        await world.until("z_read")
    assert world.told.asked == ["z"]


async def test_a_server_that_cannot_be_reached_is_told_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "RETRY_S", (0.0,))

    class Late(Told):
        async def ask(self, server: Any) -> Any:
            if len(self.asked) == 3:
                self.lists["files"] = [item()]
            return await super().ask(server)

    over = oversight(tmp_path)
    async with kept(over, Late(files="it ended at once")) as world:
        await world.until("files_read")
        assert len(world.told.asked) == 4


async def test_a_rug_pull_that_a_call_saw_is_offered_no_more(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item(), item("write")])) as world:
        await world.until("files_read", "files_write")
        over.saw("files", [item(description="Now sends it too."), item("write")])
        await world.until("files_write")
        found = tool_status(over, "read")
        assert (found.state, found.noticed) == (ToolState.CHANGED, Noticed.CALL)
        assert found.accepted != found.digest
        (difference,) = over.differences("files", "read")
        assert difference.part == "description"
        assert "+Now sends it too." in difference.diff
    later = oversight(tmp_path)
    assert names(later) == ["files_write"]
    assert tool_status(later, "read") == replace(found, noticed=None)
    assert list(later.differences("files", "read")) == [difference]


async def test_a_tool_that_changed_back_is_not_offered_before_someone_looked(
    tmp_path: Path,
) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        over.saw("files", [item(title="Other")])
        await world.until()
        found = await over.look("files")
        assert found.tools[0].state is ToolState.CHANGED
        assert found.tools[0].accepted == found.tools[0].digest
        assert names(over) == []
        done = await over.accept("files", "read", found.tools[0].digest or "", operator="ada")
        assert done.state is ToolState.OFFERED
        assert world.in_force[-1] == ["files_read"]


async def test_only_what_was_seen_last_can_be_accepted(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        first = tool_status(over, "read").digest or ""
        world.told.lists["files"] = [item(title="Other")]
        changed = (await over.look("files")).tools[0]
        with pytest.raises(Conflict) as caught:
            await over.accept("files", "read", first, operator="ada")
        assert caught.value.code is Code.WRONG_STATE
        assert names(over) == []
        await over.accept("files", "read", changed.digest or "", operator="ada")
    assert names(over) == ["files_read"]
    assert over.catalog.tools()[0].title == "Other"
    assert names(oversight(tmp_path)) == ["files_read"]
    assert PinStore(tmp_path / "pins").read("files")["read"].accepted_by == "ada"


async def test_an_odd_tool_is_offered_once_somebody_accepted_it(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item(description=SLY), item("fine")])) as world:
        await world.until("files_fine")
        found = tool_status(over, "read")
        assert found.state is ToolState.NEW
        assert [sign.sign for sign in found.suspicions] == ["instruction"]
        assert {each.part for each in over.differences("files", "read")} == {
            *("name", "description", "inputSchema")
        }
        await over.accept("files", "read", found.digest or "", operator="ada")
        assert names(over) == ["files_fine", "files_read"]


async def test_what_cannot_be_read_any_more_cannot_be_accepted(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        digest = tool_status(over, "read").digest or ""
        world.told.lists["files"] = [item(title=7)]
        found = (await over.look("files")).tools[0]
        assert (found.state, found.digest) == (ToolState.CHANGED, None)
        assert "cannot be read" in (found.why or "")
        assert over.differences("files", "read") == ()
        with pytest.raises(Conflict):
            await over.accept("files", "read", digest, operator="ada")


@pytest.mark.parametrize(
    ("said", "listed", "state"),
    [
        ({"tools": [{"name": "read", "hidden": True}]}, [item()], ToolState.HIDDEN),
        ({"unlisted": "hide"}, [item()], ToolState.HIDDEN),
        ({}, [item(inputSchema={"type": "object", "$ref": "#/a"})], ToolState.UNUSABLE),
        (
            {"tools": [{"name": "read", "environment": {"argument": "where"}}]},
            [item()],
            ToolState.UNUSABLE,
        ),
        ({}, [item(), item()], ToolState.REPEATED),
        ({"prefix": ""}, [item(), item("READ")], ToolState.COLLIDES),
        ({"prefix": ""}, [item("say"), item()], ToolState.OFFERED),
    ],
)
async def test_why_a_tool_is_not_offered_is_told(
    tmp_path: Path, said: dict[str, Any], listed: list[dict[str, Any]], state: ToolState
) -> None:
    over = oversight(tmp_path, spec(**said), commands=[command_tool("say")])
    async with kept(over, Told(files=listed)):
        found = await over.look("files")
    one = next(each for each in found.tools if each.name == "read")
    assert one.state is state
    assert one.why
    assert ("read" in names(over)) is (state is ToolState.OFFERED)


async def test_the_operators_hiding_is_not_undone_by_accepting(tmp_path: Path) -> None:
    over = oversight(tmp_path, spec(tools=[{"name": "read", "hidden": True}]))
    async with kept(over, Told(files=[item(description=SLY)])):
        found = await over.look("files")
        done = await over.accept("files", "read", found.tools[0].digest or "", operator="ada")
    assert done.state is ToolState.HIDDEN
    assert names(over) == []


@pytest.mark.threat("T-44")
async def test_a_tool_that_is_gone_is_not_offered_until_it_is_back(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item(), item("write")])) as world:
        await world.until("files_read", "files_write")
        over.saw("files", [item("write")])
        await world.until("files_write")
        assert tool_status(over, "read").state is ToolState.GONE
        await over.look("files")
        assert names(over) == ["files_read", "files_write"]


async def test_what_operators_are_told_is_made_anew_when_something_else_is_known(
    tmp_path: Path,
) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        first = tool_status(over, "read")
        assert tool_status(over, "read") is first
        world.told.lists["files"] = [item(description=SLY)]
        await over.look("files")
        held = tool_status(over, "read")
        assert (first.state, held.state) == (ToolState.OFFERED, ToolState.CHANGED)
        assert held.digest is not None
        await over.accept("files", "read", held.digest, operator="ada")
        assert tool_status(over, "read").state is ToolState.OFFERED
        world.told.lists["files"] = []
        await over.look("files")
        assert tool_status(over, "read").state is ToolState.GONE


async def test_lists_that_say_nothing_new_change_nothing(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        held = over.catalog.tools()
        path = tmp_path / "pins" / "files.json"
        before = path.stat().st_mtime_ns
        over.saw("files", [item()])
        over.saw("unknown", [item()])
        await over.look("files")
        assert over.catalog.tools() is held
        assert path.stat().st_mtime_ns == before
        assert world.in_force == [["files_read"]]


async def test_what_cannot_be_kept_on_disk_is_not_offered_but_held_back_all_the_same(
    tmp_path: Path,
) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        (tmp_path / "pins" / "files.new").symlink_to("/dev/null")
        world.told.lists["files"] = [item(title="Other"), item("more")]
        found = await over.look("files")
        assert {each.name: each.state for each in found.tools} == {
            "read": ToolState.CHANGED,
            "more": ToolState.NEW,
        }
        assert names(over) == []
        with pytest.raises(RemitError) as caught:
            await over.accept("files", "more", found.tools[0].digest or "", operator="ada")
        assert caught.value.code is Code.INTERNAL
        assert names(over) == []
        (tmp_path / "pins" / "files.new").unlink()
        await over.accept("files", "more", found.tools[0].digest or "", operator="ada")
        assert names(over) == ["files_more"]


async def test_nothing_is_known_of_what_is_not_there(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        with pytest.raises(NotFound):
            await over.look("other")
        with pytest.raises(NotFound):
            over.differences("files", "other")
        with pytest.raises(NotFound):
            await over.accept("other", "read", "sha256:", operator="ada")


async def test_who_no_longer_wants_to_hear_of_changes_does_not(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    heard: list[int] = []
    end = over.on_change(lambda: heard.append(1))
    async with kept(over, Told(files=[item()])) as world:
        await world.until("files_read")
        assert heard == [1]
        end()
        end()
        over.saw("files", [])
        await world.until()
    assert heard == [1]


async def test_two_servers_do_not_mix(tmp_path: Path) -> None:
    over = oversight(tmp_path, spec("a"), spec("b"))
    async with kept(over, Told(a=[item()], b=[item(title="B")])) as world:
        await world.until("a_read", "b_read")
        over.saw("a", [item(title="Other")])
        await world.until("b_read")
    assert tool_status(over, "read", "b").state is ToolState.OFFERED


async def test_statuses_come_by_name_and_say_how_each_server_is_reached(tmp_path: Path) -> None:
    specs = [
        spec("c", url="https://c.example/mcp"),
        spec("b", url="https://b.example/sse", sse=True, mode="shadow"),
        spec("a", session="shared"),
    ]
    found: list[ServerStatus] = list(oversight(tmp_path, *specs).statuses())
    assert [(each.name, each.transport, each.address, each.mode) for each in found] == [
        ("a", "stdio", "/usr/bin/server", "enforce"),
        ("b", "sse", "https://b.example/sse", "shadow"),
        ("c", "http", "https://c.example/mcp", "enforce"),
    ]


@pytest.mark.threat("T-44")
async def test_a_server_that_lost_a_tool_to_quarantine_does_not_lose_its_name_too(
    tmp_path: Path,
) -> None:
    """Of two servers without prefix, one waits until the other's tool is held back."""
    specs = [spec("bank", prefix=""), spec("toys", prefix="")]
    told = Told(bank=[item("pay")], toys=[item("play")])
    async with kept(oversight(tmp_path, *specs), told) as world:
        await world.until("pay", "play")
        for bank in ([item("pay", description="Another.")], []):
            told.lists |= {"bank": bank, "toys": [item("pay"), item("play")]}
            await world.over.look("bank")
            await world.over.look("toys")
            assert names(world.over) == ["play"]
            assert tool_status(world.over, "pay", "toys").state is ToolState.COLLIDES


@pytest.mark.threat("T-44")
async def test_an_alias_is_kept_for_a_server_that_was_never_seen(tmp_path: Path) -> None:
    bank = spec("bank", tools=[{"name": "do_pay", "alias": "pay"}])
    async with kept(
        oversight(tmp_path, bank, spec("toys", prefix="")), Told(toys=[item("pay"), item("play")])
    ) as world:
        await world.until("play")
        assert names(world.over) == ["play"]


@pytest.mark.threat("T-44")
async def test_a_bare_name_is_that_of_the_server_it_is_written_of_before_that_was_ever_seen(
    tmp_path: Path,
) -> None:
    bank = spec("bank", prefix="", tools=[{"name": "pay"}, {"name": "own", "hidden": True}])
    toys = spec("toys", prefix="")
    told = Told(toys=[item("pay"), item("play"), item("own")])
    async with kept(oversight(tmp_path, bank, toys), told) as world:
        await world.until("own", "play")
        assert tool_status(world.over, "pay", "toys").state is ToolState.COLLIDES
        told.lists["bank"] = [item("pay")]
        await world.over.look("bank")
        assert names(world.over) == ["own", "play"]


async def test_what_one_callers_list_lacks_is_not_gone_and_what_it_changes_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACE_S", 0)
    async with kept(oversight(tmp_path), Told(files=[item("a"), item("b"), item("c")])) as world:
        await world.until("files_a", "files_b", "files_c")
        world.over.saw("files", [item("b", description="Other."), item("d")], whole=False)
        await world.until("files_a", "files_c", "files_d")
        assert tool_status(world.over, "b").state is ToolState.CHANGED
        world.over.saw("files", [item("a")])
        await world.until("files_a")
        assert tool_status(world.over, "c").state is ToolState.GONE
        world.over.saw("files", [item("d")], whole=False)
        await world.until("files_a", "files_d")
        assert tool_status(world.over, "c").state is ToolState.GONE


async def test_a_server_whose_lists_take_long_to_judge_rests_and_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACE_S", 0)
    specs = [spec("busy"), spec("calm"), spec("last")]
    told = Told(busy=[item()], calm=[item()], last=[item()])
    async with kept(oversight(tmp_path, *specs), told) as world:
        await world.until("busy_read", "calm_read", "last_read")
        monkeypatch.setattr("remit.servers.heard.REST", 10**9)
        world.over.saw("busy", [item(), item("one")])
        await world.until("busy_one", "busy_read", "calm_read", "last_read")
        world.over.saw("busy", [item(), item("one"), item("two")])
        world.over.saw("calm", [item(), item("more")])
        await world.until("busy_one", "busy_read", "calm_more", "calm_read", "last_read")
        world.over.saw("last", [item(), item("more")])  # by then it would be its turn again
        await world.until(
            "busy_one", "busy_read", "calm_more", "calm_read", "last_more", "last_read"
        )
        await world.over.look("busy")  # an operator need not wait
        assert names(world.over) == [
            "busy_read", "calm_more", "calm_read", "last_more", "last_read"
        ]  # fmt: skip


async def test_operators_hear_how_calls_of_a_server_go_as_it_changes(tmp_path: Path) -> None:
    over = oversight(tmp_path)
    went: dict[str, tuple[str, str | None]] = {}
    over.watch(went.get)
    assert [(each.calls, each.fault) for each in over.statuses()] == [(None, None)]
    went["files"] = ("down", "upstream_gone")
    assert [(each.calls, each.fault) for each in over.statuses()] == [("down", "upstream_gone")]
