"""A call that needs a person's consent: who is asked when, with what, and what the answer changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from remit.backends import Delivery
from remit.canonical import encode
from remit.consenting import ConsentDesk, Given
from remit.errors import Code, LedgerFault, NotFound, Refused, RunnerFault
from remit.gateway import Gateway
from remit.identity.keys import CallerKey, new_key
from remit.model import (
    Actor,
    Call,
    Caller,
    CallerKind,
    Consent,
    ConsentPage,
    ConsentState,
    Frozen,
    Operator,
    Permission,
    Principal,
    Reply,
    Upstream,
    Verdict,
)
from remit.stages import consent, consent_pages
from remit.stages.normalise import answered, normal_call
from remit.testing.consents import MemoryConsents
from remit.testing.scripted import ends
from tests.path.conftest import AGENT, HEAD, OLGA, MakePath, Path_, tool
from tests.path.test_path import code

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-53")]

URL = "https://remit.example"
REF = "crm"
KEY = {"ref": REF}
GIVE = '{"constraints": {"credentials": [{"ref": "crm"}]}}'
ALLOW = HEAD + f'decision := answer("allow", {GIVE})\n'
ASK = HEAD + (
    'decision := answer("require_approval", {"approvals": {"required": 1, "ttl_s": 600},'
    ' "constraints": {"credentials": [{"ref": "crm"}]}})\n'
)
TOOLS = [
    tool("find", "read", credentials=[KEY]),
    tool("change", credentials=[KEY]),
    tool("plain"),
]
READS, CONSENTS = Permission.READ, Permission.CONSENT
PAGES = Frozen(encode({"elicitation": {"url": {}}}))
DANA = Principal(tenant="test", subject="dana")
BOT = Principal(tenant="test", subject="bot")
ACCEPT = {"consent": {"action": "accept"}}


class World:
    """A pipeline with one credential that is lent by consent."""

    def __init__(self, path: Path_, consents: MemoryConsents) -> None:
        self.path, self.consents = path, consents
        self.desk = ConsentDesk(path.pipeline)
        path.runner.behave = ends(b"found")

    async def call(
        self,
        name: str = "find",
        *,
        caller: Caller = AGENT,
        asked: bool = False,
        answers: Mapping[str, Any] | None = None,
        state: str | None = None,
        key: str | None = None,
        **arguments: Any,
    ) -> Reply:
        call = Call(
            id=self.path.clock.new_id("call"),
            caller=caller,
            tool_name=name,
            arguments=arguments,
            received_ms=self.path.clock.now_ms(),
            capabilities=PAGES if asked else Frozen(b"{}"),
            answers=answers,
            request_state=state,
            idempotency_key=key,
        )
        return await self.path.pipeline.call(call, self.path.heard)

    def page(self, reply: Reply) -> str:
        """The id of the page that a reply names."""
        return str(reply.decision["consent"]["url"]).rsplit("/", 1)[1]

    async def give(self, reply: Reply, key: str, **answer: str) -> Given:
        """Go where the reply leads, as the person who has this key, and come back."""
        leaving = await self.desk.open(self.page(reply), key, "127.0.0.1")
        assert leaving is not None
        (state,) = parse_qs(urlsplit(leaving.url).query)["state"]
        came = {"state": state, "code": "abc", **answer}
        return await self.desk.finish(came, leaving.browser)


DANAS, BOTS, EVES = new_key("dana"), new_key("k1"), new_key("eve")
PERSON = Caller(tenant="test", subject="dana", kind=CallerKind.HUMAN)
EVE = replace(PERSON, subject="eve")


def keys(*, own: bool = True) -> list[CallerKey]:
    found = [
        CallerKey(id="k1", sha256=BOTS.sha256, caller=AGENT),
        CallerKey(id="eve", sha256=EVES.sha256, caller=EVE),
    ]
    person = CallerKey(id="dana", sha256=DANAS.sha256, caller=PERSON)
    return [*found, person] if own else found


class Lies(MemoryConsents):
    """Leads to another place than it says."""

    def __init__(self, refs: Sequence[str], url: str) -> None:
        super().__init__(refs)
        self._url = url

    async def begin(self, *given: Any, **named: Any) -> ConsentPage:
        return replace(await super().begin(*given, **named), url=self._url)


async def a_world(
    make_path: MakePath, rego: str = ALLOW, consents: MemoryConsents | None = None, **more: Any
) -> World:
    consents = consents or MemoryConsents([REF])
    given = {"public_url": URL, "keys": keys(), **more}
    path: Path_ = await make_path(
        rego,
        tools=TOOLS,
        secrets={REF: "s3cr3t-of-crm"},
        lent_files={REF: "token"},
        deliveries={REF: Delivery(file="token")},
        consents=consents,
        **given,
    )
    return World(path, consents)


async def test_a_call_without_consent_is_refused_with_a_page_and_the_same_call_runs_after_it(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    first = await world.call()
    assert code(first) == "consent_required"
    assert first.is_error
    assert first.question is None
    told = first.decision["consent"]
    assert told["url"].startswith(f"{URL}/consents/")
    assert (told["subject"], told["authorization_server"]) == ("dana", "login.example.com")
    (text,) = first.content.value()
    assert told["url"] in text["text"]
    assert first.decision["decision_id"]
    assert world.path.runner.told == []
    await world.give(first, DANAS.token)
    second = await world.call()
    assert code(second) == "ok"
    events = await world.path.events()
    assert events.count("call.intent") == 1
    refused = next(e for e in await world.path.entries() if e["event"] == "call.refused")
    assert refused["code"] == "consent_required"
    assert refused["decision"] == first.decision["decision_id"]
    assert world.page(first) not in json.dumps(await world.path.entries())


async def test_nobody_is_asked_for_a_call_without_such_a_credential(make_path: MakePath) -> None:
    world = await a_world(make_path, ALLOW.replace("crm", "other"))
    assert code(await world.call("plain")) == "ok"
    assert world.consents.held == {}


async def test_policy_answers_first_and_people_approve_only_what_can_run(
    make_path: MakePath,
) -> None:
    denied = await a_world(make_path, HEAD)
    assert code(await denied.call()) == "policy_denied"
    world = await a_world(make_path, ASK)
    first = await world.call("change")
    assert code(first) == "consent_required"
    assert "approval.opened" not in await world.path.events()
    await world.give(first, DANAS.token)
    second = await world.call("change")
    assert code(second) == "approval_required"
    approval_id = second.decision["approval_id"]
    await world.path.administration.vote(
        OLGA, approval_id, second.decision["plan_hash"], Verdict.APPROVE, None
    )
    assert code(await world.call("change")) == "ok"
    assert second.decision["plan_hash"] == first.decision["plan_hash"]


async def test_a_client_that_can_open_pages_is_asked_to_and_its_yes_makes_no_other_call(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    first = await world.call(asked=True)
    assert first.question is not None
    assert first.question.page == world.page(first)
    (question,) = first.question.requests.value().items()
    assert question[0] == "consent"
    assert question[1]["params"]["mode"] == "url"
    assert question[1]["params"]["url"] == first.decision["consent"]["url"]
    assert question[1]["params"]["message"].startswith("Remit asks dana: ")
    await world.give(first, DANAS.token)
    second = await world.call(asked=True, answers=ACCEPT, state=first.question.state)
    assert (code(second), second.question) == ("ok", None)
    decisions = [e for e in await world.path.entries() if e["event"] == "decision"]
    assert len({each["call_digest"] for each in decisions}) == 1
    assert all("round" not in each for each in decisions)


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_who_does_not_want_to_go_there_is_not_asked_again_at_once(
    make_path: MakePath, action: str
) -> None:
    world = await a_world(make_path)
    first = await world.call(asked=True)
    assert first.question is not None
    answers = {"consent": {"action": action}}
    second = await world.call(asked=True, answers=answers, state=first.question.state)
    assert (code(second), second.question) == ("consent_declined", None)
    assert (await world.path.events())[-1] == "call.refused"
    assert world.path.runner.told == []


async def test_a_call_is_held_while_its_person_consents_and_then_goes_on_at_once(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consent, "PROGRESS_EVERY_S", 3_600)
    world = await a_world(make_path, hold_s=3_600)
    first = await world.call(asked=True)
    assert first.question is not None
    going = asyncio.ensure_future(
        world.call(asked=True, answers=ACCEPT, state=first.question.state)
    )
    while not world.path.heard.messages:
        await asyncio.sleep(0)
    assert world.path.heard.messages == ["Waiting for dana to consent"]
    await world.give(first, DANAS.token)
    assert code(await asyncio.wait_for(going, 60)) == "ok"


class Meanwhile(MemoryConsents):
    """Has something happen while a call that is held looks for the first time."""

    def __init__(self, refs: Sequence[str]) -> None:
        super().__init__(refs)
        self.answered, self.go_on = asyncio.Event(), asyncio.Event()
        self.asked = 0
        self.meanwhile: Callable[[], Awaitable[None]]

    async def finish(self, state: str, answer: Mapping[str, str]) -> Consent:
        self.answered.set()
        await self.go_on.wait()
        return await super().finish(state, answer)

    async def status(self, *given: Any, **named: Any) -> ConsentState:
        found = await super().status(*given, **named)
        self.asked += 1
        if self.asked == 3:
            await self.meanwhile()
        return found


@pytest.mark.parametrize("over", [False, True], ids=["an answer comes", "it is over"])
async def test_a_call_that_begins_to_wait_in_the_moment_of_the_answer_goes_on(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    monkeypatch.setattr(consent, "PROGRESS_EVERY_S", 0.01)
    consents = Meanwhile([REF])
    world = await a_world(make_path, consents=consents, hold_s=60)
    first = await world.call(asked=True)
    assert first.question is not None
    giving: list[asyncio.Future[Given]] = []

    async def meanwhile() -> None:
        giving.append(asyncio.ensure_future(world.give(first, DANAS.token)))
        await consents.answered.wait()
        if over:
            consents.go_on.set()
            await giving[0]

    consents.meanwhile = meanwhile
    calling = asyncio.ensure_future(
        world.call(asked=True, answers=ACCEPT, state=first.question.state)
    )
    await consents.answered.wait()
    while not over and len(world.path.heard.messages) < 3 and not calling.done():
        await asyncio.sleep(0)
    consents.go_on.set()
    assert code(await calling) == "ok"
    await giving[0]


async def test_an_answer_that_is_being_looked_at_is_not_taken_again(make_path: MakePath) -> None:
    consents = Meanwhile([REF])
    world = await a_world(make_path, consents=consents)
    leaving = await world.desk.open(world.page(await world.call()), DANAS.token, "127.0.0.1")
    assert leaving is not None
    answer = {"state": leaving.state, "code": "abc"}
    first = asyncio.ensure_future(world.desk.finish(answer, leaving.browser))
    await consents.answered.wait()
    with pytest.raises(Refused) as again:
        await asyncio.wait_for(world.desk.finish(answer, leaving.browser), 60)
    assert again.value.code is Code.CONSENT_STATE_INVALID
    consents.go_on.set()
    assert (await first).consent.principal == DANA


async def test_a_call_that_has_another_page_goes_on_with_what_is_given_on_the_first(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consent, "PROGRESS_EVERY_S", 3_600)
    world = await a_world(make_path, hold_s=3_600)
    first = await world.call(asked=True)
    assert first.question is not None
    pages = world.path.pipeline.consenting.pages
    page = pages.get(world.page(first))
    assert page is not None
    leaving = await world.desk.open(page.id, DANAS.token, "127.0.0.1")
    assert leaving is not None
    monkeypatch.setattr(consent_pages, "STILL_GOOD_MS", 3_600_000)
    going = asyncio.ensure_future(
        world.call(asked=True, answers=ACCEPT, state=first.question.state)
    )
    while not world.path.heard.messages:
        await asyncio.sleep(0)
    await world.desk.finish({"state": leaving.state, "code": "abc"}, leaving.browser)
    assert code(await asyncio.wait_for(going, 60)) == "ok"


async def test_a_held_call_ends_where_its_person_comes_back_without_consent(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path, hold_s=60)
    first = await world.call(asked=True)
    assert first.question is not None
    going = asyncio.ensure_future(
        world.call(asked=True, answers=ACCEPT, state=first.question.state)
    )
    while not world.path.heard.messages:
        await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await world.give(first, DANAS.token, error="access_denied")
    assert refused.value.code is Code.CONSENT_REFUSED
    assert code(await going) == "consent_refused"
    assert world.consents.held == {}


async def test_the_same_page_is_given_while_it_waits_and_another_once_it_is_used_or_old(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(make_path)
    first, second = await asyncio.gather(world.call(), world.call(asked=True))
    assert world.page(first) == world.page(second)
    with pytest.raises(Refused):
        await world.give(first, DANAS.token, error="access_denied")
    third = await world.call()
    assert world.page(third) != world.page(first)
    assert len(world.page(third)) == 32  # 192 bits
    assert world.desk.page(world.page(first)) is None
    assert world.page(await world.call()) == world.page(third)
    monkeypatch.setattr(consent_pages, "STILL_GOOD_MS", 3_600_000)
    assert world.page(await world.call()) != world.page(third)


@pytest.mark.parametrize(
    "key",
    [EVES.token, BOTS.token, new_key("dana").token, "", "x" * 5_000],
    ids=["another's", "an agent's of theirs", "unknown", "none", "long"],
)
async def test_a_page_opens_to_no_key_but_one_of_whom_it_asks(
    make_path: MakePath, key: str
) -> None:
    world = await a_world(make_path)
    first = await world.call()
    with pytest.raises(Refused) as refused:
        await world.desk.open(world.page(first), key, "127.0.0.1")
    assert refused.value.code is Code.UNAUTHENTICATED
    page = world.desk.page(world.page(first))
    assert page is not None
    assert page.browser is None


async def test_a_key_that_acts_for_somebody_without_a_key_opens_their_page(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path, keys=keys(own=False))
    first = await world.call()
    given = await world.give(first, BOTS.token)
    assert given.consent.principal == DANA


async def test_wrong_keys_on_pages_count_as_failed_credentials(make_path: MakePath) -> None:
    world = await a_world(make_path, authentications=2)
    page = world.page(await world.call())
    for key in (EVES.token, "no key"):
        with pytest.raises(Refused) as refused:
            await world.desk.open(page, key, "10.0.0.9")
        assert refused.value.code is Code.UNAUTHENTICATED
    with pytest.raises(Refused) as limited:
        await world.desk.open(page, EVES.token, "10.0.0.9")
    assert limited.value.code is Code.RATE_LIMITED
    assert await world.desk.open(page, DANAS.token, "10.0.0.8") is not None


async def test_an_answer_is_taken_once_and_only_in_the_browser_that_left(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    first = await world.call()
    page = world.desk.page(world.page(first))
    assert page is not None
    with pytest.raises(Refused) as early:
        await world.desk.finish({"state": page.leads.state, "code": "abc"}, "")
    assert "browser" in early.value.message
    leaving = await world.desk.open(world.page(first), DANAS.token, "127.0.0.1")
    assert leaving is not None
    answer = {"state": leaving.state, "code": "abc"}
    for browser in ("", "another"):
        with pytest.raises(Refused) as other:
            await world.desk.finish(answer, browser)
        assert other.value.code is Code.CONSENT_STATE_INVALID
        assert "browser" in other.value.message
    given = await world.desk.finish(answer, leaving.browser)
    assert given.server == REF
    for state in (leaving.state, "", "made up"):
        with pytest.raises(Refused) as again:
            await world.desk.finish({**answer, "state": state}, leaving.browser)
        assert again.value.code is Code.CONSENT_STATE_INVALID
    assert list(world.consents.held) == [(REF, DANA)]


async def test_whoever_opens_a_page_last_is_whose_browser_may_come_back(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    page = world.page(await world.call())
    one = await world.desk.open(page, DANAS.token, "127.0.0.1")
    two = await world.desk.open(page, DANAS.token, "127.0.0.1")
    assert one is not None
    assert two is not None
    answer = {"state": one.state, "code": "abc"}
    with pytest.raises(Refused):
        await world.desk.finish(answer, one.browser)
    await world.desk.finish(answer, two.browser)


async def test_a_person_is_sent_nowhere_but_where_the_page_says(make_path: MakePath) -> None:
    for url in (
        "https://login.example.com.evil.example/authorize?state=s",
        "https://login.example.com@evil.example/authorize?state=s",
        "http://login.example.com/authorize?state=s",
        "javascript:alert(1)",
    ):
        world = await a_world(make_path, consents=Lies([REF], url))
        page = world.page(await world.call())
        with pytest.raises(Refused) as refused:
            await world.desk.open(page, DANAS.token, "127.0.0.1")
        assert refused.value.code is Code.CONSENT_FAILED


async def test_what_is_given_and_taken_back_is_in_the_log_without_code_or_state(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    first = await world.call()
    leaving = await world.desk.open(world.page(first), DANAS.token, "127.0.0.1")
    assert leaving is not None
    await world.desk.finish({"state": leaving.state, "code": "c0de"}, leaving.browser)
    assert await world.desk.revoke(OLGA, REF, DANA) is True
    with pytest.raises(NotFound):
        await world.desk.revoke(OLGA, REF, DANA)
    entries = await world.path.entries()
    given, revoked = (e for e in entries if e["event"].startswith("consent."))
    assert (given["credential"], given["tenant"], given["subject"]) == (REF, "test", "dana")
    assert (given["server"], given["key"]) == (REF, "dana")
    assert given["authorization_server"] == "login.example.com"
    assert (revoked["operator"], revoked["confirmed"]) == ("olga", True)
    said = json.dumps(entries)
    for secret in ("c0de", leaving.state, leaving.browser, DANAS.token):
        assert secret not in said
    assert code(await world.call()) == "consent_required"


async def test_an_operator_has_a_person_asked_who_alone_can_answer(make_path: MakePath) -> None:
    world = await a_world(make_path)
    asked = await world.desk.ask(REF, DANA)
    assert asked["authorization_server"] == "login.example.com"
    page = asked["url"].removeprefix(f"{URL}/consents/")
    with pytest.raises(Refused):
        await world.desk.open(page, EVES.token, "127.0.0.1")
    leaving = await world.desk.open(page, DANAS.token, "127.0.0.1")
    assert leaving is not None
    await world.desk.finish({"state": leaving.state, "code": "abc"}, leaving.browser)
    assert code(await world.call()) == "ok"
    with pytest.raises(NotFound):
        await world.desk.ask("plain", DANA)


async def test_operators_do_with_consents_what_they_may(make_path: MakePath) -> None:
    world = await a_world(make_path)
    gateway = Gateway(world.path.pipeline)
    await world.give(await world.call(), DANAS.token)
    nobody = Operator(subject="nan", may=frozenset(Permission) - {READS, CONSENTS})
    reader = Operator(subject="ray", may=frozenset({READS}))
    with pytest.raises(Refused):
        await gateway.consents(nobody)
    assert len(await gateway.consents(reader)) == 1
    for operator in (nobody, reader):
        with pytest.raises(Refused):
            await gateway.revoke_consent(operator, REF, DANA)
        with pytest.raises(Refused):
            await gateway.ask_consent(operator, REF, DANA)
    able = Operator(subject="con", may=frozenset({CONSENTS}))
    assert (await gateway.ask_consent(able, REF, BOT))["subject"] == "bot"
    assert await gateway.revoke_consent(able, REF, DANA)


async def test_a_consent_is_ended_also_where_nobody_can_say_which_there_are(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(make_path)
    await world.give(await world.call(), DANAS.token)
    with pytest.raises(NotFound):
        await world.desk.revoke(OLGA, REF, BOT)

    async def too_many(tenant: str | None = None) -> Sequence[Consent]:
        raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "the answer is too large")

    monkeypatch.setattr(world.consents, "listed", too_many)
    await world.desk.revoke(OLGA, REF, DANA)
    assert world.consents.held == {}


async def test_a_consent_that_cannot_be_written_down_is_not_held(make_path: MakePath) -> None:
    world = await a_world(make_path)
    first = await world.call()
    leaving = await world.desk.open(world.page(first), DANAS.token, "127.0.0.1")
    assert leaving is not None
    await world.path.ledger.aclose()
    with pytest.raises(LedgerFault):
        await world.desk.finish({"state": leaving.state, "code": "abc"}, leaving.browser)
    assert world.consents.held == {}


async def test_whatever_keeps_it_from_being_written_down_it_is_not_held(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in (ValueError("a year that is none"), asyncio.CancelledError()):

        async def fails(_: object, fault: BaseException = fault) -> None:
            raise fault

        world = await a_world(make_path)
        first = await world.call()
        monkeypatch.setattr(world.path.ledger, "append", fails)
        with pytest.raises(type(fault)):
            await world.give(first, DANAS.token)
        assert world.consents.held == {}


async def test_what_is_given_while_nobody_waits_any_more_is_written_down(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(make_path)
    first = await world.call()
    asked, answered, rung = asyncio.Event(), asyncio.Event(), asyncio.Event()
    really, ring = world.consents.finish, world.desk._bell.ring

    async def slowly(state: str, answer: Mapping[str, str]) -> Consent:
        asked.set()
        await answered.wait()
        return await really(state, answer)

    def rings(name: str) -> None:
        ring(name)
        rung.set()

    monkeypatch.setattr(world.consents, "finish", slowly)
    monkeypatch.setattr(world.desk._bell, "ring", rings)
    giving = asyncio.create_task(world.give(first, DANAS.token))
    await asked.wait()
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving
    answered.set()
    await rung.wait()
    assert list(world.consents.held) == [(REF, DANA)]
    given = [e for e in await world.path.entries() if e["event"] == "consent.given"]
    assert [e["subject"] for e in given] == ["dana"]


async def test_the_state_of_the_question_is_this_callers_for_this_call(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    first = await world.call(asked=True, service="web")
    assert first.question is not None
    state = first.question.state
    other = replace(AGENT, chain=(Actor(subject="eve", kind=CallerKind.HUMAN),))
    foreign = await world.call(asked=True, answers=ACCEPT, state=state, caller=other)
    assert code(foreign) == "input_state_foreign"
    mismatch = await world.call(asked=True, answers=ACCEPT, state=state, service="db")
    assert code(mismatch) == "input_state_mismatch"
    forged = await world.call(asked=True, answers=ACCEPT, state="c1." + state[3:][::-1])
    assert code(forged) == "input_state_invalid"
    swapped = await world.call(asked=True, answers=ACCEPT, state="r1." + state[3:], service="web")
    assert code(swapped) == "input_state_invalid"


async def test_an_answer_to_a_server_is_kept_while_its_person_consents(
    make_path: MakePath,
) -> None:
    world = await a_world(make_path)
    upstream = Upstream(server="crm", tool="find", definition="sha256:0")
    made = replace(TOOLS[0], upstream=upstream, digest="sha256:upstream")
    call = Call(
        id="call_1",
        caller=AGENT,
        tool_name="find",
        arguments={},
        received_ms=0,
        answers={"who": {"action": "accept"}},
    )
    rounds = world.path.pipeline.consenting._rounds
    normal = answered(normal_call(call, made, Frozen(b"{}"), "none"), rounds, 1)
    question = rounds.consent(normal, Frozen(b"{}"), "page", 1)
    again = replace(call, answers=ACCEPT, request_state=question.state)
    found = answered(normal_call(again, made, Frozen(b"{}"), "none"), rounds, 2)
    assert found.round == normal.round is not None
    assert found.digest == normal.digest
    assert found.consenting
    assert (found.call.answers, found.call.request_state) == (None, None)


async def test_no_browser_finds_a_gateway_without_an_address(make_path: MakePath) -> None:
    world = await a_world(make_path, public_url=None)
    reply = await world.call()
    assert code(reply) == "consent_unavailable"
    assert "server.public_url" in reply.content.value()[0]["text"]
    assert world.desk.document() is None


async def test_pages_are_bounded_for_each_principal_and_for_all(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(make_path)
    pages, consents = world.path.pipeline.consenting.pages, world.consents
    made = []
    for number in range(consent_pages.MOST_EACH + 3):
        pages.room(DANA)
        leads = await consents.begin(REF, DANA, [str(number)], URL, None)
        made.append(pages.put(leads, "crm", (str(number),)))
    left = [each for each in made if pages.get(each.id) is not None]
    assert left == made[3:]
    for page in made[3:5]:
        pages.drop(page)
        ended = replace(page.leads, ends_ms=world.path.clock.now_ms() - 1)
        pages.put(ended, "crm", page.wanted)
    monkeypatch.setattr(consent_pages, "MOST", consent_pages.MOST_EACH)
    pages.room(BOT)  # what is too old takes no place
    for number in (1, 2):
        leads = await consents.begin(REF, BOT, [str(number)], URL, None)
        pages.put(leads, "crm", (str(number),))
    reply = await world.call(caller=replace(AGENT, chain=()))
    assert code(reply) == "rate_limited"


async def test_a_page_is_good_for_as_long_as_what_it_leads_to(make_path: MakePath) -> None:
    world = await a_world(make_path)
    first = await world.call()
    page = world.desk.page(world.page(first))
    assert page is not None
    pages = world.path.pipeline.consenting.pages
    late = replace(page, leads=replace(page.leads, ends_ms=world.path.clock.now_ms() - 1))
    pages.drop(page)
    old = pages.put(late.leads, "crm", ())
    assert world.desk.page(old.id) is None
    with pytest.raises(Refused):
        await world.desk.finish({"state": late.leads.state, "code": "abc"}, "any")
