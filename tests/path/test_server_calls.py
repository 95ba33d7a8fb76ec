"""Calls of MCP servers through the whole path: what each failure means for a read and for a write."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.app import sweep
from remit.backends import PathSettings
from remit.model import (
    Amount,
    Effect,
    Reply,
    ResultKind,
    SessionFacts,
    SessionMode,
    Tool,
    Upstream,
    Verdict,
)
from remit.pipeline import Pipeline
from remit.recovery import Sweeps, leftovers
from remit.testing.runner import NoopRunner
from remit.upstreams.runner import SessionSettings, UpstreamRunner
from tests.path.broken import assert_the_log_holds
from tests.path.conftest import ASK, OLGA, MakePath, Path_, tool
from tests.path.test_sweeps import GONE
from tests.upstreams.played import ECHO, OnCall, Program, digest, gives, reports_once
from tests.upstreams.test_runner import FAILURES, dies

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-40")]


def server_tool(name: str, effect: Effect, **more: Any) -> Tool:
    """The tool `echo` of a server, under this name."""
    upstream = Upstream(server="files", tool="echo", definition=digest(ECHO), **more)
    command = {"argv": ["/bin/files-server"]}
    limits = {"output_bytes": 4_096}
    made = tool(name, effect.value, command=command, limits=limits, consequence="")
    return replace(made, upstream=upstream, result=ResultKind.MCP)


TOOLS = [
    server_tool("look", Effect.READ),
    server_tool("act", Effect.WRITE),
    server_tool("look_kept", Effect.READ, session=SessionMode.SHARED),
    server_tool("act_kept", Effect.WRITE, session=SessionMode.SHARED),
]
MakeServed = Callable[[Program], Any]


@pytest.fixture
def served(make_path: MakePath) -> MakeServed:
    async def make(program: Program) -> Path_:
        path: Path_ = await make_path(tools=TOOLS)
        inner = NoopRunner(speaker=program)
        kept = SessionSettings(clock=path.clock, gateway="gw")
        runner = UpstreamRunner(inner, asked=None, seen=lambda server, items: None, sessions=kept)
        backends = replace(path.pipeline.backends, runner=runner)
        path.pipeline = Pipeline(backends, PathSettings(gateway="gw", hold_s=0))
        return path

    return make


def said(reply: Reply) -> str:
    return "".join(block.get("text", "") for block in json.loads(reply.content.text))


async def outcome(path: Path_) -> dict[str, Any]:
    return [each for each in await path.entries() if each["event"] == "call.outcome"][-1]


async def test_an_answer_comes_back_and_the_record_says_who_gave_it(served: MakeServed) -> None:
    path = await served(Program())
    reply = await path.call("act", service="a")
    assert not reply.is_error
    assert reply.structured is not None
    assert reply.structured.value() == {"service": "a"}
    entry = await outcome(path)
    assert (entry["state"], entry["ending"]) == ("succeeded", "answered")
    assert entry["runner"]["server"] == "files"
    assert entry["runner"]["revision"] == "2026-07-28"
    assert entry["destruction"]["complete"] is True


@pytest.mark.parametrize("name", FAILURES)
async def test_silence_after_the_question_fails_a_read_and_leaves_a_write_unknown(
    served: MakeServed, name: str
) -> None:
    on_call, code = FAILURES[name]
    path = await served(Program(on_call))
    read, write = await path.call("look"), await path.call("act")
    assert (read.decision["outcome"], read.decision["code"]) == ("failed", code.value)
    assert (write.decision["outcome"], write.decision["code"]) == ("unknown", code.value)
    assert "a person has to look" in said(write)
    again = await path.call("act")
    assert again.decision["code"] == "outcome_unknown"
    assert len(path.pipeline.backends.runner._inner.ran) == 2


@pytest.mark.parametrize("name", ["look", "act"])
async def test_a_tool_that_changed_is_not_called_and_nothing_is_unknown(
    served: MakeServed, name: str
) -> None:
    program = Program(tools=[ECHO | {"description": "Now it sends."}])
    path = await served(program)
    reply = await path.call(name)
    assert (reply.decision["outcome"], reply.decision["code"]) == ("failed", "tool_changed")
    assert "was not asked" in said(reply)
    assert "Now it sends" not in said(reply)
    assert program.calls == []


@pytest.mark.parametrize("name", ["look", "act"])
async def test_an_error_is_a_failure_in_the_servers_words(served: MakeServed, name: str) -> None:
    async def errs(server: Any, message: Any) -> None:
        await server.say(id=message["id"], error={"code": -32602, "message": "no such file"})

    reply = await (await served(Program(errs))).call(name)
    assert (reply.decision["outcome"], reply.decision["code"]) == ("failed", "upstream_error")
    assert "no such file" in said(reply)


async def test_a_write_whose_answer_is_too_large_happened(served: MakeServed) -> None:
    path = await served(Program(gives({"content": [{"type": "text", "text": "x" * 5_000}]})))
    reply = await path.call("act")
    assert (reply.decision["outcome"], reply.decision["code"]) == ("succeeded", "output_too_large")
    assert "larger than it may be" in said(reply)
    assert "xxx" not in said(reply)


async def test_what_a_server_logs_is_kept_for_operators_and_not_told(served: MakeServed) -> None:
    path = await served(Program(dies))
    reply = await path.call("look")
    assert "Traceback" not in said(reply)
    entry = await outcome(path)
    kept = await path.ledger.value(entry["commitments"]["stderr"])
    assert kept == b"Traceback: no such thing\n"


async def test_who_waits_hears_what_the_server_reports(served: MakeServed) -> None:
    path = await served(Program(reports_once))
    await path.call("look")
    assert path.heard.messages == ["half"]
    assert path.heard.amounts == [Amount(progress=1, total=2)]


_FORM = {"type": "object", "properties": {"name": {"type": "string"}}}
_ASKED = {
    "method": "elicitation/create",
    "params": {"mode": "form", "message": "Who?", "requestedSchema": _FORM},
}
ASKS_FOR_INPUT: OnCall = gives(
    {"resultType": "input_required", "requestState": "s", "inputRequests": {"who": _ASKED}}
)


@pytest.mark.parametrize("name", ["look", "act"])
async def test_a_server_that_wants_input_failed_with_a_reason(
    served: MakeServed, name: str
) -> None:
    reply = await (await served(Program(ASKS_FOR_INPUT))).call(name)
    assert (reply.decision["outcome"], reply.decision["code"]) == ("failed", "upstream_error")
    assert "asks for input" in said(reply)


# Sessions


@pytest.mark.threat("T-39")
async def test_the_record_names_the_session_of_each_call_and_tells_its_end_once(
    served: MakeServed,
) -> None:
    path = await served(Program())
    for service in ("a", "b"):
        assert not (await path.call("look_kept", service=service)).is_error
    told = [each for each in await path.entries() if each["event"] == "call.outcome"]
    [name] = {each["runner"]["session"] for each in told}
    for calls, each in enumerate(told, start=1):
        assert each["runner"]["session_age_ms"].isdigit()
        assert each["destruction"]["session"]["id"] == name
        assert each["destruction"]["session"]["calls"] == calls
        assert each["destruction"]["session"]["ended"] is None
    backends = path.pipeline.backends
    await backends.runner.aclose()
    sweeps = Sweeps(path.ledger)
    for _ in range(2):
        await sweep(backends, sweeps)
    [ended] = [each for each in await path.entries() if each["event"] == "runner.swept"]
    assert (ended["run"], ended["when"]) == (name, "session")
    assert ended["destruction"]["complete"] is True
    assert ended["destruction"]["session"]["calls"] == 2
    assert ended["destruction"]["session"]["ended"] == "the gateway ends"
    await assert_the_log_holds(path)


async def test_a_session_that_ended_whole_is_no_leftover() -> None:
    facts = SessionFacts(id="s", server="files", opened_ms=1, calls=1, ended="idle")
    whole = replace(GONE, session=facts)
    assert leftovers([GONE, whole, replace(whole, mounts_left=1)]) == [
        GONE,
        replace(whole, mounts_left=1),
    ]


@pytest.mark.threat("T-39")
async def test_what_changes_something_is_never_let_into_a_session(served: MakeServed) -> None:
    program = Program()
    path = await served(program)
    for service in ("a", "b"):
        await path.call("act_kept", service=service)
    assert len(program.servers) == 2
    assert "session" not in (await outcome(path))["runner"]


@pytest.mark.threat("T-39")
async def test_what_people_approved_is_never_let_into_a_session(served: MakeServed) -> None:
    program = Program()
    path = await served(program)
    await path.load(ASK)
    asked = await path.call("look_kept", service="a")
    approval = asked.decision["approval_id"]
    shown = await path.ledger.approval(approval)
    assert shown is not None
    await path.administration.vote(OLGA, approval, shown.plan_hash, Verdict.APPROVE, None)
    done = await path.call("look_kept", service="a")
    assert not done.is_error
    assert "session" not in (await outcome(path))["runner"]
