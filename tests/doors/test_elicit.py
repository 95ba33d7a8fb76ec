"""A question of a server behind Remit, as clients of each era are asked it."""

from __future__ import annotations

import asyncio
from typing import Any

import mcp_types as types
import pytest

from remit.canonical import encode
from remit.doors import elicit
from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.errors import Code
from remit.model import Call, Frozen, Question, Reply
from remit.ports import Progress
from tests.doors.fake import FakeGateway, reply
from tests.doors.serving import call_body, client, modern_meta, served
from tests.doors.test_mcp_edge import post
from tests.doors.test_mcp_sessions import result, session

pytestmark = pytest.mark.anyio

FORM: dict[str, Any] = {
    "method": "elicitation/create",
    "params": {
        "mode": "form",
        "message": "The MCP server files asks: Your name?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
PAGE = {
    "method": "elicitation/create",
    "params": {"mode": "url", "message": "Open", "url": "https://a.example/"},
}


class Asks(FakeGateway):
    """Asks these questions, and says what it was answered."""

    def __init__(self, **questions: Any) -> None:
        super().__init__()
        self.questions = questions
        self.answers["echo"] = self._asks

    async def _asks(self, call: Call, _: Progress) -> Reply:
        if call.request_state is None:
            asked = Question(requests=Frozen(encode(self.questions)), state="sealed")
            return reply("asks", question=asked)
        assert call.request_state == "sealed"
        return reply(encode(dict(call.answers or {})).decode())


def said(got: types.CallToolResult) -> str:
    (block,) = got.content
    assert isinstance(block, types.TextContent)
    return block.text


async def test_a_modern_client_gets_the_question_as_the_result_and_comes_back_with_it() -> None:
    gateway = Asks(who=FORM)
    async with served(mcp_app(gateway, DoorSettings())) as url:
        first = (await post(url, call_body("echo", {}))).json()["result"]
        body = call_body("echo", {})
        body["params"] |= {
            "inputResponses": {"who": {"action": "accept", "content": {"name": "Alice"}}},
            "requestState": first["requestState"],
        }
        second = (await post(url, body)).json()["result"]
    assert first["resultType"] == "input_required"
    assert first["inputRequests"] == {"who": FORM}
    assert "content" not in first
    assert second["content"][0]["text"] == '{"who":{"action":"accept","content":{"name":"Alice"}}}'


@pytest.mark.threat("T-49")
@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({}, {}),
        ({"sampling": {}, "roots": {}, "experimental": {"x": {}}}, {}),
        ({"elicitation": {}}, {"elicitation": {"form": {}}}),
        ({"elicitation": {"url": {}}}, {"elicitation": {"url": {}}}),
        (
            {"sampling": {}, "elicitation": {"form": {"x": 1}, "url": {}}},
            {"elicitation": {"form": {}, "url": {}}},
        ),
    ],
)
async def test_only_that_a_client_can_be_asked_is_told_of_what_it_declares(
    declared: Any, told: Any
) -> None:
    gateway = FakeGateway()
    async with served(mcp_app(gateway, DoorSettings())) as url:
        meta = modern_meta(**{elicit.CAPABILITIES: declared})
        body = call_body("echo", {})
        body["params"]["_meta"] = meta
        assert (await post(url, body)).status_code == 200
    assert gateway.calls[0].capabilities.value() == told


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_a_client_of_the_handshake_is_asked_on_the_stream_of_its_call(action: Any) -> None:
    asked: list[Any] = []

    async def person(_: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        if action != "accept":
            return types.ElicitResult(action=action)
        return types.ElicitResult(action=action, content={"name": "Alice"})

    gateway = Asks(who=FORM)
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        client(url, "legacy", elicitation_callback=person) as it,
    ):
        got = await it.call_tool("echo", {})
    answer = {"action": action} | ({"content": {"name": "Alice"}} if action == "accept" else {})
    assert said(got) == encode({"who": answer}).decode()
    assert [each.message for each in asked] == [FORM["params"]["message"]]
    first, second = gateway.calls
    assert first.id != second.id
    assert first.capabilities == second.capabilities
    assert "form" in first.capabilities.value()["elicitation"]


async def test_a_client_of_the_handshake_that_declared_nothing_is_told_so() -> None:
    gateway = Asks(who=FORM)
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, "legacy") as it:
        got = await it.call_tool("echo", {})
    assert gateway.calls[0].capabilities == Frozen(b"{}")
    assert got.is_error
    assert Code.INPUT_NOT_GIVEN in said(got)
    assert len(gateway.calls) == 1


async def test_a_client_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elicit, "ANSWER_WITHIN_S", 0.0)

    async def nobody(_: Any, __: Any) -> types.ElicitResult:
        await asyncio.Event().wait()
        raise AssertionError("never")

    gateway = Asks(who=FORM)
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        client(url, "legacy", elicitation_callback=nobody) as it,
    ):
        got = await it.call_tool("echo", {})
    assert got.is_error
    assert Code.INPUT_NOT_GIVEN in said(got)


async def test_no_client_is_said_to_do_what_its_revision_does_not_have() -> None:
    gateway = FakeGateway()
    async with session(gateway) as s:
        for revision in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
            s.revision, s.id = revision, None
            params: dict[str, Any] = {
                "protocolVersion": revision,
                "capabilities": {"elicitation": {"form": {}, "url": {}}},
                "clientInfo": {"name": "tests", "version": "1"},
            }
            s.id = (await s.send("initialize", params, id_=1)).headers["mcp-session-id"]
            await s.send("notifications/initialized")
            called = await s.send("tools/call", {"name": "echo", "arguments": {}}, id_=2)
            assert "result" in result(called)
    told = [list(call.capabilities.value().get("elicitation", ())) for call in gateway.calls]
    assert told == [[], [], ["form"], ["form", "url"]]


async def test_a_refused_state_is_a_protocol_error_with_its_code() -> None:
    gateway = FakeGateway()

    async def refuses(_: Call, __: Progress) -> Reply:
        decision = {"code": "input_state_invalid"}
        return reply("Refused: no", is_error=True, decision=decision, jsonrpc_error=-32602)

    gateway.answers["echo"] = refuses
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = (await post(url, call_body("echo", {}))).json()
    assert answer["error"]["code"] == -32602
    assert answer["error"]["message"] == "Refused: no"
    assert answer["error"]["data"]["code"] == "input_state_invalid"


class Consents(FakeGateway):
    """Asks a person to consent, until it was asked so often; then it says what was done."""

    def __init__(self, times: int, code: str = "ok") -> None:
        super().__init__()
        self.times, self.code = times, code
        self.answers["echo"] = self._asks

    async def _asks(self, call: Call, _: Progress) -> Reply:
        if len(self.calls) <= self.times:
            asked = Question(requests=Frozen(encode({"consent": PAGE})), state="c", page="p1")
            told = {"code": "consent_required"}
            return reply("Go to a.example", question=asked, is_error=True, decision=told)
        assert call.request_state == "c"
        return reply(encode(dict(call.answers or {})).decode(), decision={"code": self.code})


class Person:
    """Answers in one way, and hears what is done."""

    def __init__(self, action: Any) -> None:
        self.action = action
        self.asked: list[Any] = []
        self.done: list[str] = []
        self.heard = asyncio.Event()

    async def answer(self, _: Any, params: Any) -> types.ElicitResult:
        self.asked.append(params)
        return types.ElicitResult(action=self.action)

    async def hear(self, message: Any) -> None:
        if isinstance(message, types.ElicitCompleteNotification):
            self.done.append(message.params.elicitation_id)
            self.heard.set()


@pytest.mark.threat("T-53")
async def test_a_client_of_the_handshake_opens_remits_page_and_hears_when_it_is_done() -> None:
    gateway, person = Consents(1), Person("accept")
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        client(
            url, "legacy", elicitation_callback=person.answer, message_handler=person.hear
        ) as it,
    ):
        got = await it.call_tool("echo", {})
        await asyncio.wait_for(person.heard.wait(), 60)
    assert said(got) == '{"consent":{"action":"accept"}}'
    (params,) = person.asked
    assert (params.mode, params.url) == ("url", "https://a.example/")
    assert [params.elicitation_id] == person.done == ["p1"]


@pytest.mark.threat("T-53")
async def test_a_client_is_not_asked_twice_to_open_one_page_and_is_told_where_it_is() -> None:
    gateway, person = Consents(9), Person("accept")
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        client(
            url, "legacy", elicitation_callback=person.answer, message_handler=person.hear
        ) as it,
    ):
        got = await it.call_tool("echo", {})
    assert got.is_error
    assert said(got) == "Go to a.example"
    assert len(person.asked) == 1
    assert len(gateway.calls) == 2
    assert person.done == []


@pytest.mark.threat("T-53")
async def test_a_page_that_is_declined_is_not_done_and_one_nobody_was_asked_is_told() -> None:
    gateway, person = Consents(1, "consent_declined"), Person("decline")
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        client(
            url, "legacy", elicitation_callback=person.answer, message_handler=person.hear
        ) as it,
    ):
        got = await it.call_tool("echo", {})
    assert said(got) == '{"consent":{"action":"decline"}}'
    assert person.done == []
    gateway = Consents(9)
    async with served(mcp_app(gateway, DoorSettings())) as url, client(url, "legacy") as it:
        got = await it.call_tool("echo", {})
    assert said(got) == "Go to a.example"
    assert len(gateway.calls) == 1
