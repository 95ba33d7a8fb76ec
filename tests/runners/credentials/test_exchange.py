"""Token exchange against an authorization server that verifies Remit's token by its JWKS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from remit.errors import ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held
from remit.runners.credentials.exchange import ExchangeBroker
from tests.runners.credentials.fakes import FakeAuthorization, Reply, serving
from tests.runners.credentials.world import TokenIssuer, kit, order, section, served

pytestmark = pytest.mark.anyio

SECRET = "s3cr%41t+:with space"


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    made = TokenIssuer()
    with served({"/.well-known/jwks.json": lambda: made.jwks}) as url:
        made.url = url
        yield made


@pytest.fixture
def server(issuer: TokenIssuer) -> FakeAuthorization:
    return FakeAuthorization(lambda: f"{issuer.url}/.well-known/jwks.json", lambda: issuer.url)


@pytest.fixture
def address(server: FakeAuthorization) -> Iterator[str]:
    with serving(server) as url:
        yield url


def make(address: str, issuer: TokenIssuer | None, **written: Any) -> ExchangeBroker:
    words = {
        "token_url": f"{address}/token",
        "revocation_url": f"{address}/revoke",
        "subject_audience": "https://login.example.com",
        "client_id": "remit",
        "client_secret": "env:SECRET",
        **written,
    }
    words = {key: value for key, value in words.items() if value is not None}
    found = section(broker="exchange", **words)
    return ExchangeBroker(kit(found, issuer, secrets={"client_secret": SECRET}))


def held(advance: Advance) -> Held:
    return Held(loan_id="loan-1", run_id="run-1", key=advance.key, expires_ms=advance.expires_ms)


async def refused(broker: ExchangeBroker, **changed: Any) -> str:
    with pytest.raises(BrokerFault) as caught:
        await broker.lend(order(**changed))
    await broker.aclose()
    return caught.value.message


async def test_the_runs_token_is_exchanged_for_one_with_the_plans_scopes(
    address: str, server: FakeAuthorization, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer, audience="payments", resource="https://pay.example.com/v1")
    advance = await broker.lend(order(scopes=("read", "write")))
    given = server.live[advance.fields["token"]]
    assert given["sub"] == "tenant:acme:environment:production:tool:db.report"
    assert given["scope"] == "read write"
    assert given["form"]["audience"] == "payments"
    assert given["form"]["resource"] == "https://pay.example.com/v1"
    assert given["form"]["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
    assert advance.secrets == (advance.fields["token"],)
    await broker.aclose()


async def test_the_token_is_dead_after_the_run_also_by_the_next_keeper(
    address: str, server: FakeAuthorization, issuer: TokenIssuer
) -> None:
    broker, following = make(address, issuer), make(address, issuer)
    advance = await broker.lend(order())
    assert advance.fields["token"] in server.live
    assert await following.revoke(held(advance)) is True
    assert await broker.revoke(held(advance)) is True
    assert server.live == {}
    await broker.aclose()
    await following.aclose()


async def test_a_client_without_a_secret_names_itself(
    address: str, server: FakeAuthorization, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer, client_id="open", client_secret=None)
    advance = await broker.lend(order())
    assert "authorization" not in server.seen[-1].headers
    assert await broker.revoke(held(advance)) is True
    assert server.live == {}
    await broker.aclose()


async def test_the_plans_audience_comes_before_the_sections(
    address: str, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer, audience="payments")
    assert "this audience or resource" in await refused(broker, audience="elsewhere")


async def test_each_refusal_is_said_in_our_words(
    address: str, server: FakeAuthorization, issuer: TokenIssuer
) -> None:
    assert "client_id and client_secret" in await refused(make(address, issuer, client_id="x"))
    wrong = make(address, issuer, subject_audience="https://other.example.com")
    assert "does not accept Remit's token" in await refused(wrong)
    assert "these scopes" in await refused(make(address, issuer), scopes=("admin",))
    server.first = [Reply(400, {"error": "secret-token-abc", "error_description": "abc-secret"})]
    assert await refused(make(address, issuer)) == (
        "the exchange was refused by the authorization server with status 400"
    )


async def test_a_token_of_another_issuer_is_refused(address: str, issuer: TokenIssuer) -> None:
    other = TokenIssuer()
    other.url = issuer.url
    assert "does not accept Remit's token" in await refused(make(address, other))


def change(**to: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda body: {**body, **to}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change(scope="read write"), "scope that was not asked for"),
        (change(scope=["read"]), "usable scope"),
        (change(issued_token_type="urn:ietf:params:oauth:token-type:refresh_token"), "kind"),
        (change(issued_token_type=None), "kind"),
        (change(token_type="DPoP"), "no bearer token"),
        (change(token_type="N_A"), "no bearer token"),
        (change(refresh_token="r"), "refresh token"),
        (change(expires_in="60"), "usable expires_in"),
        (change(expires_in=True), "usable expires_in"),
        (change(expires_in=-1), "usable expires_in"),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_revoked_and_not_lent(
    address: str,
    server: FakeAuthorization,
    issuer: TokenIssuer,
    changed: Callable[[dict[str, Any]], dict[str, Any]],
    said: str,
) -> None:
    server.change = changed
    assert said in await refused(make(address, issuer), scopes=("read",))
    assert server.live == {}


@pytest.mark.parametrize("token", [None, "", 7, "with space", "line\nbreak", "é"])
async def test_a_token_that_could_not_go_into_a_header_is_refused(
    address: str, server: FakeAuthorization, issuer: TokenIssuer, token: Any
) -> None:
    server.change = change(access_token=token)
    assert "usable access_token" in await refused(make(address, issuer))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":1,"a":2}', b"\xff", b"{" * 100])
async def test_an_answer_that_is_no_plain_object_is_refused(
    address: str, server: FakeAuthorization, issuer: TokenIssuer, body: bytes
) -> None:
    server.first = [Reply(200, body)]
    assert "no JSON object" in await refused(make(address, issuer))


async def test_what_outlives_the_run_and_cannot_be_revoked_is_not_lent(
    address: str, server: FakeAuthorization, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer, revocation_url=None)
    advance = await broker.lend(order(lives_s=90))
    assert advance.key is None
    assert advance.note == "it cannot be revoked"
    assert await broker.revoke(held(advance)) is False
    assert "outlive the run" in await refused(broker, lives_s=30)
    server.change = lambda body: {k: v for k, v in body.items() if k != "expires_in"}
    assert "outlive the run" in await refused(broker, lives_s=90)


async def test_a_failed_revocation_is_not_called_one(
    address: str, server: FakeAuthorization, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer)
    advance = await broker.lend(order())
    server.first = [Reply(503, {}, {"retry-after": "3600"})]
    with pytest.raises(BrokerFault, match="status 503"):
        await broker.revoke(held(advance))
    await broker.aclose()


def test_a_secret_without_a_client_and_a_missing_issuer_are_refused(
    address: str, issuer: TokenIssuer
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(address, issuer, client_id=None)
    assert caught.value.place == "client_id"
    with pytest.raises(ConfigError, match="issuer"):
        make(address, None)
