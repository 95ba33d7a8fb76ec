"""Whatever fails, and wherever: nothing is allowed by it, lost by it, or left behind by it.

Each method of the ledger, the runner and the policy fails in turn, in every way it may and in one
that it may not. What is asserted does not depend on which it was.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.app import housekeep, sweep
from remit.catalog.arguments import SchemaCheck
from remit.errors import Code, LedgerFault, PolicyFault, Refused, RunnerFault
from remit.model import Ending, Reply, RunResult, RunSpec, RunState, Verdict
from remit.recovery import Sweeps
from remit.testing.scripted import ends
from tests.path.broken import (
    Broken,
    Raises,
    assert_nothing_is_held,
    assert_the_log_holds,
    break_backend,
    decisions,
    main_starts,
    said,
)
from tests.path.conftest import ALLOW, ASK, OLGA, MakePath, Path_, tool

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FAULTS: dict[str, Raises] = {
    "unavailable": lambda: LedgerFault(Code.LEDGER_UNAVAILABLE, "the test broke the ledger"),
    "full": lambda: LedgerFault(Code.LEDGER_FULL, "the test filled the ledger"),
    "unforeseen": lambda: RuntimeError("the test broke something else"),
}
RUNNER_FAULTS: dict[str, Raises] = {
    "fault": lambda: RunnerFault(Code.RUNNER_UNAVAILABLE, "the test broke it", place="/host/path"),
    "started": lambda: RunnerFault(Code.RUNNER_UNAVAILABLE, "lost on the way", started=True),
    "unforeseen": lambda: OSError("the test broke something else"),
}
READS = ("frozen", "repeat", "plan_text", "receipt", "approval_for", "approvals_of", "approval")
WRITES = ("open_approval", "commit_intent", "start", "settle", "append")
CALLS = ("look", "act", "destroy", "previewed")

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_BLOCK = st.dictionaries(
    st.sampled_from(["type", "text", "data", "mimeType", "uri", "resource", "_meta", "name"]),
    st.sampled_from(["text", "image", "resource", "resource_link", "\ud83d", "a:b"]) | _JSON,
)
HOSTILE = st.one_of(
    _JSON,
    st.fixed_dictionaries(
        {"content": st.lists(_BLOCK, max_size=3)},
        optional={"structuredContent": _JSON, "isError": _JSON, "_meta": _JSON},
    ),
    st.integers(1, 4000).map(lambda depth: "[" * depth),
).map(lambda value: value.encode() if isinstance(value, str) else json.dumps(value).encode())
"""JSON of every kind, and what is nearly a tool result."""


@pytest.fixture
async def shared(make_path: MakePath) -> Path_:
    made: Path_ = await make_path(ALLOW)
    return made


async def approved(path: Path_, name: str) -> None:
    """Ask for the call and agree to it, with everything whole."""
    first = await path.call(name)
    approval = await path.administration.approval(OLGA, first.decision["approval_id"])
    await path.administration.vote(OLGA, approval.id, approval.plan_hash, Verdict.APPROVE, None)


async def assert_whole_again(path: Path_, broken: Broken, reply: Reply, before: int) -> None:
    """What must hold after any fault, and once it is mended."""
    ran = main_starts(path) - before
    assert ran <= 1
    if ran:
        assert "nothing ran" not in said(reply)
        assert reply.decision["code"] in ("ok", "outcome_unknown", "run_failed")
        assert reply.decision["run_id"]
    elif reply.decision["code"] == "ok":
        raise AssertionError("a call that did not run was answered as if it had")
    assert "/host/path" not in said(reply)
    assert "the test broke" not in said(reply)
    assert_nothing_is_held(path)
    await assert_the_log_holds(path)
    broken.mend()
    assert (await path.call("look", service="after")).decision["code"] in (
        "ok",
        "approval_required",
    )


@pytest.mark.threat("T-14")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", READS + WRITES)
async def test_ledger_that_fails_at_any_step_lets_nothing_run_unrecorded(
    make_path: MakePath, method: str, name: str, fault: str
) -> None:
    path = await make_path(ALLOW)
    broken = break_backend(path, "ledger", method, FAULTS[fault])
    reply = await path.call(name)
    still_open = [run for run in await path.ledger.runs() if run.state.open]
    assert not still_open or method == "settle"
    await assert_whole_again(path, broken, reply, 0)


@pytest.mark.threat("T-14")
@pytest.mark.parametrize("method", READS + WRITES)
@pytest.mark.parametrize("name", ["act", "previewed"])
async def test_ledger_that_fails_on_the_way_through_an_approval_loses_no_decision(
    make_path: MakePath, method: str, name: str
) -> None:
    path = await make_path(ASK)
    broken = break_backend(path, "ledger", method, FAULTS["unavailable"], times=1)
    asked = 0
    evaluate = path.policy.decide

    async def counted(*values: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return await evaluate(*values, **named)

    path.policy.decide = counted
    first = await path.call(name)
    assert main_starts(path) == 0
    if method != "append":  # then there was nowhere to write them
        assert len(await decisions(path)) == asked
    broken.mend()
    if first.decision["code"] != "approval_required":
        first = await path.call(name)
    approval = await path.administration.approval(OLGA, first.decision["approval_id"])
    await path.administration.vote(OLGA, approval.id, approval.plan_hash, Verdict.APPROVE, None)
    broken = break_backend(path, "ledger", method, FAULTS["unavailable"], times=1)
    second = await path.call(name)
    await assert_whole_again(path, broken, second, 0)


@pytest.mark.threat("T-15")
@pytest.mark.parametrize("fault", ["unavailable", "unforeseen"])
async def test_outcome_that_cannot_be_written_is_answered_as_unknown_and_refuses_the_same_call(
    make_path: MakePath, fault: str
) -> None:
    path = await make_path()
    broken = break_backend(path, "ledger", "settle", FAULTS[fault], times=1)
    first = await path.call("act")
    assert first.decision["code"] == "outcome_unknown"
    assert first.is_error
    (run,) = await path.ledger.runs()
    assert first.decision["run_id"] == run.id
    broken.mend()
    assert (await path.call("act")).decision["code"] == "outcome_unknown"
    assert main_starts(path) == 1


@pytest.mark.threat("T-18")
@pytest.mark.parametrize("fault", RUNNER_FAULTS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", ["provision", "start", "stream", "collect", "destroy"])
async def test_runner_that_fails_at_any_step_leaves_no_open_run_and_no_runner(
    make_path: MakePath, method: str, name: str, fault: str
) -> None:
    path = await make_path(ALLOW)
    path.runner.behave = ends(b"fine")
    broken = break_backend(path, "runner", method, RUNNER_FAULTS[fault], after=method == "destroy")
    reply = await path.call(name)
    assert not [run for run in await path.ledger.runs() if run.state.open]
    await assert_whole_again(path, broken, reply, 0)


@pytest.mark.threat("T-15")
@pytest.mark.parametrize("fault", RUNNER_FAULTS)
async def test_runner_that_cannot_be_destroyed_does_not_undo_what_ran(
    make_path: MakePath, fault: str
) -> None:
    path = await make_path()
    path.runner.behave = ends(b"fine")
    break_backend(path, "runner", "destroy", RUNNER_FAULTS[fault])
    reply = await path.call("act")
    assert reply.decision["code"] == "ok"
    (run,) = await path.ledger.runs()
    assert run.state is RunState.SUCCEEDED
    outcome = (await path.entries())[-1]
    assert outcome["event"] == "call.outcome"
    assert outcome["destruction"]["complete"] is False


@pytest.mark.threat("T-15")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", ["started", "unforeseen"])
async def test_start_that_may_have_happened_leaves_the_outcome_unknown(
    make_path: MakePath, fault: str, after: bool
) -> None:
    path = await make_path()
    break_backend(path, "runner", "start", RUNNER_FAULTS[fault], after=after)
    reply = await path.call("act")
    assert reply.decision["code"] == "outcome_unknown"
    (run,) = await path.ledger.runs()
    assert run.state is RunState.UNKNOWN


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("method", ["decide", "visible"])
@pytest.mark.parametrize("name", CALLS)
async def test_policy_that_raises_lets_nothing_run(
    make_path: MakePath, method: str, name: str
) -> None:
    path = await make_path(ALLOW)

    def raises() -> Exception:
        return PolicyFault(Code.POLICY_ERROR, "the test broke policy")

    break_backend(path, "policy", method, raises)
    reply = await path.call(name)
    assert reply.is_error
    assert path.runner.told == []
    assert "the test broke" not in said(reply)
    assert_nothing_is_held(path)
    assert "call.refused" in await path.events()


@pytest.mark.threat("T-18")
@pytest.mark.parametrize("fault", RUNNER_FAULTS)
async def test_stop_that_fails_does_not_hold_the_slot(make_path: MakePath, fault: str) -> None:
    path = await make_path()
    end = asyncio.Event()

    async def behave(_: RunSpec) -> RunResult:
        await end.wait()
        return RunResult(ending=Ending.EXIT, exit_code=0)

    path.runner.behave = behave
    broken = break_backend(path, "runner", "stop", RUNNER_FAULTS[fault])
    call = asyncio.ensure_future(path.call("look"))
    async with asyncio.timeout(10):
        while path.runner.times("start") == 0:
            await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        while not broken.hits:
            await asyncio.sleep(0)
    end.set()
    await path.pipeline.drain(5)
    assert_nothing_is_held(path)
    assert not [run for run in await path.ledger.runs() if run.state.open]


async def test_refusal_that_cannot_be_written_is_still_answered(make_path: MakePath) -> None:
    path = await make_path()
    for method in ("append", "count_refusal"):
        for fault in FAULTS.values():
            break_backend(path, "ledger", method, fault)
            reply = await path.call("act", count="not a number")
            assert reply.decision["code"] == "invalid_arguments"


@pytest.mark.threat("T-18")
async def test_refused_start_is_recorded_as_never_started(make_path: MakePath) -> None:
    path = await make_path()
    break_backend(path, "ledger", "start", lambda: Refused(Code.FROZEN, "everything is frozen"))
    reply = await path.call("act")
    assert "nothing ran" in said(reply)
    (run,) = await path.ledger.runs()
    assert run.state is RunState.NEVER_STARTED
    assert path.runner.times("start") == 0


# ------------------------------------------------------------------------------ hostile output


@pytest.mark.threat("T-25")
async def test_preview_whose_output_was_cut_plans_nothing(make_path: MakePath) -> None:
    """A preview can end before it is killed for its flood; its digest would bind a part."""
    path = await make_path(ALLOW)

    async def behave(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.EXIT, exit_code=0, stdout=b"same", stdout_truncated=True)

    path.runner.behave = behave
    reply = await path.call("previewed")
    assert reply.decision["code"] == "preview_failed"
    assert main_starts(path) == 0


@pytest.mark.threat("T-23")
@pytest.mark.parametrize("name", ["look", "as_json"])
async def test_output_that_was_cut_is_not_given_as_if_it_were_whole(
    make_path: MakePath, name: str
) -> None:
    path = await make_path()

    async def behave(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.EXIT, exit_code=0, stdout=b'{"n": 1}', stdout_truncated=True)

    path.runner.behave = behave
    reply = await path.call(name)
    assert reply.decision["code"] == "output_too_large"
    assert reply.is_error
    (run,) = await path.ledger.runs()
    assert run.state is RunState.SUCCEEDED


@pytest.mark.threat("T-23")
async def test_output_that_a_pattern_would_take_hours_over_is_checked_in_no_time() -> None:
    check = SchemaCheck()
    slow = tool(
        "slow",
        result="json",
        output_schema={
            "type": "object",
            "properties": {"n": {"type": "string", "pattern": "^(a+)+$"}},
        },
    )
    assert check.fits(slow, {"n": "aaaa"})
    assert not check.fits(slow, {"n": "a" * 60 + "b"})
    assert not check.fits(slow, [])


@pytest.mark.threat("T-23")
@pytest.mark.parametrize("name", ["look", "as_json", "as_mcp"])
async def test_no_kind_of_result_carries_controls_or_credentials(
    make_path: MakePath, name: str
) -> None:
    path = await make_path()
    key = "remit_agent_" + "A" * 43
    said_by_tool = f"\x1b[2J\x9b {key}"
    printed = {
        "look": said_by_tool,
        "as_json": json.dumps({"n": said_by_tool, key: [key]}),
        "as_mcp": json.dumps(
            {
                "content": [
                    {"type": "text", "text": said_by_tool},
                    {"type": "resource", "resource": {"uri": "a:b", "text": key}},
                ],
                "structuredContent": {"n": [{"deep": key}]},
            }
        ),
    }
    path.runner.behave = ends(printed[name].encode())
    reply = await path.call(name)
    assert reply.decision["code"] == "ok"
    blocks = json.loads(reply.content.text)
    shown = "".join(block.get("text", "") for block in blocks)
    assert not {"\x1b", "\x9b"} & set(shown)
    assert key.encode() not in reply.content.text
    assert reply.structured is None or key.encode() not in reply.structured.text
    if name == "as_json":
        assert reply.structured is not None
        assert json.loads(shown) == reply.structured.value()


@pytest.mark.threat("T-23")
@pytest.mark.parametrize("name", ["as_json", "as_mcp", "look"])
@given(output=st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | HOSTILE)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_output_whatever_leaves_a_run_without_its_outcome(
    shared: Path_, name: str, output: bytes
) -> None:
    shared.runner.behave = ends(output)
    reply = await shared.call(name)
    assert reply.decision["code"] in ("ok", "output_invalid")
    assert not [run for run in await shared.ledger.runs(limit=1) if run.state.open]


# ------------------------------------------------------------------------------- housekeeping


@pytest.mark.threat("T-18")
@pytest.mark.parametrize(
    "fault", [*FAULTS.values(), *RUNNER_FAULTS.values()], ids=[*FAULTS, *RUNNER_FAULTS]
)
async def test_housekeeping_that_fails_once_goes_on(make_path: MakePath, fault: Raises) -> None:
    """A spawner that ends during a sweep must not be the last sweep of this gateway's life."""
    path = await make_path()
    broken = break_backend(path, "runner", "sweep", fault, times=1)
    await housekeep(partial(sweep, path.pipeline.backends, Sweeps(path.ledger)))
    assert broken.hits == 1
    with pytest.raises(asyncio.CancelledError):  # only its own end is not survived
        await housekeep(_cancelled)


async def _cancelled() -> None:
    raise asyncio.CancelledError
