"""Hearing what servers tell: what each revision is asked for, and what those that lie are taken for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from remit.errors import Code, UpstreamFault
from remit.upstreams.conversation import Conversation
from remit.upstreams.hearing import hearing
from remit.upstreams.limits import Limits
from remit.upstreams.notices import Hearing, announced
from remit.upstreams.revisions import Revision
from tests.upstreams.http_asked import TOKEN, Answer, Asked, asking, hostile

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-54")]

LISTS = frozenset({"tools", "prompts"})
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@dataclass
class Ears:
    """What was heard."""

    told: list[str] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, name: str) -> None:
        self.told.append(name)
        self.more.set()

    def updated(self, uri: str) -> None:
        self.told.append(uri)
        self.more.set()

    async def until(self, *told: str) -> None:
        async with asyncio.timeout(20):
            while self.told != list(told):
                self.more.clear()
                await self.more.wait()


class Spoken:
    """A server over a stream, played here; `heard` is what it was sent."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: list[Any] = []
        self.refuses: frozenset[str] = frozenset()

    async def read(self) -> bytes:
        return await self._lines.get()

    async def write(self, data: bytes, /) -> None:
        message = json.loads(data)
        self.heard.append(message)
        answer = self._answer(message["method"], message.get("params", {}), message.get("id"))
        for each in answer:
            self.say(**each)

    def say(self, **message: Any) -> None:
        self._lines.put_nowait(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def tell(self, method: str, **params: Any) -> None:
        self.say(method=f"notifications/{method}", params=params)

    def methods(self) -> list[tuple[str, Any]]:
        wanted = ("resources/", "subscriptions/", "notifications/cancelled")
        return [
            (each["method"], each["params"].get("uri") or each["params"].get("notifications"))
            for each in self.heard
            if each["method"].startswith(wanted)
        ]

    def _answer(self, method: str, params: Mapping[str, Any], number: Any) -> list[dict[str, Any]]:
        capabilities = {"resources": {"subscribe": True}}
        match method:
            case "server/discover" if self._revision.modern:
                result: Any = {"supportedVersions": [self._revision], "capabilities": capabilities}
            case "initialize":
                result = {"protocolVersion": self._revision, "capabilities": capabilities}
            case "subscriptions/listen":
                uris = params["notifications"].get("resourceSubscriptions", [])
                left = [uri for uri in uris if uri not in self.refuses]
                told = {**params["notifications"], "resourceSubscriptions": left}
                noted = {"notifications": told, "_meta": {SUBSCRIPTION: number}}
                return [{"method": "notifications/subscriptions/acknowledged", "params": noted}]
            case "resources/subscribe" if params["uri"] in self.refuses:
                return [{"id": number, "error": {"code": -32602, "message": "no"}}]
            case "resources/subscribe" | "resources/unsubscribe":
                result = {}
            case _ if number is None:
                return []
            case _:
                return [{"id": number, "error": {"code": -32601, "message": "no"}}]
        return [{"id": number, "result": result}]


async def heard(revision: Revision) -> tuple[Spoken, Ears, Hearing]:
    server, ears = Spoken(revision), Ears()
    talk = await Conversation.open(server, capabilities={}, revisions=[revision])
    return server, ears, hearing(talk, LISTS, ears)


async def test_up_to_2025_11_25_each_resource_is_subscribed_to_and_given_up() -> None:
    server, ears, line = await heard(Revision.R2025_11_25)
    server.refuses = frozenset({"a:3"})
    assert set(await line.hold(frozenset({"a:1", "a:2", "a:3"}))) == {"a:3"}
    assert await line.hold(frozenset({"a:2"})) == {}
    assert server.methods() == [
        ("resources/subscribe", "a:1"),
        ("resources/subscribe", "a:2"),
        ("resources/subscribe", "a:3"),
        ("resources/unsubscribe", "a:1"),
    ]
    server.tell("resources/updated", uri="a:2")
    server.tell("resources/updated", uri=7)
    server.tell("prompts/list_changed")
    await ears.until("a:2", "prompts")
    await line.close()
    assert (await line.over()).code is Code.CANCELLED


async def test_in_2026_07_28_one_request_follows_another_and_says_all_that_is_wanted() -> None:
    server, ears, line = await heard(Revision.R2026_07_28)
    server.refuses = frozenset({"a:2"})
    flags = {"toolsListChanged": True, "promptsListChanged": True}
    assert await line.hold(frozenset()) == {}
    assert set(await line.hold(frozenset({"a:1", "a:2"}))) == {"a:2"}
    server.tell("resources/updated", uri="a:1")
    await ears.until("a:1")
    listens = [each for each in server.methods() if each[0] == "subscriptions/listen"]
    assert listens == [
        ("subscriptions/listen", flags),
        ("subscriptions/listen", {**flags, "resourceSubscriptions": ["a:1", "a:2"]}),
    ]
    first, second = (
        each["id"] for each in server.heard if each["method"] == "subscriptions/listen"
    )
    server.say(id=second, result={})
    assert (await line.over()).code is Code.UPSTREAM_GONE
    await line.close()
    given_up = [each for each in server.heard if each["method"] == "notifications/cancelled"]
    assert [each["params"]["requestId"] for each in given_up] == [first]


async def test_a_server_that_tells_without_end_is_not_listened_to_any_more() -> None:
    server, ears = Spoken(Revision.R2025_11_25), Ears()
    talk = await Conversation.open(
        server,
        capabilities={},
        revisions=[Revision.R2025_11_25],
        limits=Limits(burst=50, per_s=0.001),
    )
    line = hearing(talk, LISTS, ears)
    for _ in range(100):
        server.tell("tools/list_changed")
    assert (await line.over()).code is Code.UPSTREAM_INVALID
    assert len(ears.told) <= 50
    await line.close()


# ------------------------------------------------------------------------------------------ HTTP


def to_listen(answer: Callable[[Asked], Awaitable[None]]) -> Answer:
    async def either(asked: Asked) -> None:
        await (answer(asked) if asked.body["method"] == "subscriptions/listen" else asked.honest())

    return either


def events(*messages: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in messages)


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params}


ACKNOWLEDGED = note("subscriptions/acknowledged", notifications={"resourceSubscriptions": ["a:1"]})


def streams(*messages: Any) -> Callable[[Asked], Awaitable[None]]:
    async def answer(asked: Asked) -> None:
        await asked.send(STREAM + events(*messages))
        await asyncio.Event().wait()

    return answer


async def refusing(asked: Asked) -> None:
    error = {"code": -32601, "message": "Method not found"}
    await asked.json({"jsonrpc": "2.0", "id": asked.body["id"], "error": error}, "404 Not Found")


async def at_once(asked: Asked) -> None:
    await asked.result({"resultType": "complete"})


async def nothing(asked: Asked) -> None:
    await asked.send(STREAM)
    asked.writer.close()


LIES: dict[str, tuple[Callable[[Asked], Awaitable[None]], Code]] = {
    "does not know it": (refusing, Code.UPSTREAM_ERROR),
    "answers at once": (at_once, Code.UPSTREAM_GONE),
    "ends the stream": (nothing, Code.UPSTREAM_GONE),
    "sends no JSON-RPC": (streams(7), Code.UPSTREAM_INVALID),
    "asks": (
        streams({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}),
        Code.UPSTREAM_INVALID,
    ),
    "answers another": (
        streams({"jsonrpc": "2.0", "id": "x", "result": {}}),
        Code.UPSTREAM_INVALID,
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_server_that_lies_instead_of_telling_has_one_clear_fault(lie: str) -> None:
    answer, code = LIES[lie]
    async with hostile(to_listen(answer)) as there, asking() as servers:
        line = await servers.hear("there", there.url, None, LISTS, Ears(), within_s=20)
        with pytest.raises(UpstreamFault) as caught:
            await line.hold(frozenset())
        assert caught.value.code is code
        assert (await line.over()).code is code
        await line.close()


async def test_over_http_only_what_was_acknowledged_counts_and_nothing_before_it() -> None:
    early, late = note("resources/updated", uri="a:0"), note("resources/updated", uri="a:1")
    ears = Ears()
    async with (
        hostile(to_listen(streams(early, ACKNOWLEDGED, late))) as there,
        asking() as servers,
    ):
        line = await servers.hear("there", there.url, TOKEN, LISTS, ears, within_s=20)
        assert set(await line.hold(frozenset({"a:1", "a:2"}))) == {"a:2"}
        await ears.until("a:1")
        (asked,) = (each for each in there.asked if each.body["method"] == "subscriptions/listen")
        assert asked.headers["mcp-method"] == "subscriptions/listen"
        assert asked.headers["authorization"] == f"Bearer {TOKEN.decode()}"
        assert asked.body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}
        await line.close()


async def test_a_flood_over_http_ends_the_hearing_and_no_call() -> None:
    flood = [note("tools/list_changed") for _ in range(500)]
    ears = Ears()
    async with (
        hostile(to_listen(streams(ACKNOWLEDGED, *flood))) as there,
        asking() as servers,
    ):
        line = await servers.hear("there", there.url, None, LISTS, ears, within_s=20)
        await line.hold(frozenset())
        assert (await line.over()).code is Code.UPSTREAM_INVALID
        await line.close()
        assert await servers.list_tools("there", there.url, None, within_s=20) != []


def test_what_a_server_announces_is_read_strictly() -> None:
    assert announced({}) == frozenset()
    assert announced({"tools": {"listChanged": 1}, "resources": {"subscribe": "yes"}}) == set()
    assert announced({"tools": 7, "resources": None}) == frozenset()
    told = {"listChanged": True}
    found = announced({"tools": told, "prompts": told, "resources": {**told, "subscribe": True}})
    assert found == {"tools", "prompts", "resources", "subscribe"}
