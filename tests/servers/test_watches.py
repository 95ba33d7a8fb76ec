"""Watches: what is opened for whom, and what a server that is lost, late or too loud costs."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import HandedFile, Lease, Lent, Loan
from remit.servers import watches as module
from remit.servers.announced import Announced
from remit.servers.asking import Asker
from remit.servers.hearing import AGE_S, SHOWN_S, Heard, Opener
from remit.servers.tools import ServerTools
from remit.servers.watch import WatchTimes, covers
from remit.servers.watches import Watches
from remit.settings import lending
from remit.settings.runners import RunnersSection
from remit.testing.runner import NoopRunner
from remit.upstreams.asking import HttpServers
from remit.upstreams.notices import Hears, not_told
from tests.servers.make import Time, spec

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-54")]

QUICK = WatchTimes(
    grace_s=0.05, idle_s=0.01, retry_s=(0.01,), hold_s=0.2, pace_s=0.01, slowest_s=0.02
)
GONE = UpstreamFault(Code.UPSTREAM_GONE, "it went away")
LISTS = frozenset({"tools", "subscribe"})
OTHER = '{"schema":"remit.announced/2","servers":{"notes":["tools"]}}'


@dataclass
class Line:
    """One connection, as the test holds it."""

    hears: Hears
    lists: frozenset[str]
    held: list[frozenset[str]] = field(default_factory=list)
    refuses: frozenset[str] = frozenset()
    mute: bool = False
    lost: asyncio.Future[UpstreamFault] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ended: bool = False

    async def hold(self, uris: frozenset[str]) -> Mapping[str, UpstreamFault]:
        if self.mute:
            await asyncio.sleep(60)
        self.held.append(uris)
        return {uri: not_told() for uri in uris & self.refuses}

    async def over(self) -> UpstreamFault:
        return await asyncio.shield(self.lost)

    async def close(self) -> None:
        self.ended = True


class Server:
    """Opens connections, as often as the test lets it."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.faults: list[Exception] = []
        self.age_s = 60.0
        self.refuses: frozenset[str] = frozenset()
        self.mute = False
        self.looked = 0
        self._moved = asyncio.Event()

    async def open(self, server: ServerTools, lists: frozenset[str], hears: Hears) -> Heard:
        if self.faults:
            raise self.faults.pop(0)
        line = Line(hears=hears, lists=lists, refuses=self.refuses, mute=self.mute)
        self.lines.append(line)
        self._move()

        async def end() -> None:
            await line.close()
            self._move()

        return Heard(hearing=line, age_s=self.age_s, end=end)

    async def look(self, _: str) -> None:
        self.looked += 1
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def until(self, *, opened: int | None = None, ended: int = 0, looked: int = 0) -> None:
        """Until so many were opened and have ended, and it was looked at so often."""
        with anyio.fail_after(20):
            while (
                (opened is not None and len(self.lines) < opened)
                or sum(each.ended for each in self.lines) < ended
                or self.looked < looked
            ):
                await self._moved.wait()


@asynccontextmanager
async def heard(
    folder: Path, *names: str, said: frozenset[str] = LISTS, times: WatchTimes = QUICK
) -> AsyncIterator[tuple[Watches, Server]]:
    announced = Announced(folder)
    names = names or ("notes",)
    servers = {name: ServerTools(spec(name, resources="offer")) for name in names}
    for name in names:
        announced.put(name, said)
    server, made = Server(), Watches(servers, announced, times)
    async with made.kept(server, server.look):
        yield made, server


def nobody(_: bool) -> None:
    """Nobody hears."""


async def test_nothing_is_opened_until_somebody_waits_and_it_ends_after(tmp_path: Path) -> None:
    async with heard(tmp_path) as (watches, server):
        assert server.lines == []
        end = watches.listen()
        await server.until(opened=1)
        assert server.lines[0].lists == {"tools"}
        end()
        end()  # idempotent: another listener is not taken for this one
        await server.until(ended=1)
        await watches.subscribe("notes", "a:1", within_s=10)
        await server.until(opened=2, ended=2)  # nobody heard it in the time of grace
        assert server.lines[1].held[0] == {"a:1"}


async def test_who_hears_is_told_of_its_own_and_no_longer_than_it_wants(tmp_path: Path) -> None:
    async with heard(tmp_path) as (watches, server):
        told: list[tuple[str, bool]] = []
        for uri in ("a:1", "a:2"):
            await watches.subscribe("notes", uri, within_s=10)
        one = watches.hear("notes", "a:1", lambda changed: told.append(("a:1", changed)))
        two = watches.hear("notes", "a:2", lambda changed: told.append(("a:2", changed)))
        (line,) = server.lines
        for uri in ("a:1", "a:3", "a:1/part", "a:11"):
            line.hears.updated(uri)
        assert told == [("a:1", True), ("a:1", True)]
        one()
        line.hears.updated("a:1")
        assert len(told) == 2
        two()
        await server.until(ended=1)


async def test_a_server_that_went_away_is_heard_again_under_another_number(tmp_path: Path) -> None:
    async with heard(tmp_path) as (watches, server):
        await watches.subscribe("notes", "a:1", within_s=10)
        told: list[bool] = []
        end = watches.hear("notes", "a:1", told.append)
        before = watches.rounds("notes")
        server.faults = [GONE, GONE]
        server.lines[0].lost.set_result(GONE)
        await server.until(opened=2, ended=1, looked=1)
        assert watches.rounds("notes") != before
        assert told == [False]  # not that it changed: that it has to be asked about again
        assert server.lines[1].held == [frozenset({"a:1"})]
        end()


async def test_a_connection_that_is_made_anew_loses_nothing_and_asks_nobody(
    tmp_path: Path,
) -> None:
    async with heard(tmp_path) as (watches, server):
        server.age_s = 0.05
        await watches.subscribe("notes", "a:1", within_s=10)
        told: list[bool] = []
        end = watches.hear("notes", "a:1", told.append)
        before = watches.rounds("notes")
        await server.until(opened=3, ended=2)
        assert watches.rounds("notes") == before
        assert (told, server.looked) == ([], 0)
        end()


async def test_what_a_server_refuses_or_does_not_answer_is_a_fault_of_that_alone(
    tmp_path: Path,
) -> None:
    async with heard(tmp_path) as (watches, server):
        server.refuses = frozenset({"a:2"})
        await watches.subscribe("notes", "a:1", within_s=10)
        end = watches.hear("notes", "a:1", nobody)
        with pytest.raises(UpstreamFault) as refused:
            await watches.subscribe("notes", "a:2", within_s=10)
        assert refused.value.code is Code.UPSTREAM_ERROR
        assert len(server.lines) == 1
        end()
    async with heard(tmp_path) as (watches, server):
        server.mute = True
        with pytest.raises(UpstreamFault) as late:
            await watches.subscribe("notes", "a:1", within_s=10)
        assert late.value.code is Code.UPSTREAM_TIMEOUT
        await server.until(ended=1)


async def test_a_server_that_cannot_be_heard_is_left_alone_for_a_while(tmp_path: Path) -> None:
    slow = WatchTimes(retry_s=(600.0,), idle_s=0.01)
    async with heard(tmp_path, times=slow) as (watches, server):
        server.faults = [GONE]
        end = watches.listen()
        with pytest.raises(UpstreamFault):
            await watches.subscribe("notes", "a:1", within_s=10)
        with pytest.raises(UpstreamFault) as again:
            await watches.subscribe("notes", "a:1", within_s=10)
        assert "asked again in a moment" in again.value.message
        assert server.lines == []
        end()


async def test_a_server_that_says_all_the_time_that_it_changed_is_looked_at_now_and_then(
    tmp_path: Path,
) -> None:
    paced = WatchTimes(pace_s=600.0, idle_s=0.01)
    async with heard(tmp_path, times=paced) as (watches, server):
        end = watches.listen()
        await server.until(opened=1)
        for _ in range(1_000):
            server.lines[0].hears.changed("tools")
        await server.until(looked=1)  # the first time at once
        for _ in range(1_000):
            server.lines[0].hears.changed("tools")
            server.lines[0].hears.changed("prompts")  # which are not offered
            await asyncio.sleep(0)
        assert server.looked == 1
        end()


async def test_only_so_many_servers_are_heard_and_subscriptions_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    monkeypatch.setattr(module, "MOST_FOR_LISTS", 2)
    names = ("a", "b", "c", "d", "e", "f")
    async with heard(tmp_path, *names) as (watches, server):
        end = watches.listen()
        await server.until(opened=2)
        ends = []
        for name in ("d", "e", "f"):
            await watches.subscribe(name, "a:1", within_s=10)
            ends.append(watches.hear(name, "a:1", nobody))
        await server.until(ended=2)
        with pytest.raises(RunnerFault):
            await watches.subscribe("c", "a:1", within_s=10)
        for each in (*ends, end):
            each()


async def test_nobody_is_heard_who_tells_nothing_or_after_the_end(tmp_path: Path) -> None:
    async with heard(tmp_path, said=frozenset({"subscribe"})) as (watches, server):
        end = watches.listen()
        await watches.subscribe("notes", "a:1", within_s=10)
        assert [each.lists for each in server.lines] == [frozenset()]
        end()
    assert server.lines[0].ended
    with pytest.raises(RunnerFault):
        await watches.subscribe("notes", "a:1", within_s=10)


def test_a_part_of_a_resource_is_no_other_resource() -> None:
    assert covers("a:/x", "a:/x")
    assert covers("a:/x", "a:/x/y")
    assert covers("a:/x/", "a:/x/y")
    assert covers("a:/x", "a:/x?y#z")
    assert not covers("a:/x", "a:/xy")
    assert not covers("a:/x/y", "a:/x")


def test_what_servers_announce_is_kept_and_damage_is_not_believed(tmp_path: Path) -> None:
    kept = Announced(tmp_path)
    assert kept.unknown("notes")
    assert kept.put("notes", frozenset({"tools", "subscribe"}))
    assert not kept.put("notes", frozenset({"tools", "subscribe"}))
    again = Announced(tmp_path)
    assert again.of("notes") == {"tools", "subscribe"}
    for damage in ('{"schema":"remit.announced/1","servers":[]}', "{", OTHER):
        (tmp_path / "_announced.json").write_text(damage)
        assert Announced(tmp_path).unknown("notes")


def test_two_that_keep_what_servers_announce_leave_each_others_words(tmp_path: Path) -> None:
    gateway, imports = Announced(tmp_path), Announced(tmp_path)
    gateway.put("notes", frozenset({"tools"}))
    imports.put("files", frozenset({"prompts"}))
    gateway.put("notes", frozenset({"subscribe"}))
    imports.put("more", frozenset())
    kept = Announced(tmp_path)
    found = {name: kept.of(name) for name in ("notes", "files", "more")}
    assert found == {"notes": {"subscribe"}, "files": {"prompts"}, "more": set()}
    assert not kept.unknown("more")
    imports.forget(["files", "more"])
    assert Announced(tmp_path).unknown("files")
    assert Announced(tmp_path).of("notes") == {"subscribe"}
    imports.forget(["notes"])
    assert list(tmp_path.iterdir()) == []


class Purse:
    """Lends what a look may be shown; `back` are the leases that were taken back."""

    def __init__(self) -> None:
        self.lent: list[str] = []
        self.back: list[str] = []

    async def look(self, lease: Lease, ref: str) -> Lent:
        self.lent.append(ref)
        with tempfile.TemporaryFile() as file:
            file.write(b"token-of-" + ref.encode())
            file.flush()
            return Lent(files=(HandedFile(name="token", fd=os.dup(file.fileno())),))

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        self.back.append(lease.id)
        return ()

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        return data, 0

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        """Nobody asks."""


@pytest.mark.threat("T-33")
@pytest.mark.parametrize(
    ("heard_with", "token"), [(frozenset({"crm"}), b"token-of-crm"), (frozenset(), None)]
)
async def test_a_server_is_heard_with_nothing_but_what_may_be_shown_for_everybody(
    heard_with: frozenset[str], token: bytes | None
) -> None:
    shown: list[bytes | None] = []
    line = Line(hears=Ears(), lists=LISTS)

    class Http:
        async def hear(self, _s: str, _u: str, token: bytes | None, *_: Any, **__: Any) -> Line:
            shown.append(token)
            return line

    http = cast("HttpServers", Http())
    asker = Asker(NoopRunner(), http, Time(), gateway="g", profiles={})
    purse = Purse()
    # What a look may be shown can be one person's: it is not shown for whoever subscribes.
    asker.lends(purse, frozenset({"crm"}), heard_with)
    server = ServerTools(spec(url="https://crm.example/mcp", authorization="crm"))
    opened = await Opener(asker).open(server, LISTS, Ears())
    assert shown == [token]
    assert purse.back == []
    await opened.end()
    assert line.ended
    assert len(purse.back) == len(purse.lent) == (1 if token else 0)
    assert opened.age_s <= (SHOWN_S if token else AGE_S)


@pytest.mark.threat("T-33")
def test_what_one_person_consented_to_is_looked_with_and_never_heard_with() -> None:
    file = {"name": "token", "content": "{token}"}
    own = {"broker": "static", "secret": "env:OWN", "file": file, "unsafe_look": True}
    hers = {
        "broker": "authorization_code",
        "resource": "https://crm.example/mcp",
        "file": file,
        "unsafe_look_as": "ann",
    }
    section = RunnersSection.model_validate({"credentials": {"own": own, "hers": hers}})
    assert lending.looks(section) == {"own", "hers"}
    assert lending.hears(section) == {"own"}


class Ears:
    """Hears nothing."""

    def changed(self, name: str) -> None:
        """Nothing."""

    def updated(self, uri: str) -> None:
        """Nothing."""
