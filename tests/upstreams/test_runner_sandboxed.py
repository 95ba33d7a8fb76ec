"""Calls of a real server in the real sandbox: what it is given, and what it is ended for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from remit.canonical import encode
from remit.clock import SystemClock
from remit.model import (
    Destruction,
    Ending,
    Frozen,
    Limits,
    RunResult,
    RunSpec,
    SessionMode,
    UpstreamCall,
)
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.testing.runner import lease
from remit.upstreams.runner import SessionSettings, UpstreamRunner
from tests.runners.support import GATEWAY
from tests.upstreams.played import digest

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.threat("T-40"),
]

HERE = Path(__file__).parent
PROGRAM = (HERE / "small_server.py").read_text()
TOOL = {"name": "do", "description": "Does it.", "inputSchema": {"type": "object"}}


@dataclass
class Sandboxed:
    """A runner of calls around the sandbox, and what came of the last one."""

    runner: UpstreamRunner
    inner: SandboxRunner
    count: int = 0

    async def call(
        self, session: SessionMode = SessionMode.PER_CALL, wall_s: int = 20, **arguments: Any
    ) -> tuple[RunResult, Destruction]:
        self.count += 1
        own = lease(f"called-{self.count}")
        spec = RunSpec(
            argv=("/usr/bin/python3", "-I", "-S", "-c", PROGRAM),
            env=(("ONLY", "this"),),
            limits=Limits(wall_s=wall_s, memory_mb=64, output_bytes=20_000),
            upstream=UpstreamCall(
                server="small",
                tool="do",
                definition=digest(TOOL, "small"),
                arguments=Frozen(encode(arguments)),
                caller="sha256:" + "a" * 64,
                session=session,
            ),
        )
        await self.runner.provision(own, spec)
        await self.runner.start(own)
        result = await self.runner.collect(own)
        return result, await self.runner.destroy(own)


@pytest.fixture
async def sandboxed(tmp_path: Path) -> AsyncIterator[Sandboxed]:
    inner = await SandboxRunner.open(
        SandboxSettings(state_dir=tmp_path, gateway=f"{GATEWAY}-calls")
    )
    kept = SessionSettings(clock=SystemClock(), gateway=f"{GATEWAY}-calls")
    runner = UpstreamRunner(inner, asked=None, seen=lambda server, items: None, sessions=kept)
    yield Sandboxed(runner, inner)
    await runner.aclose()
    assert inner.attempts.held == frozenset()
    await inner.aclose()


async def test_a_call_is_answered_from_a_sandbox_that_is_gone_afterwards(
    sandboxed: Sandboxed,
) -> None:
    for _ in range(2):
        result, gone = await sandboxed.call(what="tell")
        assert (result.ending, result.limits_hit) == (Ending.ANSWERED, ())
        told = json.loads(result.stdout)["structuredContent"]
        assert told["calls"] == 1
        assert "ONLY" in told["environment"]
        assert not any("KEY" in name or "TOKEN" in name for name in told["environment"])
        assert result.runner["tier"] == "sandbox"
        assert gone.complete
        assert gone.session is None


@pytest.mark.parametrize(
    ("arguments", "wall_s", "ending", "hit"),
    [
        ({"what": "eat"}, 20, Ending.OUT_OF_MEMORY, "memory"),
        ({"what": "hang"}, 3, Ending.TIMED_OUT, "wall"),
        ({"what": "die"}, 20, Ending.UNANSWERED, "upstream_gone"),
        ({"what": "shut"}, 600, Ending.UNANSWERED, "upstream_gone"),
    ],
    ids=["memory", "time", "death", "output closed"],
)
async def test_what_ends_a_server_in_the_middle_of_a_call_is_told(
    sandboxed: Sandboxed, arguments: dict[str, Any], wall_s: int, ending: Ending, hit: str
) -> None:
    result, gone = await sandboxed.call(wall_s=wall_s, **arguments)
    assert result.ending is ending
    assert hit in result.limits_hit
    assert gone.complete
    if arguments["what"] == "die":
        assert (result.exit_code, result.stderr) == (3, b"going\n")


async def test_an_answer_of_more_than_a_pipe_holds_comes_whole_or_cut(sandboxed: Sandboxed) -> None:
    result, _ = await sandboxed.call(what="fill", size=1_000_000)
    assert (result.ending, result.stdout_truncated) == (Ending.ANSWERED, True)
    assert len(result.stdout) == 20_000


async def test_a_session_is_one_process_that_outlives_its_calls_and_is_destroyed_whole(
    sandboxed: Sandboxed,
) -> None:
    shared = SessionMode.SHARED
    names = set()
    for n in (1, 2):
        result, gone = await sandboxed.call(shared, what="tell")
        assert json.loads(result.stdout)["structuredContent"]["calls"] == n
        assert gone.session is not None
        assert gone.session.ended is None
        names.add(gone.session.id)
        assert await sandboxed.runner.sweep(frozenset()) == []
    assert sandboxed.inner.attempts.held == names
    died, _ = await sandboxed.call(shared, what="eat")
    assert (died.ending, died.limits_hit) == (Ending.UNANSWERED, ("upstream_gone",))
    again, _ = await sandboxed.call(shared, what="tell")
    assert json.loads(again.stdout)["structuredContent"]["calls"] == 1
    await sandboxed.runner.aclose()
    ended = await sandboxed.runner.sweep(frozenset())
    assert [each.complete for each in ended] == [True, True]
    why = [each.session.ended for each in ended if each.session is not None]
    assert why == [
        "a call of it ended with upstream_gone (out_of_memory)",
        "the gateway ends",
    ]


async def test_a_stop_ends_a_server_that_does_not_listen(sandboxed: Sandboxed) -> None:
    sandboxed.count += 1
    spec = replace(
        RunSpec(argv=("/usr/bin/python3", "-I", "-S", "-c", PROGRAM), limits=Limits(wall_s=20)),
        upstream=UpstreamCall(
            server="small",
            tool="do",
            definition=digest(TOOL, "small"),
            arguments=Frozen(encode({"what": "hang"})),
            caller="",
        ),
    )
    own = lease("called-stopped")
    await sandboxed.runner.provision(own, spec)
    await sandboxed.runner.start(own)
    await sandboxed.runner.stop(own, grace_s=0.1)
    result = await sandboxed.runner.collect(own)
    assert result.ending in (Ending.UNASKED, Ending.UNANSWERED)
    assert result.limits_hit == ("cancelled",)
    assert (await sandboxed.runner.destroy(own)).complete
