"""Asking first has no effect, says no more than a refusal would, and hides what is hidden."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from remit.errors import Refused
from remit.gateway import Gateway
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.records import read_export
from remit.ledger.verify import verify
from remit.model import Call, Caller, Claims, EntryDraft, Permission, Reply, RequestState
from remit.stages.asking import NO_PREVIEW, NO_PROMISE
from remit.testing.notify import KeptNotices
from tests.path.conftest import AGENT, ALLOW, ASK, HEAD, OLGA, MakePath, Path_, tool

pytestmark = pytest.mark.anyio

CAN_I = "remit_can_i"
REQUEST = "remit_request_access"
FORCE = HEAD + (
    'decision := answer("allow", {"constraints": {"arguments": {"force": {"count": 2}}}})\n'
)
NOTIFY = HEAD.replace(
    '"decision": "deny",',
    '"decision": "deny", "obligations": [{"id": "n", "type": "log", "properties": {}}],',
)


class Asker:
    """A gateway as a door sees it, and questions in a line."""

    def __init__(self, path: Path_) -> None:
        self.path = path
        self.gateway = Gateway(path.pipeline)

    async def call(self, name: str, caller: Caller = AGENT, **arguments: Any) -> Reply:
        call = Call(
            id=self.gateway.new_call_id(),
            caller=caller,
            tool_name=name,
            arguments=arguments,
            received_ms=self.path.clock.now_ms(),
            claims=Claims(),
        )
        reply: Reply = await self.gateway.call(call, self.path.heard)
        return reply

    async def can_i(self, tool: str, **arguments: Any) -> Reply:
        return await self.call(CAN_I, tool=tool, arguments=arguments)

    async def request(self, tool: str, reason: str = "I need it", **arguments: Any) -> Reply:
        return await self.call(REQUEST, tool=tool, reason=reason, arguments=arguments)

    async def pending(self) -> Sequence[Any]:
        states = frozenset({RequestState.PENDING})
        return await self.path.ledger.access_requests(states=states)


@pytest.fixture
def ask(make_path: MakePath) -> Any:
    async def make(rego: str = ALLOW, **settings: Any) -> Asker:
        return Asker(await make_path(rego, **settings))

    return make


def text(reply: Reply) -> str:
    return "\n".join(block["text"] for block in reply.content.value())


def said(reply: Reply) -> dict[str, Any]:
    assert reply.structured is not None
    found: dict[str, Any] = reply.structured.value()
    return found


def code(reply: Reply) -> str:
    return str(reply.decision["code"])


# ---------------------------------------------------------------------------------- what is said


async def test_allowed_call_is_called_allowed_and_not_promised(ask: Any) -> None:
    asker = await ask()
    reply = await asker.can_i("act", count=2)
    answer = said(reply)
    assert (answer["decision"], answer["tool"], answer["promise"]) == ("allow", "act", False)
    assert answer["reasons"] == ["a rule of the test"]
    assert "allow: policy allows this call now. a rule of the test. " in text(reply)
    assert NO_PROMISE in text(reply)
    assert not reply.is_error
    assert reply.decision["policy_revision"] == asker.path.policy.revision


async def test_denied_call_is_told_in_the_words_of_its_refusal(ask: Any) -> None:
    asker = await ask(HEAD)
    asked, called = await asker.can_i("act"), await asker.call("act")
    assert (said(asked)["decision"], said(asked)["code"]) == ("deny", "policy_denied")
    words = text(called).split(" [")[0]
    assert words in said(asked)["reasons"][0]
    assert "no rule allows this" in words
    assert not asked.is_error


@pytest.mark.threat("T-31")
async def test_call_that_needs_people_says_so_and_asks_none(ask: Any) -> None:
    asker = await ask(ASK)
    reply = await asker.can_i("act")
    assert said(reply)["decision"] == "require_approval"
    assert "a person must agree" in text(reply)
    assert "sre" not in text(reply)
    assert await asker.path.ledger.approvals() == []


async def test_arguments_that_policy_would_change_are_shown_changed(ask: Any) -> None:
    asker = await ask(FORCE)
    reply = await asker.can_i("act", service="web")
    assert said(reply)["arguments"] == {"count": 2, "service": "web"}
    widened = await asker.can_i("act", count=1)
    assert (said(widened)["decision"], said(widened)["code"]) == ("deny", "constraint_widens")


@pytest.mark.threat("T-31")
async def test_preview_is_not_run_and_the_answer_says_so(ask: Any) -> None:
    asker = await ask()
    reply = await asker.can_i("previewed")
    assert said(reply)["preview"] == "not_run"
    assert NO_PREVIEW in text(reply)
    assert asker.path.runner.told == []
    assert "preview" not in said(await asker.can_i("act"))


async def test_everything_frozen_is_the_answer(ask: Any) -> None:
    asker = await ask()
    await asker.path.administration.freeze(OLGA, True, "drill")
    reply = await asker.can_i("act")
    assert (said(reply)["decision"], said(reply)["code"]) == ("deny", "frozen")


async def test_policy_that_cannot_answer_is_no_answer(ask: Any) -> None:
    asker = await ask(HEAD + 'decision := "yes" if input.phase == "call"\n')
    reply = await asker.can_i("act")
    assert (said(reply)["decision"], code(reply)) == ("deny", "policy_bad_decision")
    broken = await ask(HEAD + 'decision := answer("allow", {"limits": to_number("x")})\n')
    reply = await broken.can_i("act")
    assert reply.jsonrpc_error == -32603
    assert code(reply) == code(await broken.call("act")) == "policy_error"


async def test_question_is_told_what_the_subject_did_before(ask: Any) -> None:
    asker = await ask(HEAD + 'decision := answer("allow", {}) if input.history.calls < 1\n')
    assert said(await asker.can_i("look"))["decision"] == "allow"
    assert said(await asker.can_i("look"))["decision"] == "allow"
    await asker.call("look")
    assert said(await asker.can_i("look"))["decision"] == "deny"


# ----------------------------------------------------------------------------------- no effect


@pytest.mark.threat("T-31")
async def test_a_question_leaves_no_intent_no_run_and_no_touch(ask: Any) -> None:
    for rego in (ALLOW, ASK, HEAD, FORCE, NOTIFY):
        asker = await ask(rego)
        for name in ("look", "act", "previewed", "destroy"):
            await asker.can_i(name)
        assert asker.path.runner.told == []
        assert await asker.path.ledger.runs() == []
        assert await asker.path.ledger.approvals() == []
        assert await asker.path.ledger.touches("test", "bot", since_ms=0) == []
        assert set(await asker.path.events()) <= {"gateway.activated", "question"}


@pytest.mark.threat("T-31")
async def test_no_intent_can_stand_on_the_answer_to_a_question(ask: Any) -> None:
    asker = await ask()
    await asker.can_i("act")
    (entry,) = [e for e in await asker.path.entries() if e["event"] == "question"]
    assert entry["verdict"] == "allow"
    called = await asker.call("act")
    assert called.decision["decision_id"] != entry["decision"]


# ------------------------------------------------------------------------------ what is hidden


@pytest.mark.threat("T-03")
@pytest.mark.threat("T-31")
@pytest.mark.parametrize("own", [CAN_I, REQUEST])
async def test_hidden_tool_is_asked_about_like_one_that_does_not_exist(ask: Any, own: str) -> None:
    asker = await ask()
    more = {"reason": "please"} if own == REQUEST else {}

    async def about(name: str) -> Reply:
        reply: Reply = await asker.call(own, tool=name, **more)
        return replace(reply, decision={**reply.decision, "tool": "…"})

    hidden, absent = await about("hidden"), await about("absent")
    assert text(hidden).replace("hidden", "absent") == text(absent)
    assert replace(hidden, content=absent.content) == absent
    called = await asker.call("hidden")
    assert called.jsonrpc_error == hidden.jsonrpc_error == -32602
    assert (called.content, called.structured) == (hidden.content, hidden.structured)
    assert await asker.pending() == []
    for entry in await asker.path.entries():
        if entry["event"] == "question":
            assert (entry["tool"], entry["code"]) == (None, "unknown_tool")


@pytest.mark.threat("T-03")
@pytest.mark.threat("T-31")
async def test_arguments_of_a_hidden_tool_are_not_even_looked_at(ask: Any) -> None:
    asker = await ask()
    reply = await asker.can_i("hidden", count="not a number")
    assert code(reply) == "unknown_tool"


async def test_own_tools_are_beside_what_a_caller_sees_in_order(ask: Any) -> None:
    asker = await ask()
    names = [tool.name for tool in await asker.gateway.visible(AGENT)]
    assert names == sorted(names)
    assert {CAN_I, REQUEST, "act"} <= set(names)
    assert "hidden" not in names
    first = await asker.gateway.visible(AGENT, after="look", enough=3)
    assert [t.name for t in first if t.name > "look"][:3] == ["previewed", CAN_I, REQUEST]


async def test_own_tools_ask_about_tools_of_the_catalog_only(ask: Any) -> None:
    asker = await ask()
    assert code(await asker.can_i(CAN_I)) == "unknown_tool"
    assert code(await asker.can_i("no_such_tool")) == "unknown_tool"


async def test_where_nothing_may_be_asked_the_tools_are_not_there(ask: Any) -> None:
    asker = await ask(HEAD, questions_per_minute=0)
    names = {tool.name for tool in await asker.gateway.visible(AGENT)}
    assert not {CAN_I, REQUEST} & names
    reply = await asker.can_i("act")
    assert (reply.jsonrpc_error, text(reply)) == (-32602, f"Unknown tool: {CAN_I}")
    assert REQUEST not in text(await asker.call("act"))


# ----------------------------------------------------------------------------- bounded, recorded


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"tool": 7},
        {"tool": "x" * 129},
        {"tool": "act", "arguments": []},
        {"tool": "act", "argument": {}},
        {"tool": "act", "reason": "this one takes none"},
    ],
)
async def test_malformed_question_is_refused(ask: Any, arguments: dict[str, Any]) -> None:
    asker = await ask()
    reply = await asker.call(CAN_I, **arguments)
    assert (code(reply), reply.is_error) == ("invalid_arguments", True)


async def test_wrong_arguments_of_the_tool_are_refused_as_in_a_call(ask: Any) -> None:
    asker = await ask()
    asked, called = await asker.can_i("act", count="x"), await asker.call("act", count="x")
    assert text(asked) == text(called)
    assert code(asked) == "invalid_arguments"


@pytest.mark.threat("T-31")
async def test_only_so_many_questions_a_minute(ask: Any) -> None:
    asker = await ask(questions=2)
    for _ in range(2):
        assert code(await asker.can_i("act")) == "ok"
    for late in (await asker.can_i("act"), await asker.request("act")):
        assert code(late) == "rate_limited"
        assert late.decision["retry_after_ms"] > 0
    assert code(await asker.call("act")) == "ok"


async def test_questions_past_the_recorded_rate_are_counted(ask: Any) -> None:
    asker = await ask(refusals=2)
    counted: list[tuple[str, str]] = []
    count = asker.path.ledger.count_refusal

    async def counting(source: str, code: str, now_ms: int) -> None:
        counted.append((source, code))
        await count(source, code, now_ms)

    asker.path.ledger.count_refusal = counting
    for _ in range(5):
        assert code(await asker.can_i("act")) == "ok"
    assert (await asker.path.events()).count("question") == 2
    assert counted == [(AGENT.id, "question")] * 3


@pytest.mark.threat("T-26")
async def test_what_was_asked_stands_in_the_log_only_as_commitments(ask: Any) -> None:
    asker = await ask(HEAD)
    await asker.can_i("act", service="name-only-the-caller-knows")
    await asker.can_i("hidden", service="name-only-the-caller-knows")
    await asker.request("act", reason="reason-of-the-caller", service="name-only-the-caller-knows")
    log = b"".join(entry.text for entry in await asker.path.ledger.entries(0, 100))
    assert b"name-only-the-caller-knows" not in log
    assert b"reason-of-the-caller" not in log


async def test_ledger_that_cannot_write_gives_no_answer(ask: Any) -> None:
    asker = await ask()

    async def broken(_: Sequence[EntryDraft]) -> Sequence[int]:
        raise OSError("disk on fire")

    asker.path.ledger.append = broken
    reply = await asker.can_i("act")
    assert (code(reply), reply.jsonrpc_error) == ("internal", -32603)


# -------------------------------------------------------------------------- requests for access


async def test_denied_agent_can_ask_a_person(ask: Any) -> None:
    asker = await ask(HEAD)
    refused = await asker.call("act", service="web")
    assert REQUEST in text(refused)
    reply = await asker.request("act", reason="the page is down", service="web")
    (request,) = await asker.pending()
    assert said(reply) == {"filed": True, "request": request.id, "state": "pending"}
    assert "a person will see it" in text(reply)
    assert (request.tool_name, request.reason) == ("act", "the page is down")
    assert request.arguments.value() == {"count": 1, "service": "web"}
    assert request.codes == ("no_rule",)
    (question,) = [e for e in await asker.path.entries() if e["event"] == "question"]
    assert question["decision"] == request.decision_id
    assert (await asker.path.events())[-2:] == ["question", "access.requested"]
    assert await asker.path.ledger.runs() == []


@pytest.mark.threat("T-31")
async def test_filing_a_request_grants_nothing(ask: Any) -> None:
    asker = await ask(HEAD)
    await asker.request("act")
    assert code(await asker.call("act")) == "policy_denied"
    (request,) = await asker.pending()
    await asker.path.ledger.close_request(request.id, operator="olga", note="", now_ms=1)
    assert code(await asker.call("act")) == "policy_denied"
    assert asker.path.runner.told == []


async def test_asking_twice_for_the_same_is_asking_once(ask: Any) -> None:
    asker = await ask(HEAD)
    first, again = await asker.request("act"), await asker.request("act", reason="PLEASE")
    assert said(first)["request"] == said(again)["request"]
    assert "waits already" in text(again)
    assert len(await asker.pending()) == 1
    await asker.request("act", count=2)
    assert len(await asker.pending()) == 2


async def test_what_policy_permits_is_not_asked_for(ask: Any) -> None:
    for rego, says in ((ALLOW, "allows this call"), (ASK, "once a person agrees")):
        asker = await ask(rego)
        reply = await asker.request("act")
        assert said(reply) == {"filed": False}
        assert says in text(reply)
        assert await asker.pending() == []


async def test_tool_can_be_asked_for_without_arguments(ask: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"service": {"type": "string"}, "count": {"type": "integer", "default": 1}},
        "required": ["service"],
    }
    asker = await ask(HEAD, tools=[tool("act", input_schema=schema)])
    reply = await asker.call(REQUEST, tool="act", reason="all of it")
    assert said(reply)["filed"] is True
    malformed = await asker.request("act", count="x")
    assert code(malformed) == "invalid_arguments"
    assert len(await asker.pending()) == 1


async def test_frozen_or_broken_is_nothing_to_ask_a_person_for(ask: Any) -> None:
    asker = await ask(HEAD)
    await asker.path.administration.freeze(OLGA, True, "drill")
    assert code(await asker.request("act")) == "frozen"
    assert await asker.pending() == []


async def test_fifty_requests_wait_at_most(ask: Any) -> None:
    asker = await ask(HEAD)
    for number in range(50):
        await asker.request("act", count=number)
    assert code(await asker.request("act", count=50)) == "rate_limited"
    assert len(await asker.pending()) == 50


# ------------------------------------------------------------------------- told to nobody, proved


@pytest.mark.threat("T-31")
async def test_nobody_is_told_of_what_is_only_asked(ask: Any) -> None:
    tell = {"id": "tell", "type": "notify", "properties": {"channel": "oncall", "message": "look"}}
    for verdict in ("allow", "deny"):
        notices = KeptNotices()
        rule = f'decision := answer("{verdict}", {{"obligations": [{json.dumps(tell)}]}})\n'
        asker = await ask(HEAD + rule, notifier=notices)
        assert said(await asker.can_i("act"))["decision"] == verdict
        await asker.path.pipeline.drain(5)
        assert notices.told == []
        await asker.call("act")
        await asker.path.pipeline.drain(5)
        assert len(notices.told) == 1


async def test_step_up_that_the_call_would_need_is_said_first(ask: Any) -> None:
    step_up = {"id": "s", "type": "step_up", "properties": {"acr": "high"}}
    rule = f'decision := answer("allow", {{"obligations": [{json.dumps(step_up)}]}})\n'
    asker = await ask(HEAD + rule)
    asked, called = await asker.can_i("act"), await asker.call("act")
    assert said(asked)["decision"] == "deny"
    assert said(asked)["code"] == code(called) == "step_up_required"


async def test_log_with_questions_and_requests_still_verifies(ask: Any) -> None:
    asker = await ask(HEAD)
    await asker.can_i("act")
    await asker.request("act")
    (request,) = await asker.pending()
    await asker.path.administration.close_request(OLGA, request.id, "no")
    await asker.path.load(ALLOW)
    assert code(await asker.call("act")) == "ok"
    await asker.path.ledger.checkpoint()
    key = VerifierKey.parse(asker.path.ledger.verifier_key)
    export = io.BytesIO(b"".join([line async for line in asker.path.ledger.export()]))
    report = verify(read_export(export), key)
    assert report.problem is None
    events = await asker.path.events()
    assert {"question", "access.requested", "access.closed", "call.outcome"} <= set(events)


async def test_only_an_operator_who_may_approve_closes_requests(ask: Any) -> None:
    asker = await ask(HEAD)
    await asker.request("act")
    (request,) = await asker.pending()
    reader = replace(OLGA, may=frozenset({Permission.READ}))
    administration = asker.path.administration
    assert list(await administration.access_requests(reader, None, 9)) == [request]
    with pytest.raises(Refused) as caught:
        await administration.close_request(reader, request.id, "no")
    assert caught.value.code.value == "approval_not_eligible"
    with pytest.raises(Refused):
        await administration.access_requests(replace(OLGA, may=frozenset()), None, 9)
