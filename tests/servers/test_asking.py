"""A server is started once to be asked for its tools: with nothing of a call, and gone after it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, UpstreamFault
from remit.model import SHOWN_AS, Destruction, Health, Lease, Lent, Limits, Loan, Mount
from remit.profile import Ceilings, Profile
from remit.servers.asking import Asker, Listing, Silent
from remit.servers.tools import ServerTools
from remit.testing.runner import NoopRunner
from remit.upstreams.asking import HttpServers
from remit.upstreams.lists import Wanted, Words
from remit.upstreams.notices import Hearing
from tests.servers.make import Time, item, spec
from tests.upstreams.played import Message, Program, Server

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-40")]


class Watched(NoopRunner):
    """A runner that remembers its leases."""

    def __init__(self, program: Program) -> None:
        super().__init__(speaker=program)
        self.made: list[Lease] = []
        self.destroyed: list[str] = []

    async def provision(self, lease: Lease, spec: Any) -> None:
        self.made.append(lease)
        await super().provision(lease, spec)

    async def destroy(self, lease: Lease) -> Destruction:
        self.destroyed.append(lease.id)
        return await super().destroy(lease)


def asker(runner: NoopRunner, http: HttpServers | None = None, **more: Any) -> Asker:
    profiles = {"sandbox": Profile(ceilings=Ceilings(memory_mb=100))}
    return Asker(runner, http, Time(), gateway="gw", profiles=profiles, **more)


async def asked(program: Program, *, within_s: float = 30, **said: Any) -> Listing | Silent:
    runner = Watched(program)
    found = await asker(runner, within_s=within_s).ask(ServerTools(spec(**said)))
    assert [lease.id for lease in runner.made] == runner.destroyed
    return found


@pytest.mark.parametrize("modern", [True, False])
async def test_a_server_lists_its_tools_in_either_era(modern: bool) -> None:
    program = Program(modern=modern, tools=[item("a"), item("b")])
    found = await asked(program)
    assert isinstance(found, Listing)
    assert [each["name"] for each in found.items] == ["a", "b"]
    assert found.revision == ("2026-07-28" if modern else "2025-11-25")


async def test_a_server_is_given_what_the_operator_wrote_and_nothing_else() -> None:
    program = Program()
    runner = Watched(program)
    server = spec(
        command={
            "argv": ["/usr/bin/server", "{literal}"],
            "env": {"A": "{b}"},
            "mounts": [{"name": "data", "source": "/srv/data", "writable": True}],
        },
        egress=[{"host": "a.example", "port": 443}],
        credentials=[{"ref": "crm"}],
        limits={"wall_s": 7, "memory_mb": 200},
    )
    await asker(runner).ask(ServerTools(server))
    (ran,) = runner.ran
    assert (ran.argv, ran.env) == (("/usr/bin/server", "{literal}"), (("A", "{b}"),))
    assert ran.mounts == (Mount(name="data", source="/srv/data", writable=False),)
    assert (ran.egress, ran.credentials) == ((), ())
    assert ran.limits == replace(Limits(), wall_s=7, memory_mb=100)
    assert (ran.dialogue, ran.upstream, ran.profile) == (True, None, "sandbox")
    assert runner.made[0].deadline_ms == 1_000 + 70_000
    assert program.calls == []


async def test_a_server_that_ends_at_the_first_question_is_started_once_more() -> None:
    async def ends(server: Server, message: Message) -> int | None:
        if message["method"] == "server/discover":
            return 1
        program.on_open = None
        await server.say(
            id=message["id"], result={"protocolVersion": "2025-11-25", "capabilities": {}}
        )
        return None

    program = Program(on_open=ends, modern=False)
    found = await asked(program)
    assert isinstance(found, Listing)
    assert len(program.servers) == 2


async def test_what_a_server_said_when_it_died_is_told_safely() -> None:
    async def dies(server: Server, message: Message) -> int:
        server.told.complain(b"No module named \x1b[31mserver\n")
        return 3

    found = await asked(Program(on_open=dies))
    assert isinstance(found, Silent)
    assert found.health is Health.UNREACHABLE
    assert "it exited with 3" in found.why
    assert "No module named" in found.why
    assert "\x1b" not in found.why


async def test_a_server_that_lies_is_broken() -> None:
    async def lies(server: Server, message: Message) -> None:
        await server.raw(b"hello\n")

    found = await asked(Program(on_open=lies))
    assert isinstance(found, Silent)
    assert found.health is Health.BROKEN


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def silent(server: Server, message: Message) -> None:
        return None

    found = await asked(Program(on_open=silent), within_s=0.05)
    assert isinstance(found, Silent)
    assert found.health is Health.UNREACHABLE


async def test_what_was_started_is_gone_if_nobody_waits_for_it_any_more() -> None:
    async def silent(server: Server, message: Message) -> None:
        return None

    program = Program(on_open=silent)
    runner = Watched(program)
    asking = asyncio.ensure_future(asker(runner).ask(ServerTools(spec())))
    await program.started.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert [lease.id for lease in runner.made] == runner.destroyed


async def test_a_runner_that_cannot_make_it_is_told() -> None:
    found = await asker(NoopRunner()).ask(ServerTools(spec()))
    assert isinstance(found, Silent)
    assert found.health is Health.UNREACHABLE


class Http:
    """A server over HTTP that lists, or fails."""

    capabilities = NoopRunner().capabilities

    def __init__(self, fault: UpstreamFault | None = None) -> None:
        self._fault = fault
        self.asked: list[tuple[str, str, bytes | None]] = []

    async def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise AssertionError("nobody calls it")

    async def list_tools(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> list[dict[str, Any]]:
        self.asked.append((server, url, authorization))
        if self._fault is not None:
            raise self._fault
        return [item()]

    async def words(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        wanted: Wanted,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> Words:
        return Words()

    async def hear(self, *_: Any, **__: Any) -> Hearing:
        raise AssertionError("nobody hears it")

    def offers(self, server: str) -> Mapping[str, Any]:
        return {"tools": {"listChanged": True}}

    def doing(self, server: str) -> tuple[str, str | None] | None:
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.threat("T-33")
async def test_a_server_over_http_is_asked_without_a_credential() -> None:
    http = Http()
    server = spec(url="https://crm.example/mcp", authorization="crm")
    found = await asker(NoopRunner(), http).ask(ServerTools(server))
    assert isinstance(found, Listing)
    assert http.asked == [("files", "https://crm.example/mcp", None)]


@pytest.mark.parametrize(
    ("code", "health"),
    [
        (Code.UPSTREAM_GONE, Health.UNREACHABLE),
        (Code.UPSTREAM_TIMEOUT, Health.UNREACHABLE),
        (Code.UPSTREAM_ERROR, Health.BROKEN),
        (Code.UPSTREAM_INVALID, Health.BROKEN),
    ],
)
async def test_what_is_wrong_with_a_server_over_http_is_told(code: Code, health: Health) -> None:
    server = ServerTools(spec(url="https://crm.example/mcp"))
    found = await asker(NoopRunner(), Http(UpstreamFault(code, "why"))).ask(server)
    assert found == Silent(health=health, why="why")


class Purse:
    """Is asked for what a server is shown, and has nothing."""

    def __init__(self) -> None:
        self.told: list[Sequence[str] | None] = []

    async def look(self, lease: Lease, ref: str) -> Lent:
        return Lent()

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        return ()

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        return data, 0

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        self.told.append(scopes)


@pytest.mark.parametrize(
    ("challenged", "told"), [((), [None]), (("read",), [("read",)]), (None, [])]
)
async def test_a_look_that_is_not_accepted_is_told_to_who_lent_for_it(
    challenged: tuple[str, ...] | None, told: list[tuple[str, ...] | None]
) -> None:
    fault = UpstreamFault(Code.UPSTREAM_UNAUTHORIZED, "no", challenged=challenged)
    one, purse = asker(NoopRunner(), Http(fault)), Purse()
    one.lends(purse, frozenset({"crm"}))
    server = ServerTools(spec(url="https://crm.example/mcp", authorization="crm"))
    assert isinstance(await one.ask(server), Silent)
    assert purse.told == told


@pytest.mark.parametrize(
    ("authorization", "shown", "said"),
    [
        (None, frozenset(), "write `authorization` for it"),
        ("crm", frozenset(), "whether it is shown crm to list its tools, unsafe_look says"),
        ("crm", frozenset({"crm"}), "it was shown crm; a secret that was changed is read when"),
    ],
)
async def test_where_a_server_wants_another_token_the_next_step_is_told(
    authorization: str | None, shown: frozenset[str], said: str
) -> None:
    fault = UpstreamFault(Code.UPSTREAM_UNAUTHORIZED, "no")
    one = asker(NoopRunner(), Http(fault))
    one.lends(Purse(), shown)
    server = ServerTools(spec(url="https://crm.example/mcp", authorization=authorization))
    found = await one.ask(server)
    assert isinstance(found, Silent)
    assert said in found.why


async def test_without_anything_that_speaks_http_no_server_is_asked_over_it() -> None:
    found = await asker(NoopRunner()).ask(ServerTools(spec(url="https://crm.example/mcp")))
    assert isinstance(found, Silent)


_: Sequence[type[HttpServers]] = (Http,)
