"""A real server that is kept and reaches out: each connection is of the call that had its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.canonical import encode
from remit.clock import SystemClock
from remit.model import Ending, Frozen, Limits, RunResult, RunSpec, SessionMode, UpstreamCall
from remit.upstreams.runner import SessionSettings, UpstreamRunner
from tests.runners.support import GATEWAY, new_lease
from tests.runners.test_kept import Kept
from tests.runners.test_kept import kept as reaching
from tests.upstreams.played import ECHO, digest

__all__ = ["reaching"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-32"),
    pytest.mark.threat("T-39"),
]

PROGRAM = (Path(__file__).parent / "small_server.py").read_text()
TOOL = ECHO | {"name": "do", "description": "Does it."}


@pytest.fixture
async def calls(reaching: Kept) -> AsyncIterator[UpstreamRunner]:
    settings = SessionSettings(clock=SystemClock(), gateway=GATEWAY, keeper=reaching.runner)
    runner = UpstreamRunner(
        reaching.runner, asked=None, seen=lambda server, items: None, sessions=settings
    )
    yield runner
    await runner.aclose()


async def called(
    runner: UpstreamRunner, reaching: Kept, path: str, *, out: bool = True
) -> RunResult:
    given = reaching.spec().egress if out else ()
    call = UpstreamCall(
        server="small",
        tool="do",
        definition=digest(TOOL),
        arguments=Frozen(
            encode({"what": "reach", "url": f"http://127.0.0.1:{reaching.port}{path}"})
        ),
        caller="sha256:" + "a" * 64,
        session=SessionMode.PER_CALLER,
    )
    spec = RunSpec(
        argv=("/usr/bin/python3", "-I", "-S", "-c", PROGRAM),
        limits=Limits(wall_s=20),
        egress=given,
        upstream=call,
    )
    own = new_lease("called")
    await runner.provision(own, spec)
    await runner.start(own)
    result = await runner.collect(own)
    assert (await runner.destroy(own)).complete
    return result


async def test_calls_of_one_process_reach_out_one_at_a_time_each_on_its_own_record(
    reaching: Kept, calls: UpstreamRunner
) -> None:
    results = await asyncio.gather(*(called(calls, reaching, f"/{n}") for n in range(3)))
    assert len({each.runner["session"] for each in results}) == 1
    for result in results:
        assert result.ending is Ending.ANSWERED
        assert b"hello" in result.stdout
        assert result.traffic is not None
        assert [(each.port, each.requests) for each in result.traffic.connections] == [
            (reaching.port, 1)
        ]
    asked = sorted(head.split()[1] for head in reaching.seen)
    assert asked == [b"/0", b"/1", b"/2"]


async def test_a_call_whose_plan_reaches_nothing_has_a_process_without_a_way_out(
    reaching: Kept, calls: UpstreamRunner
) -> None:
    with_way = await called(calls, reaching, "/a")
    without = await called(calls, reaching, "/b", out=False)
    assert without.ending is Ending.ANSWERED
    assert b"Error" in without.stdout
    assert [head.split()[1] for head in reaching.seen] == [b"/a"]
    assert without.runner["session"] != with_way.runner["session"]
    assert without.traffic is None
