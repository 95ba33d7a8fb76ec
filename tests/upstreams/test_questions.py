"""What a server may ask its caller: forms and pages, as the caller declared them, within limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import encode
from remit.errors import Code, UpstreamFault
from remit.model import Ending, Frozen, Round, RunResult, RunSpec
from remit.upstreams.questions import MAX_MESSAGE, MAX_NAME, MAX_QUESTIONS, MAX_STATE, checked
from remit.upstreams.runner import UpstreamRunner
from remit.upstreams.sessions import session_key
from tests.upstreams.played import Message, Program, Server, call_spec, gives, world

pytestmark = pytest.mark.threat("T-49")

BOTH: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
FORM: dict[str, Any] = {"elicitation": {"form": {}}}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
FULL = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "sure": {"type": "boolean"},
        "one": {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
        "many": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
    },
}


def form(schema: Any = SCHEMA, message: Any = "Who?", **more: Any) -> dict[str, Any]:
    params = {"message": message, "requestedSchema": schema, **more}
    return {"method": "elicitation/create", "params": params}


def page(url: Any = "https://a.example/x", **more: Any) -> dict[str, Any]:
    params = {"mode": "url", "message": "Open", "url": url, **more}
    return {"method": "elicitation/create", "params": params}


def asks(state: Any = "s", **requests: Any) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": requests, "requestState": state}


@pytest.mark.parametrize(
    "question",
    [
        form(),
        form(FULL),
        page(),
        page("http://127.0.0.1:8080/x?y=1#z"),
        page(elicitationId="e-1"),
    ],
)
def test_forms_and_pages_pass_as_they_are(question: dict[str, Any]) -> None:
    found = checked(asks(q=question), BOTH)
    want = {"mode": "form", **question["params"]}
    assert found["inputRequests"] == {"q": {"method": "elicitation/create", "params": want}}
    assert found["requestState"] == "s"


def test_what_the_protocol_does_not_know_is_left_out() -> None:
    asked = form(task={"ttl": 1}, _meta={"a": 1}, other=1)
    found = checked({**asks(q={**asked, "x": 1}), "_meta": {"y": 1}}, BOTH)
    assert found == checked(asks(q=form()), BOTH)


def test_a_server_may_only_want_to_be_called_again() -> None:
    for capabilities in (FORM, {}):
        found = checked({"resultType": "input_required", "requestState": "later"}, capabilities)
        assert (found["inputRequests"], found["requestState"]) == ({}, "later")


SAMPLING = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}


@pytest.mark.parametrize(
    ("result", "capabilities"),
    [
        (asks(q=form()), {}),
        (asks(q=page()), FORM),
        (asks(q=form()), {"elicitation": {"url": {}}}),
        (asks(q=SAMPLING), BOTH),
        (asks(q=form(), r=SAMPLING), BOTH),
        (asks(q={"method": "roots/list"}), BOTH),
        (asks(q={"method": "logging/setLevel", "params": {}}), BOTH),
    ],
)
def test_what_the_caller_did_not_declare_fails_the_call(result: Any, capabilities: Any) -> None:
    with pytest.raises(UpstreamFault) as fault:
        checked(result, capabilities)
    assert (fault.value.code, fault.value.sent) == (Code.UPSTREAM_ERROR, True)


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"a": inner}
    return {"type": "object", "properties": {"f": {"type": "string", "x": inner}}}


WIDE = {"type": "object", "properties": {str(at): {"type": "string"} for at in range(1_000)}}
INVALID = {
    "nothing": {"resultType": "input_required"},
    "a state that is no text": asks(state=1, q=form()),
    "a long state": asks(state="x" * (MAX_STATE + 1), q=form()),
    "a list": {**asks(), "inputRequests": [form()]},
    "many": asks(**{f"q{at}": form() for at in range(MAX_QUESTIONS + 1)}),
    "no request": asks(q=1),
    "no method": asks(q={"params": {}}),
    "no parameters": asks(q={"method": "elicitation/create"}),
    "another mode": asks(q=form(mode="voice")),
    "a mode that is no text": asks(q=form(mode=[])),
    "no words": asks(q=form(message="")),
    "many words": asks(q=form(message="x" * (MAX_MESSAGE + 1))),
    "words that are no text": asks(q=form(message=["x"])),
    "no form": asks(q=form(schema=None)),
    "a form of an array": asks(q=form({"type": "array"})),
    "a form that is said to be an array": asks(q=form({"type": "array", "properties": {}})),
    "a form of no type": asks(q=form({"properties": {"a": {"type": "string"}}})),
    "a field that is none": asks(q=form({"type": "object", "properties": {"a": True}})),
    "a form without fields": asks(q=form({"type": "object"})),
    "a field that is an object": asks(
        q=form({"type": "object", "properties": {"a": {"type": "object"}}})
    ),
    "a field by reference": asks(q=form({"type": "object", "properties": {"a": {"$ref": "#/x"}}})),
    "a deep form": asks(q=form(nested(20))),
    "a wide form": asks(q=form(WIDE)),
    "a name of a control": asks(**{"a\x1b[1m": form()}),
    "no name": asks(**{"": form()}),
    **{
        f"the address {url!r}": asks(q=page(url))
        for url in (
            None,
            "",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "data:text/html,x",
            "//a.example/x",
            "https://",
            "https:///x",
            "https://good.example@evil.example/x",
            "https://user:pw@a.example/",
            "https://a.example/ x",
            "https://a.example\\@evil.example",
            "https://a.example\\.evil.example/",
            "https://a.example/\x1b[1m",
            "https://ex\u0430mple.com/",
            "https://a.example/\n",
            "https://a.example:port/",
            "https://a.example/" + "x" * 2_048,
        )
    },
    "an id that is no text": asks(q=page(elicitationId=1)),
    "an id of nothing": asks(q=page(elicitationId="")),
    "a long id": asks(q=page(elicitationId="x" * (MAX_NAME + 1))),
    "an id of a control": asks(q=page(elicitationId="a\x1b[1m")),
    "a long name": asks(**{"x" * (MAX_NAME + 1): form()}),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_question_fails_the_call(name: str) -> None:
    with pytest.raises(UpstreamFault) as fault:
        checked(INVALID[name], BOTH)
    assert (fault.value.code, fault.value.sent) == (Code.UPSTREAM_INVALID, True)
    assert "evil" not in fault.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["form", "url"]) | JSON,
        "message": st.text(max_size=9) | JSON,
        "requestedSchema": st.just(SCHEMA) | JSON,
        "url": st.just("https://a.example/") | JSON,
    },
)
QUESTIONS = st.fixed_dictionaries(
    {"method": st.just("elicitation/create") | JSON, "params": PARAMS}
)


@given(st.dictionaries(st.text(max_size=4), QUESTIONS | JSON, max_size=3) | JSON, JSON)
def test_whatever_a_server_asks_is_passed_on_whole_or_fails_the_call(
    asked: Any, state: Any
) -> None:
    result = {"resultType": "input_required", "inputRequests": asked, "requestState": state}
    try:
        found = checked(result, BOTH)
    except UpstreamFault:
        return
    assert checked(found, BOTH) == found


# In a run

ASKING = gives(asks(q=form()))


async def ran(program: Program, spec: RunSpec) -> tuple[RunResult, Message | None]:
    it = world(program, lambda inner, seen: UpstreamRunner(inner, asked=None, seen=seen))
    own = await it.begin(spec)
    result = await it.runner.collect(own)
    await it.runner.destroy(own)
    calls = [m for server in program.servers for m in server.heard if m["method"] == "tools/call"]
    return result, calls[0] if calls else None


def able(spec: RunSpec, **call: Any) -> RunSpec:
    assert spec.upstream is not None
    told = replace(spec.upstream, capabilities=Frozen(encode(FORM)), **call)
    return replace(spec, upstream=told)


@pytest.mark.anyio
async def test_a_server_is_told_what_the_caller_declared_and_its_question_is_the_answer() -> None:
    result, call = await ran(Program(ASKING), able(call_spec()))
    assert (result.ending, result.limits_hit) == (Ending.ANSWERED, ())
    assert json.loads(result.stdout) == checked(asks(q=form()), FORM)
    assert call is not None
    declared = call["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert declared == FORM


@pytest.mark.threat("T-39")
def test_what_callers_can_be_asked_and_answer_makes_no_other_session() -> None:
    given = Round(answers=Frozen(b'{"q":{"action":"decline"}}'))
    assert session_key(able(call_spec(), round=given)) == session_key(call_spec())


@pytest.mark.anyio
async def test_answers_and_the_servers_own_state_go_with_the_call() -> None:
    answers = {"q": {"action": "accept", "content": {"name": "Alice"}}}
    given = Round(answers=Frozen(encode(answers)), number=1, run_id="run_1", state="s")
    _, call = await ran(Program(), able(call_spec(), round=given))
    assert call is not None
    assert call["params"]["inputResponses"] == answers
    assert call["params"]["requestState"] == "s"
    _, call = await ran(Program(), able(call_spec(), round=replace(given, state=None)))
    assert call is not None
    assert "requestState" not in call["params"]


@pytest.mark.anyio
async def test_a_server_of_the_handshake_is_not_called_with_answers_that_it_cannot_hear() -> None:
    given = Round(answers=Frozen(b'{"q":{"action":"decline"}}'))
    result, call = await ran(Program(modern=False), able(call_spec(), round=given))
    assert (result.ending, result.limits_hit, call) == (
        Ending.UNASKED,
        ("upstream_invalid",),
        None,
    )


@pytest.mark.anyio
async def test_a_server_of_the_handshake_is_told_of_nothing_that_it_could_ask() -> None:
    heard: list[Message] = []

    async def on_call(server: Server, message: Message) -> None:
        heard.extend(server.heard)
        await server.say(id=message["id"], result={"content": []})

    await ran(Program(on_call, modern=False), able(call_spec()))
    (shaken,) = [each for each in heard if each["method"] == "initialize"]
    assert shaken["params"]["capabilities"] == {}
