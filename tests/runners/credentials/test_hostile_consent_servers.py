"""Authorization servers at which people consent, and that mean harm: what they say of themselves,
how long they take, and what they are shown once they are left."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from remit.errors import Code, Refused
from remit.keeper.consents import ConsentCounter
from remit.keeper.desk import Desk
from remit.keeper.entitled import Unentitled
from remit.keeper.lending import Lending
from remit.model import ConsentState, Principal
from remit.runners.credentials import guarded
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.consent_renewal import AT_ONCE
from remit.runners.credentials.guarded import Guard
from remit.runners.credentials.http import Answer, Service
from remit.runners.wire import MESSAGE_BYTES, receive
from remit.testing.consents import ALICE, REDIRECT
from tests.runners.credentials.consenting import FakeConsentServer, Town, town
from tests.runners.credentials.fakes import serving
from tests.runners.credentials.oauth import unhurried  # noqa: F401 - a fixture
from tests.runners.credentials.test_authorization_code import given, run_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("unhurried"),
    pytest.mark.threat("T-53"),
]


@pytest.fixture
def place() -> Iterator[Town]:
    with town() as found:
        yield found


@pytest.mark.parametrize(
    "query",
    [
        "scope=admin",
        "prompt=consent&client_id=other",
        "code_challenge=known",
        "redirect%5Furi=https://evil.example/",
        "request_uri=urn:x",
        "state",
    ],
)
async def test_a_page_that_asks_for_something_of_its_own_is_nobodys(
    place: Town, query: str
) -> None:
    place.server.metadata["authorization_endpoint"] = f"{place.server.url}/authorize?{query}"
    with pytest.raises(Refused, match="of its own") as refused:
        await place.broker().begin(ALICE, (), REDIRECT, None)
    assert refused.value.code is Code.CONSENT_UNAVAILABLE


async def test_a_page_may_have_a_query_that_asks_for_nothing(place: Town) -> None:
    place.server.metadata["authorization_endpoint"] = f"{place.server.url}/authorize?p=people"
    assert (await given(place.broker())).scopes == ("read",)
    assert place.server.pages[0]["p"] == "people"


@pytest.mark.parametrize("says", [False, None])
async def test_nobody_is_sent_to_another_hosts_page_whose_answers_may_be_anybodys(
    place: Town, says: bool | None
) -> None:
    honest = "https://honest.example/authorize"
    place.server.metadata |= {
        "authorization_endpoint": honest,
        "authorization_response_iss_parameter_supported": says,
    }
    with pytest.raises(Refused, match="another host's page"):
        await place.broker().begin(ALICE, (), REDIRECT, None)
    place.server.metadata["authorization_response_iss_parameter_supported"] = True
    broker = place.broker()
    page = await broker.begin(ALICE, (), REDIRECT, None)
    assert page.host == "honest.example"
    with pytest.raises(Refused, match="does not say which server"):
        await broker.finish(page.state, {"state": page.state, "code": "abc"})
    assert place.server.grants == []


@pytest.mark.parametrize("lives_s", [10**12, 9_007_199_254_740_991])
async def test_a_life_that_no_calendar_has_can_still_be_written_down(
    place: Town, lives_s: int
) -> None:
    place.server.lives_s, place.server.renews = lives_s, False
    consent = await given(place.broker())
    assert datetime.fromtimestamp(consent.expires_ms / 1_000, UTC).year < 2_200
    assert (await place.broker().lend(run_of())).expires_ms == consent.expires_ms


async def test_a_secret_of_the_next_server_is_not_shown_to_the_one_before(place: Town) -> None:
    secret = {"client_secret": "the-next-servers"}
    place.server.known("remit", "the-next-servers")
    written = {
        "client_id": "remit",
        "client_auth": "client_secret_basic",
        "client_secret": "file:x",
    }
    await given(place.broker(secret, issuer=place.server.url, **written))
    after = FakeConsentServer()
    with serving(after) as after.url:
        moved = place.broker(secret, issuer=after.url, **written)
        seen = len(place.server.seen)
        assert await moved.status(ALICE, ()) is ConsentState.NEEDED
        assert not await moved.end(ALICE)
    assert len(place.server.seen) == seen
    assert await moved.listed() == []


class Crowd:
    """A server that answers nobody for a while; how many asked it at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def ask(self, *_: Any, **__: Any) -> Answer:
        self.now += 1
        self.most = max(self.most, self.now)
        for _turn in range(200):
            await asyncio.sleep(0)
        self.now -= 1
        return Answer(name="it", status=404, content=b"")


async def test_a_server_that_is_slow_has_few_people_wait_at_once(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, crowd = place.broker(), Crowd()
    monkeypatch.setattr(Service, "ask", crowd.ask)
    people = [Principal(tenant="acme", subject=f"p{n}") for n in range(2 * AT_ONCE)]
    found = await asyncio.gather(
        *(broker.begin(each, (), REDIRECT, None) for each in people), return_exceptions=True
    )
    assert {type(each) for each in found} == {Refused}
    assert crowd.most == AT_ONCE


async def test_a_server_that_is_slow_has_few_runs_wait_at_once(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.server.lives_s = 0
    broker, crowd = place.broker(), Crowd()
    people = [Principal(tenant="acme", subject=f"p{n}") for n in range(AT_ONCE + 4)]
    for each in people:
        await given(broker, each)
    monkeypatch.setattr(Service, "ask", crowd.ask)
    found = await asyncio.gather(
        *(broker.lend(run_of(each)) for each in people), return_exceptions=True
    )
    assert {type(each) for each in found} == {BrokerFault}
    assert crowd.most == AT_ONCE


async def test_a_request_that_there_is_not_ends_nothing(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    credentials: Any = {"crm": SimpleNamespace(kind="authorization_code", broker=broker)}
    whose = {"ref": "crm", "tenant": ALICE.tenant, "subject": ALICE.subject}
    with pytest.raises(Unentitled):
        await ConsentCounter(credentials).obey({"op": "consent_extend", **whose})
    assert await broker.status(ALICE, ()) is ConsentState.HELD


async def test_an_answer_that_cannot_be_told_is_a_no_at_once() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    opened: Any = SimpleNamespace(credentials={})
    with ours, theirs:
        desk = Desk(ours, opened, cast("Lending", None))
        desk._say({"n": 7, "ev": "consents", "consents": ["x" * MESSAGE_BYTES]}, [])
        asyncio.get_running_loop().remove_reader(ours.fileno())
        theirs.setblocking(False)
        told = receive(theirs)
    assert told is not None
    assert (told[0]["n"], told[0]["ev"]) == (7, "refused")


async def test_name_servers_that_never_answer_keep_no_thread_that_others_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()

    def never(*_: Any, **__: Any) -> list[Any]:
        over.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(guarded, "RESOLVE_S", 0.01)
    guard = Guard(frozenset())
    looks = [guard.look(f"a{n}.evil.example", 443) for n in range(64)]
    try:
        found = await asyncio.gather(*looks, return_exceptions=True)
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(lambda: "searched") == "searched"
    finally:
        over.set()
    assert {type(each) for each in found} == {BrokerFault}
