"""Calls that nothing is made for: the intent's transaction writes their start too.

Whatever happens between that transaction and the moment in which the server is asked: it is asked
at most once, after everything that was looked at, and what is left open may have run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Code, LedgerFault
from remit.model import Constraints, Effect, EgressRule, Ending, Grant, RunState
from remit.pipeline import Pipeline
from remit.recovery import recover
from remit.stages.execute import Stop, execute
from remit.upstreams.messages import Progress
from tests.path.broken import assert_the_log_holds
from tests.path.conftest import HEAD, MakePath, Path_
from tests.path.test_server_calls import server_tool
from tests.upstreams.test_elsewhere import RESULT, URL, Played, runner

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-15")]

GIVE = HEAD + 'decision := answer("allow", {"constraints": {"egress": input.tool.egress}})\n'


def far(name: str, effect: Effect) -> Any:
    """A tool of a server over HTTP."""
    made = server_tool(name, effect, url=URL)
    return replace(made, runner="http", egress=(EgressRule(host="mcp.example", port=443),))


TOOLS = [far("look", Effect.READ), far("act", Effect.WRITE), server_tool("near", Effect.WRITE)]


class Watched:
    """A ledger that says what is asked of it, and lets the test act after an intent."""

    def __init__(self, ledger: Any, after_intent: Callable[[], Any]) -> None:
        self._ledger = ledger
        self._after = after_intent
        self.grants: list[Grant] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def commit_intent(self, *given: Any) -> Grant:
        grant: Grant = await self._ledger.commit_intent(*given)
        self.grants.append(grant)
        await self._after()
        return grant


async def nothing() -> None:
    return None


async def reaching(
    make_path: MakePath, played: Played, after_intent: Callable[[], Any] = nothing
) -> tuple[Path_, Watched]:
    path: Path_ = await make_path(GIVE, tools=TOOLS)
    watched = Watched(path.ledger, after_intent)
    ledger: Any = watched
    backends = replace(path.pipeline.backends, runner=runner(played), ledger=ledger)
    path.pipeline = Pipeline(backends, path.pipeline.settings)
    return path, watched


async def only_run(path: Path_) -> Any:
    (run,) = await path.ledger.runs()
    return run


async def test_server_is_asked_after_one_transaction_that_is_intent_and_start(
    make_path: MakePath,
) -> None:
    seen: list[RunState] = []

    async def answer(progress: Callable[[Progress], None]) -> dict[str, Any]:
        seen.extend(run.state for run in await path.ledger.runs())
        return RESULT

    path, watched = await reaching(make_path, Played(answer=answer))
    reply = await path.call("act")
    assert reply.decision["code"] == "ok"
    assert [grant.started for grant in watched.grants] == [True]
    assert seen == [RunState.STARTED]
    assert (await only_run(path)).state is RunState.SUCCEEDED
    assert (await path.events())[-3:] == ["decision", "call.intent", "call.outcome"]
    await assert_the_log_holds(path)


async def test_what_a_process_is_made_for_is_started_after_its_intent(make_path: MakePath) -> None:
    path, watched = await reaching(make_path, Played())
    await path.call("near")
    assert [grant.started for grant in watched.grants] == [False]


@pytest.mark.threat("T-10")
async def test_freeze_between_intent_and_asking_is_heeded(make_path: MakePath) -> None:
    async def freeze() -> None:
        await path.ledger.freeze(True, operator="olga", reason="drill", now_ms=0)

    played = Played()
    path, _ = await reaching(make_path, played, freeze)
    reply = await path.call("act")
    assert reply.decision["code"] == Code.FROZEN.value
    assert played.shown == []
    assert (await only_run(path)).state is RunState.NEVER_STARTED
    await assert_the_log_holds(path)


async def test_cancel_between_intent_and_asking_ends_the_read_unasked(make_path: MakePath) -> None:
    async def cancel() -> None:
        calling.cancel()
        await asyncio.sleep(0)  # the cancel has been asked for

    played = Played()
    path, _ = await reaching(make_path, played, cancel)
    calling = asyncio.ensure_future(path.call("look"))
    with pytest.raises(asyncio.CancelledError):
        await calling
    await path.pipeline.drain(5)
    assert played.shown == []
    run = await only_run(path)
    assert (run.state, run.code) == (RunState.NEVER_STARTED, Code.CANCELLED)


async def test_grant_that_is_carried_out_twice_asks_the_server_once(make_path: MakePath) -> None:
    played = Played()
    path, watched = await reaching(make_path, played)
    assert (await path.call("act")).decision["code"] == "ok"
    backends, (grant,) = path.pipeline.backends, watched.grants
    backends = replace(backends, runner=runner(played))  # one that never heard of this run
    result = await execute(
        backends,
        grant,
        gateway="gw",
        constraints=Constraints(),
        progress=path.heard,
        stop=Stop(),
        live=path.pipeline.live,
    )
    assert (result.ending, result.limits_hit) == (Ending.NOT_STARTED, ("grant_spent",))
    assert len(played.shown) == 1


@pytest.mark.parametrize(("tool", "left"), [("act", RunState.UNKNOWN), ("look", RunState.FAILED)])
async def test_what_a_crash_leaves_may_have_run_and_only_a_person_says_otherwise(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch, tool: str, left: RunState
) -> None:
    """The outcome is never written, as after a kill: the next start closes the run."""

    async def gone(*_: Any) -> int:
        raise LedgerFault(Code.LEDGER_UNAVAILABLE, "the test broke the ledger")

    played = Played()
    path, _ = await reaching(make_path, played)
    with monkeypatch.context() as broken:
        broken.setattr(path.ledger, "settle", gone)
        await path.call(tool)
    (closed,) = await recover(path.ledger, path.runner, path.clock)
    assert closed.state is RunState.STARTED
    assert (await only_run(path)).state is left
    await assert_the_log_holds(path)
    again = await path.call(tool)
    refused = left is RunState.UNKNOWN
    assert again.decision["code"] == ("outcome_unknown" if refused else "ok")
    assert len(played.shown) == (1 if refused else 2)
