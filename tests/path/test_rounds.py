"""A server asks its caller while a call is made: the state that comes back, and what it opens."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.backends import PathSettings
from remit.canonical import encode
from remit.model import (
    Actor,
    Call,
    Caller,
    CallerKind,
    Ending,
    Frozen,
    Reply,
    RunResult,
    RunSpec,
    Tool,
    Upstream,
    Verdict,
)
from remit.pipeline import Pipeline
from remit.stages import rounds
from tests.path.conftest import AGENT, ALLOW, ASK, HEAD, OLGA, Heard, MakePath, Path_, tool
from tests.path.test_path import code

pytestmark = pytest.mark.anyio

FORM = Frozen(encode({"elicitation": {"form": {}}}))
NAME: dict[str, Any] = {
    "method": "elicitation/create",
    "params": {
        "mode": "form",
        "message": "Your name?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
ALICE = {"who": {"action": "accept", "content": {"name": "Alice"}}}
MALLORY = {"who": {"action": "accept", "content": {"name": "Mallory"}}}
OTHER_CHAIN = replace(AGENT, chain=(Actor(subject="eve", kind=CallerKind.HUMAN),))
TOKEN = "remit_k1_" + "a1B2" * 8
DENY = HEAD + 'decision := answer("deny", {})\n'


def served(name: str, effect: str = "read", **more: Any) -> Tool:
    """A tool of a server."""
    made = tool(name, effect, result="mcp", command={"argv": ["/bin/server"]}, **more)
    upstream = Upstream(server="files", tool=name, definition="sha256:0")
    return replace(made, upstream=upstream, digest=f"sha256:{name}")


def keyed(name: str, header: str) -> Tool:
    """A tool of a server that is shown its credential in this header."""
    made = served(name)
    assert made.upstream is not None
    return replace(made, upstream=replace(made.upstream, header=header))


TOOLS = [
    served("look"),
    served("see"),
    served("act", "write"),
    tool("own", "read"),
    keyed("keyed", "X-Api-Key: {token}"),
]

Behave = Callable[[RunSpec], Awaitable[RunResult]]


def result(value: Any) -> RunResult:
    return RunResult(ending=Ending.ANSWERED, stdout=encode(value))


def question(*, state: str | None = "own", **requests: Any) -> RunResult:
    asked = {"resultType": "input_required", "inputRequests": requests or {"who": NAME}}
    return result({**asked, "requestState": state})


class Server:
    """Asks for a name, and greets by it."""

    def __init__(self) -> None:
        self.asked: list[RunSpec] = []

    async def __call__(self, spec: RunSpec) -> RunResult:
        self.asked.append(spec)
        assert spec.upstream is not None
        found = spec.upstream.round
        if found is None:
            return question()
        return result({"content": [{"type": "text", "text": found.answers.text.decode()}]})


class Asking:
    """A pipeline with such a server behind it."""

    def __init__(self, path: Path_, behave: Behave) -> None:
        self.path = path
        self.pipeline = path.pipeline
        path.runner.behave = behave

    async def call(
        self,
        name: str = "look",
        *,
        state: str | None = None,
        answers: Any = None,
        caller: Caller = AGENT,
        key: str | None = None,
        **arguments: Any,
    ) -> Reply:
        clock = self.path.clock
        call = Call(
            id=clock.new_id("call"),
            caller=caller,
            tool_name=name,
            arguments=arguments,
            received_ms=clock.now_ms(),
            idempotency_key=key,
            capabilities=FORM,
            answers=answers,
            request_state=state,
        )
        return await self.pipeline.call(call, Heard())

    async def state(self, name: str = "look", **more: Any) -> str:
        """Make a call, and give the state of the question that it is answered with."""
        reply = await self.call(name, **more)
        assert reply.question is not None, reply
        return reply.question.state


async def asking(
    make_path: MakePath, rego: str = ALLOW, behave: Behave | None = None, **more: Any
) -> Asking:
    return Asking(await make_path(rego, tools=TOOLS, **more), behave or Server())


async def test_a_question_is_passed_on_as_whose_it_is_and_its_answer_reaches_the_server(
    make_path: MakePath,
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    first = await it.call(service="web")
    assert first.question is not None
    (asked,) = first.question.requests.value().items()
    assert asked[0] == "who"
    assert asked[1]["params"]["message"] == "The MCP server files asks: Your name?"
    assert asked[1]["params"]["requestedSchema"] == NAME["params"]["requestedSchema"]
    assert "own" not in first.question.state
    second = await it.call(service="web", state=first.question.state, answers=ALICE)
    assert (code(second), second.question) == ("ok", None)
    one, two = (spec.upstream for spec in server.asked)
    assert one is not None
    assert two is not None
    assert two.arguments == one.arguments
    assert (one.round, one.capabilities) == (None, FORM)
    assert two.round is not None
    assert (two.round.answers.value(), two.round.state, two.round.number) == (ALICE, "own", 1)


async def test_the_plan_the_digest_and_the_sealed_log_have_what_was_answered(
    make_path: MakePath,
) -> None:
    it = await asking(make_path)
    first = await it.call()
    assert first.question is not None
    second = await it.call(state=first.question.state, answers=ALICE)
    entries = await it.path.entries()
    before, after = (each for each in entries if each["event"] == "decision")
    assert before["call_digest"] != after["call_digest"]
    assert "round" not in before
    assert after["round"] == {"number": 1, "run": first.decision["run_id"]}
    assert "Alice" not in json.dumps(entries)
    stored = await it.path.ledger.value(after["commitments"]["answers"])
    assert stored is not None
    assert json.loads(stored) == ALICE
    plan = await it.path.ledger.plan_text(second.decision["plan_hash"])
    assert json.loads(plan or b"")["upstream"]["round"]["answers"] == ALICE


async def test_a_plan_has_the_header_in_which_its_server_is_shown_a_credential(
    make_path: MakePath,
) -> None:
    async def plain(_: RunSpec) -> RunResult:
        return result({"content": []})

    it = await asking(make_path, behave=plain)
    found = []
    for name in ("look", "keyed"):
        plan_hash = (await it.path.call(name)).decision["plan_hash"]
        plan = await it.path.ledger.plan_text(plan_hash) or b""
        found.append(json.loads(plan)["upstream"].get("header"))
    assert found == [None, "X-Api-Key: {token}"]


async def test_a_plan_of_a_caller_that_cannot_be_asked_is_as_it_was(make_path: MakePath) -> None:
    async def plain(_: RunSpec) -> RunResult:
        return result({"content": []})

    it = await asking(make_path, behave=plain)
    reply = await it.path.call("look")
    plan = await it.path.ledger.plan_text(reply.decision["plan_hash"])
    assert not {"capabilities", "round"} & json.loads(plan or b"")["upstream"].keys()


def tampered(state: str) -> str:
    data = bytearray(base64.urlsafe_b64decode(state[3:] + "=="))
    data[-1] ^= 1
    return state[:3] + base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.threat("T-47")
@pytest.mark.parametrize(
    "forged",
    [
        tampered,
        lambda state: state + "-TAMPERED",
        lambda state: state[3:],
        lambda state: state[:-8],
        lambda state: state[:10] + "!" + state[10:],
        lambda state: state + "==",
        lambda _: "",
        lambda _: "r1.",
        lambda _: "r1." + "A" * 200,
        lambda _: "r1." + "A" * 100_000,
        lambda _: "r1.\u00e9",
        lambda _: "own",
    ],
)
async def test_a_state_that_was_never_given_is_refused_before_anything_runs(
    make_path: MakePath, forged: Callable[[str], str]
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state()
    reply = await it.call(state=forged(state), answers=ALICE)
    assert (code(reply), reply.jsonrpc_error) == ("input_state_invalid", -32602)
    assert len(server.asked) == 1
    assert code(await it.call(state=state, answers=ALICE)) == "ok"


@pytest.mark.threat("T-48")
async def test_a_state_of_another_caller_or_another_chain_is_refused(make_path: MakePath) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state()
    others = [OTHER_CHAIN, replace(AGENT, subject="eve"), replace(AGENT, tenant="other")]
    for other in others:
        reply = await it.call(state=state, answers=ALICE, caller=other)
        assert (code(reply), reply.jsonrpc_error) == ("input_state_foreign", -32602)
    assert len(server.asked) == 1


@pytest.mark.threat("T-48")
@pytest.mark.parametrize(
    ("name", "arguments"), [("look", {"service": "db"}), ("see", {}), ("own", {})]
)
async def test_a_state_of_another_tool_or_other_arguments_is_refused(
    make_path: MakePath, name: str, arguments: Any
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state()
    reply = await it.call(name, state=state, answers=ALICE, **arguments)
    assert (code(reply), reply.jsonrpc_error) == ("input_state_mismatch", -32602)
    assert len(server.asked) == 1


@pytest.mark.threat("T-48")
async def test_an_answer_that_comes_too_late_is_refused(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "ANSWER_WITHIN_MS", 0)
    it = await asking(make_path)
    reply = await it.call(state=await it.state(), answers=ALICE)
    assert (code(reply), reply.jsonrpc_error) == ("input_state_expired", -32602)


@pytest.mark.threat("T-48")
@pytest.mark.parametrize("name", ["look", "act"])
@pytest.mark.parametrize("again", [ALICE, MALLORY])
async def test_a_question_is_answered_once_also_across_a_restart(
    make_path: MakePath, name: str, again: Any
) -> None:
    server = Server()
    key = bytes(range(32))
    it = await asking(make_path, behave=server, state_key=key)
    state = await it.state(name)
    assert code(await it.call(name, state=state, answers=ALICE)) == "ok"
    restarted = PathSettings(gateway="gw", hold_s=0, state_key=key)
    for pipeline in (it.pipeline, Pipeline(it.path.pipeline.backends, restarted)):
        it.pipeline = pipeline
        reply = await it.call(name, state=state, answers=again)
        assert (code(reply), reply.jsonrpc_error) == ("input_state_spent", -32602)
    assert len(server.asked) == 2
    another = PathSettings(gateway="gw", hold_s=0)
    it.pipeline = Pipeline(it.path.pipeline.backends, another)
    assert code(await it.call(name, state=state, answers=again)) == "input_state_invalid"


@pytest.mark.threat("T-48")
@pytest.mark.parametrize("name", ["look", "act"])
async def test_answers_that_come_at_once_reach_the_server_once(
    make_path: MakePath, name: str
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state(name)
    given = [ALICE, ALICE, MALLORY, ALICE]
    replies = await asyncio.gather(*(it.call(name, state=state, answers=one) for one in given))
    assert {code(each) for each in replies} == {"ok", "input_state_spent"}
    assert len({each.content for each in replies if code(each) == "ok"}) == 1
    assert len(server.asked) == 2


async def test_policy_decides_on_the_answered_call_again_and_a_refused_one_spends_nothing(
    make_path: MakePath,
) -> None:
    it = await asking(make_path)
    state = await it.state()
    await it.path.load(DENY)
    assert code(await it.call(state=state, answers=ALICE)) == "policy_denied"
    await it.path.load(ALLOW)
    assert code(await it.call(state=state, answers=ALICE)) == "ok"


async def test_policy_may_go_by_the_answers_and_by_whether_anybody_asked(
    make_path: MakePath,
) -> None:
    rego = HEAD + (
        'decision := answer("deny", {}) if input.answers.given.who.content.name == "Mallory"\n'
        'else := answer("deny", {}) if { count(input.answers.given) > 0; input.answers.round == 0 }\n'
        'else := answer("allow", {})\n'
    )
    server = Server()
    it = await asking(make_path, rego, behave=server)
    assert code(await it.call(answers=ALICE)) == "policy_denied"
    state = await it.state()
    assert code(await it.call(state=state, answers=MALLORY)) == "policy_denied"
    assert len(server.asked) == 1
    assert code(await it.call(state=state, answers=ALICE)) == "ok"
    entries = await it.path.entries()
    assert not any(name in json.dumps(entries) for name in ("Alice", "Mallory"))
    asked = [each for each in entries if each["event"] == "decision"][-1]
    document = json.loads(await it.path.ledger.value(asked["commitments"]["input"]) or b"")
    assert document["answers"] == {"round": 1, "given": ALICE}


async def test_people_agree_to_each_round_anew(make_path: MakePath) -> None:
    server = Server()
    it = await asking(make_path, ASK, behave=server)

    async def agreed(**more: Any) -> Reply:
        waits = await it.call("act", **more)
        assert code(waits) == "approval_required"
        name, plan = waits.decision["approval_id"], waits.decision["plan_hash"]
        approval = await it.path.administration.approval(OLGA, name)
        assert approval.shown.value().get("answers") == more.get("answers")
        await it.path.administration.vote(OLGA, name, plan, Verdict.APPROVE, None)
        return await it.call("act", **more)

    first = await agreed()
    assert first.question is not None
    repeated = await it.call("act")
    assert repeated.replayed
    assert repeated.question is not None
    assert repeated.question.requests == first.question.requests
    assert code(await agreed(state=repeated.question.state, answers=ALICE)) == "ok"
    assert len(server.asked) == 2
    spent = await it.call("act", state=first.question.state, answers=ALICE)
    assert code(spent) == "input_state_spent"


async def test_a_key_that_a_client_sends_with_every_round_confuses_none(
    make_path: MakePath,
) -> None:
    it = await asking(make_path)
    state = await it.state("act", key="k")
    repeated = await it.call("act", key="k")
    assert repeated.replayed
    assert repeated.question is not None
    assert code(await it.call("act", key="k", state=state, answers=ALICE)) == "ok"


async def test_an_answered_write_of_unknown_outcome_is_not_done_again_by_being_asked_anew(
    make_path: MakePath,
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state("act")

    async def lost(spec: RunSpec) -> RunResult:
        server.asked.append(spec)
        return RunResult(ending=Ending.LOST)

    it.path.runner.behave = lost
    assert code(await it.call("act", state=state, answers=ALICE)) == "outcome_unknown"
    it.path.runner.behave = server
    assert code(await it.call("act", state=state, answers=ALICE)) == "outcome_unknown"
    anew = await it.state("act")
    assert code(await it.call("act", state=anew, answers=ALICE)) == "outcome_unknown"
    assert len(server.asked) == 3
    assert code(await it.call("act", state=anew, answers=MALLORY)) == "ok"


async def test_two_calls_that_are_asked_and_answered_alike_are_two_calls(
    make_path: MakePath,
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    states = [await it.state("act"), await it.state("act")]
    runs = [await it.call("act", state=state, answers=ALICE) for state in states]
    assert [code(each) for each in runs] == ["ok", "ok"]
    assert len({each.decision["run_id"] for each in runs}) == 2
    assert not any(each.replayed for each in runs)
    assert len(server.asked) == 4


async def test_a_run_that_never_started_spends_no_answer(make_path: MakePath) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state()

    async def not_started(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.NOT_STARTED)

    it.path.runner.behave = not_started
    assert code(await it.call(state=state, answers=ALICE)) == "runner_unavailable"
    it.path.runner.behave = server
    assert code(await it.call(state=state, answers=ALICE)) == "ok"


async def test_a_server_may_ask_again_but_not_for_ever(make_path: MakePath) -> None:
    async def always(_: RunSpec) -> RunResult:
        return question()

    it = await asking(make_path, behave=always)
    state, states = await it.state(), set()
    for _ in range(rounds.MAX_ROUNDS):
        states.add(state)
        reply = await it.call(state=state, answers=ALICE)
        assert reply.question is not None
        state = reply.question.state
    assert len(states) == rounds.MAX_ROUNDS
    last = await it.call(state=state, answers=ALICE)
    assert (code(last), last.is_error) == ("upstream_error", True)


async def test_answers_to_what_nobody_asked_are_for_the_server_to_judge(
    make_path: MakePath,
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    assert code(await it.call(answers=ALICE)) == "ok"
    assert server.asked[0].upstream is not None
    assert server.asked[0].upstream.round is not None
    assert server.asked[0].upstream.round.state is None

    async def plain(_: RunSpec) -> RunResult:
        return result({"content": []})

    it.path.runner.behave = plain
    assert code(await it.call("own", answers=ALICE)) == "ok"
    told = [each for each in await it.path.entries() if each["event"] == "decision"]
    assert ["round" in each for each in told] == [True, False]


@pytest.mark.parametrize(
    "answers",
    [
        {"who": 12345},
        {"who": {"action": "yes"}},
        {"who": {"action": "accept", "content": {"name": {"deep": 1}}}},
        {"who": {"action": "accept", "content": [1]}},
        {"who": {"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"}},
        {"who": {"action": "accept", "content": {"name": "x" * 70_000}}},
        {str(number): {"action": "decline"} for number in range(33)},
    ],
)
async def test_what_is_no_answer_is_refused_before_anything_runs(
    make_path: MakePath, answers: Any
) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    state = await it.state()
    assert code(await it.call(state=state, answers=answers)) == "invalid_arguments"
    assert len(server.asked) == 1


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_that_a_person_declined_is_an_answer_too(make_path: MakePath, action: str) -> None:
    server = Server()
    it = await asking(make_path, behave=server)
    answers = {"who": {"action": action}}
    assert code(await it.call(state=await it.state(), answers=answers)) == "ok"
    assert server.asked[1].upstream is not None
    assert server.asked[1].upstream.round is not None
    assert server.asked[1].upstream.round.answers.value() == answers


def page(url: str, message: str = "Sign in") -> dict[str, Any]:
    params = {"mode": "url", "message": message, "url": url}
    return {"method": "elicitation/create", "params": params}


@pytest.mark.threat("T-49")
async def test_a_question_says_whose_page_it_opens_and_hides_nothing_in_its_words(
    make_path: MakePath,
) -> None:
    async def asks(_: RunSpec) -> RunResult:
        told = "Remit\u202e asks " + TOKEN
        return question(page=page("https://crm.example/login?x=1", told))

    it = await asking(make_path, behave=asks)
    reply = await it.call()
    assert reply.question is not None
    params = reply.question.requests.value()["page"]["params"]
    assert params["url"] == "https://crm.example/login?x=1"
    assert params["message"].startswith(
        "The MCP server files asks to open a page of crm.example: Remit\\u{202e} asks "
    )
    assert params["message"].endswith(" asks ***")


@pytest.mark.threat("T-49")
async def test_a_page_whose_address_holds_a_credential_is_withheld(make_path: MakePath) -> None:
    async def asks(_: RunSpec) -> RunResult:
        return question(page=page("https://crm.example/?t=" + TOKEN))

    it = await asking(make_path, behave=asks)
    reply = await it.call()
    assert (code(reply), reply.question) == ("output_invalid", None)


@pytest.mark.threat("T-49")
async def test_a_question_is_withheld_where_policy_redacts_what_comes_back(
    make_path: MakePath,
) -> None:
    redacts = HEAD + (
        'decision := answer("allow", {"constraints": {"output": {"redact": ["/x"]}}})\n'
    )
    it = await asking(make_path, redacts)
    reply = await it.call()
    assert (code(reply), reply.question) == ("output_withheld", None)


@pytest.mark.threat("T-49")
async def test_a_command_that_prints_a_question_asks_nothing(make_path: MakePath) -> None:
    printing = [tool("prints", "read", result="mcp")]
    path = await make_path(tools=printing)

    async def asks(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.EXIT, exit_code=0, stdout=question().stdout)

    path.runner.behave = asks
    reply = await path.call("prints")
    assert (code(reply), reply.question) == ("output_invalid", None)
