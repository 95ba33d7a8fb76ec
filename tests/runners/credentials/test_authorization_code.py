"""People consent at a server that believes nothing, and runs are lent what they gave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from remit.errors import Code, Refused
from remit.model import Actor, CallerKind, ConsentState, Principal
from remit.runners.credentials.authorization_code import AuthorizationCodeBroker
from remit.runners.credentials.broker import BrokerFault, Held, NoConsent, Order
from remit.testing.consents import ALICE, BOB, REDIRECT
from tests.runners.credentials.consenting import DOCUMENT, Town, browse, town
from tests.runners.credentials.oauth import (
    KEYS,
    SECRET,
    pem,
    unhurried,  # noqa: F401 - a fixture
)
from tests.runners.credentials.world import order

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unhurried")]


@pytest.fixture
def place() -> Iterator[Town]:
    with town() as found:
        yield found


def run_of(principal: Principal = ALICE, **changed: Any) -> Order:
    chain = (Actor(subject=principal.subject, kind=CallerKind.HUMAN),)
    return order(**{"tenant": principal.tenant, "subject": "agent", "chain": chain, **changed})


async def given(
    broker: AuthorizationCodeBroker,
    principal: Principal = ALICE,
    scopes: tuple[str, ...] = ("read",),
    document: str | None = None,
) -> Any:
    page = await broker.begin(principal, scopes, REDIRECT, document)
    return await broker.finish(page.state, await browse(page))


# ------------------------------------------------------------------------------- asking


async def test_a_person_consents_and_runs_on_their_behalf_are_lent_the_token(place: Town) -> None:
    broker = place.broker()
    consent = await given(broker)
    assert (consent.scopes, consent.renewable, consent.expires_ms) == (("read",), True, None)
    advance = await broker.lend(run_of())
    grant = place.server.live(advance.fields["token"])
    assert grant is not None
    assert grant.resource == f"{place.resource.url}/mcp"
    assert advance.secrets == (advance.fields["token"],)
    assert "outlives the run" in str(advance.note)
    assert not await broker.revoke(Held(loan_id="loan-1", run_id="run"))
    assert (await broker.lend(run_of())).fields == advance.fields
    assert place.server.refreshes == 0


async def test_the_page_asks_with_s256_state_resource_and_the_exact_address(place: Town) -> None:
    await given(place.broker())
    (asked,) = place.server.pages
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert asked["redirect_uri"] == REDIRECT
    assert asked["resource"] == f"{place.resource.url}/mcp"
    assert asked["scope"] == "read"


@pytest.mark.parametrize("methods", [None, [], ["plain"], "S256 "])
async def test_a_server_that_does_not_say_s256_is_nobodys(place: Town, methods: Any) -> None:
    place.server.metadata["code_challenge_methods_supported"] = methods
    with pytest.raises(Refused, match="PKCE") as refused:
        await place.broker().begin(ALICE, (), REDIRECT, None)
    assert refused.value.code is Code.CONSENT_UNAVAILABLE
    assert place.server.clients == {}


@pytest.mark.parametrize("redirect", ["http://remit.example/cb", "https://a.example/cb?x=1", "cb"])
async def test_answers_come_to_a_plain_address_alone(place: Town, redirect: str) -> None:
    with pytest.raises(Refused) as refused:
        await place.broker().begin(ALICE, (), redirect, None)
    assert refused.value.code is Code.CONSENT_UNAVAILABLE


async def test_scopes_are_the_plans_else_the_sections_else_the_challenges(place: Town) -> None:
    broker = place.broker(scopes=["read", "write"])
    assert (await broker.begin(ALICE, ("read",), REDIRECT, None)).scopes == ("read",)
    assert (await broker.begin(ALICE, (), REDIRECT, None)).scopes == ("read", "write")
    with pytest.raises(Refused, match="scope"):
        await broker.begin(ALICE, ("admin",), REDIRECT, None)
    place.resource.challenge = 'Basic realm="x", Bearer scope="mcp:a mcp:b", error="invalid_token"'
    assert (await place.broker().begin(ALICE, (), REDIRECT, None)).scopes == ("mcp:a", "mcp:b")
    place.resource.challenge = None
    assert (await place.broker().begin(ALICE, (), REDIRECT, None)).scopes == ()


async def test_offline_access_is_asked_for_where_the_server_has_it(place: Town) -> None:
    place.server.metadata["scopes_supported"] = ["read", "offline_access"]
    page = await place.broker().begin(ALICE, ("read",), REDIRECT, None)
    assert page.scopes == ("offline_access", "read")
    # OpenID providers ignore it where people are not asked each time.
    assert parse_qs(urlsplit(page.url).query)["prompt"] == ["consent"]
    place.server.metadata["authorization_endpoint"] = f"{place.server.url}/authorize?prompt=login"
    own = await place.broker().begin(ALICE, ("read",), REDIRECT, None)
    assert parse_qs(urlsplit(own.url).query)["prompt"] == ["login"]
    place.server.metadata.clear()
    without = await place.broker().begin(ALICE, ("read",), REDIRECT, None)
    assert "prompt" not in parse_qs(urlsplit(without.url).query)


async def test_one_person_has_eight_pages_at_most_and_the_oldest_goes(place: Town) -> None:
    broker = place.broker()
    pages = [await broker.begin(ALICE, (), REDIRECT, None) for _ in range(9)]
    other = await broker.begin(BOB, (), REDIRECT, None)
    with pytest.raises(Refused) as refused:
        await broker.finish(pages[0].state, await browse(pages[0]))
    assert refused.value.code is Code.CONSENT_STATE_INVALID
    for page in (pages[1], pages[8], other):
        await broker.finish(page.state, await browse(page))


# ------------------------------------------------------------------------- whose client


async def test_a_client_registers_once_for_each_server(place: Town) -> None:
    await given(place.broker())
    await given(place.broker(), BOB)
    (name,) = place.server.clients
    about = place.server.clients[name]
    assert about["redirect_uris"] == [REDIRECT]
    assert about["grant_types"] == ["authorization_code", "refresh_token"]
    assert about["application_type"] == "native"
    assert about["token_endpoint_auth_method"] == "client_secret_basic"


async def test_another_address_for_answers_registers_anew(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    await broker.begin(ALICE, (), "https://remit.example/consents/callback", None)
    assert [each["application_type"] for each in place.server.clients.values()] == ["native", "web"]


async def test_a_client_by_which_nobody_consents_any_more_registers_anew(place: Town) -> None:
    await given(place.broker())
    place.ahead_ms = 6 * 86_400_000
    await given(place.broker())
    place.ahead_ms = 12 * 86_400_000
    await place.broker().begin(ALICE, (), REDIRECT, None)
    assert len(place.server.clients) == 1
    place.ahead_ms = 14 * 86_400_000
    await place.broker().begin(ALICE, (), REDIRECT, None)
    assert len(place.server.clients) == 2


async def test_a_client_may_be_the_address_of_its_metadata(place: Town) -> None:
    place.server.metadata["client_id_metadata_document_supported"] = True
    await given(place.broker(), document=DOCUMENT)
    assert place.server.clients == {}
    assert place.server.pages[0]["client_id"] == DOCUMENT


async def test_where_nobody_registers_a_client_has_to_be_written(place: Town) -> None:
    place.server.metadata["registration_endpoint"] = None
    with pytest.raises(Refused, match="client_id"):
        await given(place.broker(), document=DOCUMENT)
    place.server.known("remit")
    await given(place.broker(client_id="remit", client_auth="none"))


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
async def test_a_written_client_shows_its_secret_to_the_written_issuer(
    place: Town, way: str
) -> None:
    place.server.metadata["token_endpoint_auth_methods_supported"] = [way]
    place.server.known("remit", SECRET)
    written = {"client_id": "remit", "client_auth": way, "client_secret": "env:SECRET"}
    broker = place.broker({"client_secret": SECRET}, issuer=place.server.url, **written)
    await given(broker)
    place.ahead_ms = 3_600_000
    assert place.server.live((await broker.lend(run_of(lives_s=7_200))).fields["token"])


async def test_a_written_client_may_sign_for_the_issuer(place: Town) -> None:
    import jwt

    place.server.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    place.server.known("remit")
    written = {"client_id": "remit", "client_auth": "private_key_jwt", "private_key": "env:KEY"}
    await given(place.broker({"private_key": pem(KEYS["ES256"])}, **written))
    (form,) = [each.form for each in place.server.seen if each.path == "/token"]
    key = KEYS["ES256"].public_key()
    jwt.decode(form["client_assertion"], key, algorithms=["ES256"], audience=place.server.url)


# ----------------------------------------------------------------------------- mix-ups


@pytest.mark.threat("T-52")
@pytest.mark.parametrize("iss", ["https://evil.example", "/", None])
async def test_an_answer_of_another_issuer_is_refused(place: Town, iss: str | None) -> None:
    place.server.iss = f"{place.server.url}/" if iss == "/" else iss
    broker = place.broker()
    page = await broker.begin(ALICE, (), REDIRECT, None)
    with pytest.raises(Refused) as refused:
        await broker.finish(page.state, await browse(page))
    assert refused.value.code is Code.CONSENT_FAILED
    assert not [each for each in place.server.seen if each.path == "/token"]


@pytest.mark.threat("T-52")
async def test_an_issuer_that_says_nothing_of_iss_may_leave_it_out_but_not_lie(place: Town) -> None:
    place.server.metadata["authorization_response_iss_parameter_supported"] = None
    place.server.iss = None
    await given(place.broker())
    place.server.iss = "https://evil.example"
    with pytest.raises(Refused) as refused:
        await given(place.broker())
    assert refused.value.code is Code.CONSENT_FAILED


@pytest.mark.threat("T-52")
async def test_metadata_of_another_issuer_or_resource_leads_nowhere(place: Town) -> None:
    place.server.metadata["issuer"] = "https://evil.example"
    with pytest.raises(Refused, match="another issuer"):
        await place.broker().begin(ALICE, (), REDIRECT, None)
    place.resource.resource = "https://evil.example/mcp"
    with pytest.raises(Refused, match="another resource"):
        await place.broker().begin(ALICE, (), REDIRECT, None)


@pytest.mark.threat("T-52")
@pytest.mark.parametrize("which", ["authorization_endpoint", "token_endpoint"])
@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://login.example/", "https://10.0.0.1/"]
)
async def test_endpoints_lead_to_nothing_that_may_not_be_reached(
    place: Town, which: str, url: str
) -> None:
    place.server.metadata[which] = url
    with pytest.raises(Refused) as refused:
        await place.broker().begin(ALICE, (), REDIRECT, None)
    assert refused.value.code is Code.CONSENT_UNAVAILABLE


@pytest.mark.threat("T-52")
async def test_what_was_given_for_one_resource_is_not_shown_to_another(place: Town) -> None:
    await given(place.broker())
    other = place.broker(resource=f"{place.resource.url}/other")
    assert await other.status(ALICE, ()) is ConsentState.NEEDED
    with pytest.raises(NoConsent):
        await other.lend(run_of())


@pytest.mark.threat("T-52")
async def test_the_endpoints_that_are_written_are_the_ones_that_are_asked(place: Town) -> None:
    place.server.known("remit")
    url = place.server.url
    urls: dict[str, Any] = {"authorization_url": f"{url}/authorize", "token_url": f"{url}/token"}
    client: dict[str, Any] = {"client_id": "remit", "client_auth": "none"}
    with pytest.raises(Refused, match="another server"):
        await given(place.broker(**urls, **client))  # whose it is, nobody wrote
    await given(place.broker(**urls, **client, issuer=url))
    assert not [each for each in place.server.seen if "well-known" in each.path]
    assert [each.path for each in place.server.seen if each.path == "/register"] == []


# --------------------------------------------------------------------- whose consent


@pytest.mark.threat("T-51")
async def test_a_run_is_lent_the_consent_of_whoever_has_the_authority(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    for whose in (
        run_of(BOB),
        run_of(tenant="other"),
        order(tenant=ALICE.tenant, subject=BOB.subject),
        order(
            tenant=ALICE.tenant,
            subject=ALICE.subject,
            chain=(Actor(subject=BOB.subject, kind=CallerKind.HUMAN),),
        ),
    ):
        with pytest.raises(NoConsent):
            await broker.lend(whose)
    assert (await broker.lend(order(tenant=ALICE.tenant, subject=ALICE.subject))).fields["token"]
    chain = tuple(Actor(subject=who, kind=CallerKind.AGENT) for who in ("alice", "bob", "bot"))
    assert (await broker.lend(order(tenant="acme", subject="x", chain=chain))).fields["token"]
    with pytest.raises(NoConsent):
        await broker.lend(order(tenant="acme", subject="x", chain=chain[::-1]))


@pytest.mark.threat("T-51")
async def test_a_persons_record_in_anothers_place_is_none(place: Town) -> None:
    broker = place.broker()
    await given(broker, ALICE)
    await given(broker, BOB)
    alices, bobs = (
        next(name for name, each in place.kept.files.items() if each.get("subject") == who)
        for who in ("alice", "bob")
    )
    place.kept.files[bobs] = place.kept.files[alices]
    assert await place.broker().status(ALICE, ()) is ConsentState.HELD
    assert await place.broker().status(BOB, ()) is ConsentState.NEEDED
    del place.kept.files[alices]
    assert await place.broker().status(ALICE, ()) is ConsentState.NEEDED


@pytest.mark.threat("T-51")
async def test_a_code_is_of_the_page_that_asked_for_it(place: Town) -> None:
    broker = place.broker()
    mine = await broker.begin(ALICE, (), REDIRECT, None)
    theirs = await broker.begin(BOB, (), REDIRECT, None)
    stolen = await browse(theirs)
    page = await broker.begin(ALICE, (), REDIRECT, None)
    with pytest.raises(Refused) as refused:
        await broker.finish(page.state, stolen)
    assert refused.value.code is Code.CONSENT_FAILED
    assert not [each for each in place.server.seen if each.path == "/token"]
    with pytest.raises(Refused) as refused:  # the right state and the other's code: PKCE
        await broker.finish(mine.state, {**stolen, "state": mine.state})
    assert refused.value.code is Code.CONSENT_FAILED
    assert await broker.status(ALICE, ()) is ConsentState.NEEDED


@pytest.mark.threat("T-51")
async def test_an_answer_after_ten_minutes_is_too_late(place: Town) -> None:
    broker = place.broker()
    page = await broker.begin(ALICE, (), REDIRECT, None)
    answer = await browse(page)
    place.ahead_ms = 600_001
    with pytest.raises(Refused) as refused:
        await broker.finish(page.state, answer)
    assert refused.value.code is Code.CONSENT_STATE_INVALID


@pytest.mark.parametrize("code", ["", "x" * 4_097, "a\nb", "ü"])
async def test_an_answer_without_a_usable_code_is_none(place: Town, code: str) -> None:
    broker = place.broker()
    page = await broker.begin(ALICE, (), REDIRECT, None)
    with pytest.raises(Refused) as refused:
        await broker.finish(page.state, {**await browse(page), "code": code})
    assert refused.value.code is Code.CONSENT_FAILED


# -------------------------------------------------------------------------- renewing


async def test_a_token_that_ends_is_got_anew_with_the_last_refresh_token(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    tokens = set()
    for hour in range(4):
        place.ahead_ms = hour * 3_600_000
        token = (await broker.lend(run_of(lives_s=20_000))).fields["token"]
        assert place.server.live(token)
        tokens.add(token)
    assert len(tokens) == 4
    assert place.server.refreshes == 3


async def test_a_token_of_no_life_is_lent_once_and_got_anew_for_each_run(place: Town) -> None:
    place.server.lives_s = 0
    broker = place.broker()
    await given(broker)
    tokens = {(await broker.lend(run_of())).fields["token"] for _ in range(2)}
    assert (len(tokens), place.server.refreshes) == (2, 2)


async def test_a_new_token_is_kept_before_a_run_has_it(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    place.ahead_ms = 3_600_000
    token = (await broker.lend(run_of(lives_s=7_200))).fields["token"]
    assert place.kept.written[-1] == token
    assert (await place.broker().lend(run_of(lives_s=7_200))).fields["token"] == token


async def test_many_runs_at_once_renew_once(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    place.ahead_ms = 3_600_000
    lent = await asyncio.gather(*(broker.lend(run_of(lives_s=7_200)) for _ in range(8)))
    assert len({each.fields["token"] for each in lent}) == 1
    assert place.server.refreshes == 1


async def test_a_run_that_goes_away_does_not_lose_the_new_refresh_token(place: Town) -> None:
    import threading

    broker = place.broker()
    await given(broker)
    place.ahead_ms = 3_600_000
    place.server.asking = threading.Event()
    gone = asyncio.ensure_future(broker.lend(run_of(lives_s=7_200)))
    while not place.server.refreshes:
        await asyncio.sleep(0.01)
    gone.cancel()
    place.server.asking.set()
    place.server.asking = None
    assert place.server.live((await broker.lend(run_of(lives_s=7_200))).fields["token"])
    assert place.server.refreshes == 1


async def test_what_the_server_ended_is_held_no_more(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    place.server.grants[0].ended = True
    place.ahead_ms = 3_600_000
    with pytest.raises(NoConsent):
        await broker.lend(run_of(lives_s=7_200))
    assert await broker.status(ALICE, ()) is ConsentState.NEEDED
    assert await broker.listed() == []


async def test_a_server_that_is_not_there_ends_nothing(place: Town) -> None:
    from tests.runners.credentials.fakes import Reply

    broker = place.broker()
    await given(broker)
    place.ahead_ms = 3_600_000
    place.server.first = [Reply(500), Reply(400, {"error": "invalid_request"})]
    for _ in range(2):
        with pytest.raises(BrokerFault) as fault:
            await broker.lend(run_of(lives_s=7_200))
        assert not isinstance(fault.value, NoConsent)
    assert await broker.status(ALICE, ()) is ConsentState.HELD
    assert (await broker.lend(run_of(lives_s=7_200))).fields["token"]


async def test_without_a_refresh_token_it_ends_when_it_ends(place: Town) -> None:
    place.server.renews = False
    broker = place.broker()
    consent = await given(broker)
    assert not consent.renewable
    assert consent.expires_ms is not None
    place.ahead_ms = 3_600_000
    assert await broker.status(ALICE, ()) is ConsentState.NEEDED


async def test_a_server_that_forgot_the_client_has_another_register(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    place.server.clients.clear()
    place.ahead_ms = 3_600_000
    with pytest.raises(NoConsent):
        await broker.lend(run_of(lives_s=7_200))
    await given(broker)
    assert len(place.server.clients) == 1


# ---------------------------------------------------------- what servers say at a call


async def test_a_token_that_a_server_refuses_is_renewed_before_the_next_loan(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    first = await broker.lend(run_of(loan_id="one"))
    await broker.lend(run_of(loan_id="two"))
    await broker.unaccepted("one", None)
    await broker.unaccepted("two", None)
    second = await broker.lend(run_of(loan_id="three"))
    assert second.fields != first.fields
    await broker.unaccepted("one", None)  # of a token that is lent no more
    assert (await broker.lend(run_of())).fields == second.fields
    assert place.server.refreshes == 1


async def test_a_new_token_that_is_refused_too_has_the_person_asked_again(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    for name in ("one", "two"):
        assert await broker.status(ALICE, ()) is ConsentState.HELD
        await broker.lend(run_of(loan_id=name))
        await broker.unaccepted(name, None)
    assert await broker.status(ALICE, ()) is ConsentState.NEEDED


async def test_scopes_that_a_server_wants_are_asked_for_beside_those_held(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    await broker.lend(run_of(loan_id="one"))
    await broker.unaccepted("one", ["write"])
    assert await broker.status(ALICE, ("read",)) is ConsentState.NEEDED
    page = await broker.begin(ALICE, ("read",), REDIRECT, None)
    assert page.scopes == ("read", "write")
    await broker.finish(page.state, await browse(page))
    assert await broker.status(ALICE, ("read",)) is ConsentState.HELD


async def test_a_person_is_not_asked_twice_for_what_was_asked_for(place: Town) -> None:
    place.server.allows = {"read"}
    broker = place.broker()
    await given(broker, scopes=("read", "write"))
    await broker.lend(run_of(loan_id="one"))
    await broker.unaccepted("one", ["write"])
    assert await broker.status(ALICE, ("read",)) is ConsentState.HELD


async def test_a_server_that_always_wants_more_is_asked_for_a_few_times(place: Town) -> None:
    broker = place.broker()
    asked = 0
    while await broker.status(ALICE, ()) is ConsentState.NEEDED:
        await given(broker, scopes=())
        asked += 1
        name = f"loan-{asked}"
        await broker.lend(run_of(loan_id=name))
        await broker.unaccepted(name, [f"more-{asked}"])
    assert asked == 4


async def test_whoever_declines_more_keeps_what_they_gave_and_is_asked_no_more(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    await broker.lend(run_of(loan_id="one"))
    await broker.unaccepted("one", ["write"])
    page = await broker.begin(ALICE, ("read",), REDIRECT, None)
    answer = await browse(page)
    with pytest.raises(Refused) as refused:
        await broker.finish(page.state, {**answer, "error": "access_denied"})
    assert refused.value.code is Code.CONSENT_REFUSED
    assert await broker.status(ALICE, ("read",)) is ConsentState.HELD
    await broker.lend(run_of(loan_id="two"))
    await broker.unaccepted("two", ["write"])
    assert await broker.status(ALICE, ("read",)) is ConsentState.HELD
    assert await broker.status(ALICE, ("write",)) is ConsentState.NEEDED


async def test_nobody_is_asked_for_more_than_the_operator_wrote(place: Town) -> None:
    broker = place.broker(scopes=["read"])
    await given(broker)
    await broker.lend(run_of(loan_id="one"))
    await broker.unaccepted("one", ["admin"])
    assert await broker.status(ALICE, ()) is ConsentState.HELD


async def test_what_was_asked_for_beyond_what_is_written_now_is_not_lent(place: Town) -> None:
    await given(place.broker(scopes=["read", "write"]), scopes=("read", "write"))
    narrower = place.broker(scopes=["read"])
    assert await narrower.status(ALICE, ()) is ConsentState.NEEDED
    with pytest.raises(NoConsent):
        await narrower.lend(run_of())
    page = await narrower.begin(ALICE, (), REDIRECT, None)
    assert page.scopes == ("read",)
    await narrower.finish(page.state, await browse(page))
    assert await narrower.status(ALICE, ()) is ConsentState.HELD
    wider = place.broker(scopes=["read", "write"])
    assert await wider.status(ALICE, ("read",)) is ConsentState.HELD


async def test_a_plan_with_another_life_or_audience_is_lent_nothing(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    for wrong in (run_of(shortened=True), run_of(audience="https://else.example")):
        with pytest.raises(BrokerFault):
            await broker.lend(wrong)


@pytest.mark.parametrize(
    ("scope", "held"), [("read  write", ("read", "write")), ("", ("read",)), (None, ("read",))]
)
async def test_the_scopes_that_are_held_are_those_that_were_given(
    place: Town, scope: str | None, held: tuple[str, ...]
) -> None:
    place.server.change = lambda body: {**body, "scope": scope} if "access_token" in body else body
    assert (await given(place.broker())).scopes == held


@pytest.mark.parametrize(
    "wrong", [{"scope": 7}, {"scope": 'a"b'}, {"token_type": "DPoP"}, {"access_token": "a b"},
              {"expires_in": "soon"}, {"refresh_token": 7}],
)  # fmt: skip
async def test_tokens_that_are_not_of_the_documented_form_are_not_kept(
    place: Town, wrong: dict[str, Any]
) -> None:
    place.server.change = lambda body: body | wrong if "access_token" in body else body
    with pytest.raises(Refused) as refused:
        await given(place.broker())
    assert refused.value.code is Code.CONSENT_FAILED
    assert [each for each in place.kept.files.values() if "access_token" in each] == []


# ------------------------------------------------------------------------------ ending


async def test_what_is_revoked_is_ended_at_the_server(place: Town) -> None:
    broker = place.broker()
    await given(broker)
    token = (await broker.lend(run_of())).fields["token"]
    assert await broker.end(ALICE)
    assert place.server.live(token) is None
    assert await broker.status(ALICE, ()) is ConsentState.NEEDED


async def test_where_the_server_cannot_end_it_remit_forgets_it_and_says_so(place: Town) -> None:
    place.server.metadata["revocation_endpoint"] = None
    broker = place.broker()
    await given(broker)
    assert not await broker.end(ALICE)
    assert await broker.listed() == []
    assert not await place.broker().end(ALICE)
