"""Calls of servers over HTTP, from the runner's side: where they may go, what they are shown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from remit.canonical import encode
from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import (
    SHOWN_AS,
    Capabilities,
    CredentialRule,
    EgressRule,
    Ending,
    HandedFile,
    Lease,
    RunSpec,
    Tier,
)
from remit.testing.runner import NoopRunner, lease
from remit.upstreams.asking import elsewhere
from remit.upstreams.elsewhere import MAX_TOKEN_BYTES
from remit.upstreams.lists import Wanted, Words
from remit.upstreams.messages import Progress
from remit.upstreams.notices import Hearing
from remit.upstreams.runner import UpstreamRunner
from tests.upstreams.played import call_spec

pytestmark = pytest.mark.anyio

URL = "https://mcp.example/v1"
RULE = EgressRule(host="mcp.example", port=443)
RESULT: dict[str, Any] = {"content": [], "structuredContent": {"a": 1}}
TOKEN = CredentialRule(ref="mcp")

Answer = Callable[[Callable[[Progress], None]], Awaitable[dict[str, Any]]]


async def answers(progress: Callable[[Progress], None]) -> dict[str, Any]:
    progress(Progress(progress=1, total=2, message="half"))
    return RESULT


@dataclass
class Played:
    """Servers over HTTP that answer as the test says; `shown` are the tokens that came."""

    answer: Answer = answers
    capabilities: Capabilities = field(
        default_factory=lambda: elsewhere(digest="sha256:" + "1" * 64, version="1")
    )
    shown: list[bytes | None] = field(default_factory=list)
    within: list[float] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(
        self,
        spec: RunSpec,
        lease: Lease,
        authorization: bytes | None,
        *,
        within_s: float,
        progress: Callable[[Progress], None],
    ) -> dict[str, Any]:
        self.shown.append(authorization)
        self.within.append(within_s)
        self.called.set()
        return await self.answer(progress)

    async def hear(self, *_: Any, **__: Any) -> Hearing:
        raise AssertionError("nobody hears it")

    def offers(self, server: str) -> Mapping[str, Any]:
        return {}

    async def list_tools(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> list[dict[str, Any]]:
        return []

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

    def doing(self, server: str) -> tuple[str, str | None] | None:
        return None

    async def aclose(self) -> None:
        return None


def spec(*, url: str = URL, egress: tuple[EgressRule, ...] = (RULE,), **more: Any) -> RunSpec:
    return replace(call_spec(url=url), profile="http", egress=egress, **more)


def runner(played: Played) -> UpstreamRunner:
    return UpstreamRunner(NoopRunner(), asked=played, seen=lambda server, items: None)


def token(data: bytes) -> HandedFile:
    fd = os.memfd_create("token")
    os.write(fd, data)
    return HandedFile(name="mcp", fd=fd)


async def test_the_answer_is_the_output_and_the_record_says_that_nothing_was_isolated() -> None:
    it, own = runner(Played()), lease("far")
    await it.provision(own, spec())
    await it.start(own)
    result = await it.collect(own)
    assert (result.ending, result.stdout) == (Ending.ANSWERED, encode(RESULT))
    assert (result.runner["name"], result.runner["tier"]) == ("http", "none")
    assert result.runner["server"] == "files"
    assert [f.data async for f in it.stream(own)] == [b"half (1 of 2)\n"]
    gone = await it.destroy(own)
    assert gone.complete
    assert gone.note == "nothing was made for it here: a server elsewhere was asked"


async def test_the_profile_is_there_where_servers_can_be_asked_and_isolates_nothing() -> None:
    found = runner(Played()).profile("http")
    assert found is not None
    assert (found.tier, found.holds) == (Tier.NONE, {"egress": True})
    without = UpstreamRunner(NoopRunner(), asked=None, seen=lambda server, items: None)
    assert without.profile("http") is None
    with pytest.raises(RunnerFault) as refused:
        await without.provision(lease("far"), spec())
    assert refused.value.code is Code.RUNNER_LACKS


@pytest.mark.threat("T-32")
@pytest.mark.parametrize(
    "refused",
    [
        spec(egress=()),
        spec(egress=(replace(RULE, host="other.example"),)),
        spec(egress=(replace(RULE, port=8443),)),
        spec(url="https://mcp.example:8443/v1"),
        spec(url="http://mcp.example/v1"),
        replace(spec(), profile="sandbox"),
    ],
    ids=["none", "other host", "other port", "port of the url", "plain", "in a sandbox"],
)
async def test_a_call_goes_only_where_its_plan_lets_it(refused: RunSpec) -> None:
    played = Played()
    with pytest.raises(RunnerFault) as fault:
        await runner(played).provision(lease("far"), refused)
    assert (fault.value.code, fault.value.started) == (Code.RUNNER_LACKS, False)
    assert played.shown == []


@pytest.mark.threat("T-33")
async def test_the_token_that_was_lent_is_shown_without_white_space_and_its_file_closed() -> None:
    played, own = Played(), lease("far")
    it = runner(played)
    await it.provision(own, spec(credentials=(TOKEN,)))
    file = token(b"  abc.def\n")
    await it.start(own, (file,))
    await it.collect(own)
    assert played.shown == [b"abc.def"]
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(file.fd)
    late = token(b"other")
    await it.start(own, (late,))  # changes nothing
    assert played.shown == [b"abc.def"]
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(late.fd)


@pytest.mark.threat("T-33")
@pytest.mark.parametrize(
    "files",
    [
        [],
        [b""],
        [b" \n"],
        [b"a\r\nX-Other: b"],
        [b"a b"],
        [b"\xff"],
        [b"x" * (MAX_TOKEN_BYTES + 1)],
        [b"one", b"two"],
    ],
    ids=["none", "empty", "blank", "two lines", "a space", "no ascii", "too long", "two files"],
)
async def test_what_is_no_token_is_not_shown_and_nothing_is_asked(files: list[bytes]) -> None:
    played, own = Played(), lease("far")
    it = runner(played)
    await it.provision(own, spec(credentials=(TOKEN,)))
    handed = [token(each) for each in files]
    with pytest.raises(RunnerFault) as refused:
        await it.start(own, handed)
    assert (refused.value.code, refused.value.started) == (Code.CREDENTIAL_UNAVAILABLE, False)
    assert played.shown == []
    for each in handed:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(each.fd)


async def test_a_call_has_what_is_left_of_its_lease_and_no_more_than_its_limit() -> None:
    played = Played()
    it = runner(played)
    for name, seconds in (("long", 300), ("short", 2)):
        own = lease(name, seconds=seconds)
        await it.provision(own, spec())
        await it.start(own)
        await it.collect(own)
    assert played.within[0] == 20.0
    assert 0.0 <= played.within[1] <= 2.0


@pytest.mark.parametrize(("sent", "ending"), [(True, Ending.UNANSWERED), (False, Ending.UNASKED)])
async def test_a_fault_says_whether_it_was_asked(sent: bool, ending: Ending) -> None:
    async def fails(progress: Any) -> dict[str, Any]:
        raise UpstreamFault(Code.UPSTREAM_GONE, "the server hung up", sent=sent)

    it, own = runner(Played(fails)), lease("far")
    await it.provision(own, spec())
    await it.start(own)
    result = await it.collect(own)
    assert (result.ending, result.limits_hit) == (ending, ("upstream_gone",))


async def test_what_goes_wrong_inside_is_told_as_if_it_had_been_sent() -> None:
    async def breaks(progress: Any) -> dict[str, Any]:
        raise RuntimeError("nobody foresaw this")

    it, own = runner(Played(breaks)), lease("far")
    await it.provision(own, spec())
    await it.start(own)
    result = await it.collect(own)
    assert (result.ending, result.limits_hit) == (Ending.UNANSWERED, (Code.INTERNAL.value,))
    assert b"foresaw" not in result.stdout


async def test_a_stop_gives_the_request_up_and_counts_it_as_sent() -> None:
    ended: list[str] = []

    async def hangs(progress: Any) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("given up")
        return {}

    played = Played(hangs)
    it, own = runner(played), lease("far")
    await it.provision(own, spec())
    await it.start(own)
    await played.called.wait()
    await it.stop(own, grace_s=1)
    result = await it.collect(own)
    assert (result.ending, result.limits_hit) == (Ending.UNANSWERED, ("cancelled",))
    assert ended == ["given up"]


async def test_a_run_stopped_before_its_start_asks_nobody() -> None:
    played = Played()
    it, own = runner(played), lease("far")
    await it.provision(own, spec())
    await it.stop(own, grace_s=1)
    assert (await it.collect(own)).ending is Ending.NOT_STARTED
    with pytest.raises(RunnerFault):
        await it.start(own)
    assert (await it.destroy(own)).complete
    with pytest.raises(RunnerFault):
        await it.provision(own, spec())
    assert played.shown == []


async def test_a_run_that_is_destroyed_in_the_middle_leaves_no_request() -> None:
    async def hangs(progress: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    played = Played(hangs)
    it, own = runner(played), lease("far")
    await it.provision(own, spec())
    await it.start(own)
    await played.called.wait()
    before = len(asyncio.all_tasks())
    assert (await it.destroy(own)).complete
    assert len(asyncio.all_tasks()) < before
