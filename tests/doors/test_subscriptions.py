"""Who subscribed to a resource is told of it as long as it may be, and nobody else ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.subscriptions import Subscription
from mcp.server.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette

from remit.doors.book import Book, Places
from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from remit.errors import Code, Refused
from remit.model import Call, Caller, CallerKind, Frozen, Method, Reply
from remit.ports import Progress
from tests.doors.fake import FakeGateway, NoOffers, reply
from tests.doors.serving import client, served

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-54")]

MODERN = "2026-07-28"
QUICK = DoorSettings(recheck_s=0.01, told_apart_s=0.0, max_resources_per_caller=3, max_resources=4)
ANN = Caller(tenant="t", subject="ann", kind=CallerKind.AGENT, key_id="key-ann")


class Offers(NoOffers):
    """One server that tells of every resource whose URI begins with `a:`."""

    def __init__(self) -> None:
        self.state = 1
        self.round = 1
        self.heard: dict[str, list[Callable[[bool], None]]] = defaultdict(list)

    def methods(self) -> frozenset[Method]:
        return frozenset({Method.RESOURCES_READ, Method.RESOURCES_SUBSCRIBE})

    def watcher(self, uri: str) -> str | None:
        return "resources/subscribe:notes" if uri.startswith("a:") else None

    def standing(self, uri: str) -> object:
        return self.state

    def rounds(self, uri: str) -> int:
        return self.round

    def hear(self, uri: str, told: Callable[[bool], None]) -> Callable[[], None]:
        self.heard[uri].append(told)
        return lambda: self.heard[uri].remove(told)

    def update(self, uri: str) -> None:
        for each in list(self.heard[uri]):
            each(True)

    @property
    def hearing(self) -> set[str]:
        return {uri for uri, each in self.heard.items() if each}


class Gateway(FakeGateway):
    """Each caller may subscribe to what does not stand in `refused` for it."""

    offers: Offers

    def __init__(self) -> None:
        super().__init__()
        self.offers = Offers()
        self.codes: dict[tuple[str, str], str] = {}

    async def call(self, call: Call, progress: Progress) -> Reply:
        if call.method is not Method.RESOURCES_SUBSCRIBE:
            return await super().call(call, progress)
        self.calls.append(call)
        uri = call.arguments["uri"]
        code = self.codes.get((call.caller.subject, uri), "ok")
        if call.tool_name == "resources/subscribe:":
            code = "unknown_tool"
        if code != "ok":
            return reply("no", is_error=True, decision={"code": code})
        return replace(reply("", decision={"code": "ok"}), structured=Frozen(b"{}"))


@asynccontextmanager
async def house(
    settings: DoorSettings = QUICK,
) -> AsyncIterator[tuple[Gateway, str, Starlette]]:
    gateway = Gateway()
    app = mcp_app(gateway, settings)
    async with served(app) as url:
        yield gateway, url, app


async def next_of(heard: Subscription) -> Any:
    with anyio.fail_after(20):
        return await anext(heard)


async def rest_of(heard: Subscription) -> list[Any]:
    with anyio.fail_after(20):
        return [event async for event in heard]


async def until(done: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not done():
            await anyio.sleep(0.005)


async def test_each_caller_hears_of_what_it_subscribed_to_itself() -> None:
    async with (
        house() as (gateway, url, _),
        client(url, MODERN) as ann,
        client(url, MODERN, key="key-bob") as bob,
        ann.listen(resource_subscriptions=["a:1", "b:1"]) as to_ann,
    ):
        gateway.codes["bob", "a:1"] = "policy_denied"
        async with bob.listen(resource_subscriptions=["a:1", "a:2"]) as to_bob:
            assert to_ann.honored.resource_subscriptions == ["a:1"]
            assert to_bob.honored.resource_subscriptions == ["a:2"]
            gateway.offers.update("a:1")
            gateway.offers.update("a:2")
            assert await next_of(to_ann) == ResourceUpdated("a:1")
            assert await next_of(to_bob) == ResourceUpdated("a:2")
        await until(lambda: gateway.offers.hearing == {"a:1"})
    await until(lambda: not gateway.offers.hearing)


async def test_nothing_is_told_after_the_credential_is_no_longer_valid() -> None:
    async with (
        house() as (gateway, url, _),
        client(url, MODERN) as ann,
        ann.listen(resource_subscriptions=["a:1"]) as heard,
    ):
        gateway.revoked.add("key-ann")
        gateway.offers.update("a:1")
        assert await rest_of(heard) == []
        await until(lambda: not gateway.offers.hearing)


@pytest.mark.parametrize("code", ["policy_denied", "approval_required", "unknown_tool"])
async def test_what_is_refused_when_it_is_asked_again_ends_the_stream(code: str) -> None:
    async with (
        house() as (gateway, url, _),
        client(url, MODERN) as ann,
        ann.listen(resource_subscriptions=["a:1", "a:2"]) as heard,
    ):
        gateway.codes["ann", "a:1"] = code
        gateway.offers.state = 2
        gateway.offers.update("a:1")
        assert await rest_of(heard) == []


@pytest.mark.parametrize("change", ["state", "round"])
async def test_what_may_still_be_told_is_told_after_it_was_asked_again(change: str) -> None:
    async with (
        house() as (gateway, url, _),
        client(url, MODERN) as ann,
        ann.listen(resource_subscriptions=["a:1"]) as heard,
    ):
        (first,) = gateway.calls
        gateway.codes["ann", "a:1"] = Code.UPSTREAM_GONE.value  # which says nothing of permission
        setattr(gateway.offers, change, 2)
        gateway.offers.update("a:1")
        await until(lambda: len(gateway.calls) == 2)
        gateway.codes.clear()
        assert await next_of(heard) == ResourceUpdated("a:1")
        again = gateway.calls[-1]
        assert again.id != first.id
        assert (again.caller, again.arguments, again.claims) == (
            first.caller,
            first.arguments,
            first.claims,
        )


async def test_it_is_asked_again_after_some_time_even_if_nothing_changed() -> None:
    async with (
        house(replace(QUICK, reask_s=0.02)) as (gateway, url, _),
        client(url, MODERN) as ann,
        ann.listen(resource_subscriptions=["a:1"]) as heard,
    ):
        await until(lambda: len(gateway.calls) > 2)
        gateway.codes["ann", "a:1"] = "policy_denied"
        assert await rest_of(heard) == []


async def test_one_caller_takes_no_more_places_than_it_may_have() -> None:
    async with (
        house() as (gateway, url, _),
        client(url, MODERN) as ann,
        client(url, MODERN, key="key-bob") as bob,
    ):
        async with ann.listen(resource_subscriptions=["a:1", "a:2", "a:3"]):
            with pytest.raises(MCPError) as many:
                await _open(ann, "a:4")
            assert many.value.error.data == {"code": "rate_limited"}
            assert len(gateway.calls) == 3
            await _open(bob, "a:1")
            with pytest.raises(
                MCPError
            ):  # before any of them is asked for, what would be refused too
                await bob.listen(resource_subscriptions=["b:1", "b:2", "b:3", "b:4"]).__aenter__()
            assert len(gateway.calls) == 4
        await until(lambda: not gateway.offers.hearing)
        await _open(ann, "a:4")  # what was given up can be had again


async def _open(one: Client, uri: str) -> None:
    async with one.listen(resource_subscriptions=[uri]) as heard:
        assert heard.honored.resource_subscriptions == [uri]


async def test_a_session_that_nobody_listens_on_loses_its_subscriptions() -> None:
    gateway = Gateway()
    places = Places(QUICK)
    settings = replace(QUICK, unheard_s=0.01)
    book = Book(gateway, ANN, places, settings, lambda: 1, whole=False)
    call = _call("a:1")
    await book.add("a:1", call)
    detach, other = book.attach(lambda: None), book.attach(lambda: None)
    other()  # a second stream, which the session does not get
    await anyio.sleep(0.03)
    assert book.holds("a:1")  # somebody listens
    detach()
    await until(lambda: not book.holds("a:1"))
    assert not gateway.offers.hearing


async def test_a_call_that_ends_after_its_session_subscribes_to_nothing() -> None:
    class Late(Gateway):
        async def call(self, call: Call, progress: Progress) -> Reply:
            book.close()
            return await super().call(call, progress)

    gateway, places = Late(), Places(QUICK)
    book = Book(gateway, ANN, places, QUICK, lambda: 1, whole=False)
    await book.add("a:1", _call("a:1"))
    assert not gateway.offers.hearing
    for _ in range(QUICK.max_resources_per_caller):
        places.take(ANN)  # its place was given back
    with pytest.raises(Refused):
        places.take(ANN)


class Slow(Gateway):
    """Answers when the test lets it, once `lets` is set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.lets = anyio.Event(), anyio.Event()
        self.lets.set()

    async def call(self, call: Call, progress: Progress) -> Reply:
        self.called.set()
        await self.lets.wait()
        return await super().call(call, progress)


async def test_what_is_removed_while_it_is_asked_for_again_takes_a_place_of_its_own() -> None:
    gateway, places = Slow(), Places(QUICK)
    book = Book(gateway, ANN, places, QUICK, lambda: 1, whole=False)
    for _ in range(3):
        await book.add("a:1", _call("a:1"))
        gateway.called, gateway.lets = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(book.add, "a:1", _call("a:1"))
            await gateway.called.wait()
            book.remove("a:1")
            gateway.lets.set()
    for uri in ("a:2", "a:3"):
        await book.add(uri, _call(uri))
    with pytest.raises(Refused):
        await book.add("a:4", _call("a:4"))
    book.close()
    assert not gateway.offers.hearing
    for _ in range(3):
        places.take(ANN)
    with pytest.raises(Refused):
        places.take(ANN)


async def test_what_its_caller_is_refused_now_is_told_no_more() -> None:
    gateway, places = Gateway(), Places(QUICK)
    book = Book(gateway, ANN, places, QUICK, lambda: 1, whole=False)
    await book.add("a:1", _call("a:1"))
    gateway.codes["ann", "a:1"] = "upstream_timeout"  # which says nothing of what it may
    await book.add("a:1", _call("a:1"))
    assert gateway.offers.hearing == {"a:1"}
    gateway.codes["ann", "a:1"] = "policy_denied"
    await book.add("a:1", _call("a:1"))
    assert not gateway.offers.hearing
    book.close()


def test_all_callers_together_have_so_many_places() -> None:
    places = Places(QUICK)
    for _ in range(3):
        places.take(ANN)
    bob = replace(ANN, subject="bob")
    places.take(bob)
    with pytest.raises(Refused):
        places.take(bob)
    places.give_back(ANN)
    places.take(bob)


def _call(uri: str) -> Call:
    return Call(
        id="call_1",
        caller=ANN,
        tool_name="resources/subscribe:notes",
        arguments={"uri": uri},
        received_ms=1,
        method=Method.RESOURCES_SUBSCRIBE,
    )
