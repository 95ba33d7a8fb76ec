"""Tokens for Remit itself: how it shows who it is, what it asks for, what it lends, what it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from remit.errors import ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held
from remit.runners.credentials.client_credentials import SHARED, ClientCredentialsBroker
from tests.runners.credentials.fakes import Reply
from tests.runners.credentials.oauth import (
    KEYS,
    Place,
    pem,
    placed,
    unhurried,  # noqa: F401 - a fixture
)
from tests.runners.credentials.world import kit, now_ms, order, section

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unhurried")]

WAYS = ("client_secret_basic", "client_secret_post", "private_key_jwt")


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as made:
        yield made


def held(advance: Advance) -> Held:
    return Held(loan_id="loan-1", run_id="run-1", key=advance.key, expires_ms=advance.expires_ms)


async def refused(broker: ClientCredentialsBroker, **changed: Any) -> str:
    with pytest.raises(BrokerFault) as caught:
        await broker.lend(order(**changed))
    await broker.aclose()
    return caught.value.message


# ------------------------------------------------------------------------- who asks, and for what


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_to_show_the_client_gives_a_token_for_the_resource(
    place: Place, way: str
) -> None:
    broker = place.broker(client_auth=way, scopes=["read"])
    advance = await broker.lend(order())
    form = place.server.live[advance.fields["token"]]
    assert (form["resource"], form["scope"]) == (f"{place.resource.url}/mcp", "read")
    assert advance.secrets == (advance.fields["token"],)
    assert advance.expires_ms is not None
    await broker.aclose()


@pytest.mark.parametrize("algorithm", sorted(KEYS))
async def test_each_kind_of_key_signs_what_the_server_verifies_and_nothing_is_shown_twice(
    place: Place, algorithm: str
) -> None:
    place.secrets["private_key"] = pem(KEYS[algorithm])
    broker = place.broker(client_auth="private_key_jwt")
    first, second = await broker.lend(order()), await broker.lend(order())
    assert first.fields != second.fields
    assert len(place.server.seen_jti) == 2
    await broker.aclose()


async def test_a_secret_is_neither_in_the_form_nor_in_the_address_of_a_basic_client(
    place: Place,
) -> None:
    broker = place.broker()
    await broker.lend(order())
    sent = [each for each in place.server.seen if each.path == "/token"]
    assert b"s3cr" not in sent[0].body
    assert sent[0].headers["authorization"].startswith("Basic ")
    await broker.aclose()


async def test_the_plans_scopes_narrow_the_sections_and_never_widen_them(place: Place) -> None:
    broker = place.broker(scopes=["read", "write"])
    narrow = await broker.lend(order(scopes=("write",)))
    assert place.server.live[narrow.fields["token"]]["scope"] == "write"
    assert "scope that the section does not have" in await refused(broker, scopes=("admin",))


async def test_the_servers_own_words_are_never_passed_on(place: Place) -> None:
    broker = place.broker(token_url=f"{place.server.url}/token")
    place.server.first = [Reply(400, {"error": "secret-abc", "error_description": "secret-abc"})]
    said = await refused(broker)
    assert said == "the authorization server gave no token, with status 400"
    assert "it does not give these scopes" in await refused(place.broker(), scopes=("admin",))


def change(**to: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda body: {**body, **to} if "access_token" in body else body


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change(scope="read write"), "scope that was not asked for"),
        (change(scope=["read"]), "usable scope"),
        (change(token_type="DPoP"), "no bearer token"),
        (change(token_type=None), "no bearer token"),
        (change(refresh_token="r"), "refresh token"),
        (change(expires_in="60"), "usable expires_in"),
        (change(expires_in=-1), "usable expires_in"),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_revoked_and_not_lent(
    place: Place, changed: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    place.server.change = changed
    assert said in await refused(place.broker(scopes=["read"]))
    assert place.server.given
    assert place.server.live == {}


# ------------------------------------------------------------------------------------- its end


@pytest.mark.threat("T-34")
async def test_a_runs_token_is_dead_after_it_also_by_the_next_keeper(place: Place) -> None:
    broker, following = place.broker(), place.broker()
    advance = await broker.lend(order())
    assert advance.fields["token"] in place.server.live
    assert await following.revoke(held(advance)) is True
    assert place.server.live == {}
    assert await broker.revoke(held(advance)) is True
    await broker.aclose()
    await following.aclose()


@pytest.mark.threat("T-34")
@pytest.mark.parametrize("lives_s", [3_600, None])
async def test_a_token_that_would_outlive_its_run_for_good_is_not_lent(
    place: Place, lives_s: int | None
) -> None:
    place.server.lives_s = lives_s
    place.server.metadata = {"revocation_endpoint": None}
    assert "would outlive the run" in await refused(place.broker(), lives_s=90)


async def test_a_short_token_that_cannot_be_revoked_says_so(place: Place) -> None:
    place.server.metadata = {"revocation_endpoint": None}
    broker = place.broker()
    advance = await broker.lend(order(lives_s=90))
    assert advance.note == "it cannot be revoked"
    assert await broker.revoke(held(advance)) is False
    await broker.aclose()


# ------------------------------------------------------------------------------------ sharing


async def test_runs_share_a_token_only_where_the_operator_says_so_and_the_loan_tells_it(
    place: Place,
) -> None:
    place.server.lives_s = 600
    broker = place.broker(unsafe_keep_s=300)
    first = await broker.lend(order())
    others = await asyncio.gather(*(broker.lend(order()) for _ in range(3)))
    assert {each.fields["token"] for each in (first, *others)} == set(place.server.live)
    assert len(place.server.given) == 1
    assert {each.note for each in (first, *others)} == {SHARED}
    assert first.expires_ms is not None
    assert first.expires_ms > now_ms() + 300_000
    assert await broker.revoke(held(first)) is False
    assert len(place.server.live) == 1
    await broker.aclose()


async def test_those_who_ask_at_once_wait_for_one_token(place: Place) -> None:
    place.server.lives_s = 600
    broker = place.broker(unsafe_keep_s=300)
    found = await asyncio.gather(*(broker.lend(order()) for _ in range(4)))
    assert len({each.fields["token"] for each in found}) == len(place.server.given) == 1
    await broker.aclose()


async def test_other_scopes_and_other_audiences_have_tokens_of_their_own(place: Place) -> None:
    place.server.lives_s = 600
    broker = place.broker(unsafe_keep_s=300, scopes=["read", "write"])
    asked: list[dict[str, Any]] = [
        {"scopes": ("read",)},
        {"scopes": ("write",)},
        {"scopes": ("read",), "audience": "there"},
    ]
    found = [await broker.lend(order(**each)) for each in asked]
    assert len({each.fields["token"] for each in found}) == 3
    await broker.aclose()


@pytest.mark.threat("T-34")
async def test_a_run_whose_life_policy_shortens_never_gets_a_shared_token(place: Place) -> None:
    place.server.lives_s = 600
    broker = place.broker(unsafe_keep_s=300)
    shared = await broker.lend(order())
    own = await broker.lend(order(shortened=True))
    assert own.fields != shared.fields
    assert own.note is None
    assert await broker.revoke(held(own)) is True
    await broker.aclose()


@pytest.mark.parametrize(("seconds", "again"), [(299, 1), (300, 2), (30, 1)])
async def test_a_token_is_shared_for_so_long_and_no_longer(
    place: Place, seconds: int, again: int
) -> None:
    place.server.lives_s = 600
    broker, late_ms = _by_clock(place, unsafe_keep_s=300)
    await broker.lend(order())
    late_ms[0] = 1000 * seconds
    await broker.lend(order(lives_s=1_000))
    assert len(place.server.given) == again
    await broker.aclose()


async def test_a_token_that_is_about_to_end_is_not_lent_again(place: Place) -> None:
    place.server.lives_s = 100
    broker, late_ms = _by_clock(place, unsafe_keep_s=300)
    for after_s, given in ((0, 1), (69, 1), (71, 2)):
        late_ms[0] = 1000 * after_s
        await broker.lend(order(lives_s=1_000))
        assert len(place.server.given) == given
    await broker.aclose()


@pytest.mark.threat("T-34")
@pytest.mark.parametrize("lives_s", [7_201, None])
async def test_a_shared_token_has_to_end_by_itself_and_soon(
    place: Place, lives_s: int | None
) -> None:
    place.server.lives_s = lives_s
    assert "end within 7200 s" in await refused(place.broker(unsafe_keep_s=300))
    assert place.server.live == {}


async def test_a_failure_is_not_shared(place: Place) -> None:
    place.server.lives_s = 600
    broker = place.broker(unsafe_keep_s=300, token_url=f"{place.server.url}/token")
    place.server.first = [Reply(400, {"error": "access_denied"})]
    with pytest.raises(BrokerFault, match="its policy refuses this"):
        await broker.lend(order())
    assert (await broker.lend(order())).fields["token"] in place.server.live
    await broker.aclose()


def _by_clock(place: Place, **written: Any) -> tuple[ClientCredentialsBroker, list[int]]:
    """A broker whose clock stands, and goes on by what the list holds."""
    began, late_ms = now_ms(), [0]
    made = place.broker(**written)
    made._now = lambda: began + late_ms[0]
    assert made._kept is not None
    made._kept._now = made._now
    return made, late_ms


# ------------------------------------------------------------------------------- configuration


def made(**written: Any) -> ClientCredentialsBroker:
    words = {
        "resource": "https://crm.example.com/mcp",
        "issuer": "https://login.example.com",
        "client_id": "remit",
        "client_auth": "private_key_jwt",
        **written,
    }
    found = section(
        broker="client_credentials", **{k: v for k, v in words.items() if v is not None}
    )
    return ClientCredentialsBroker(kit(found, secrets={"private_key": KEY, "client_secret": "s"}))


KEY = pem(KEYS["ES256"])


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ({"resource": "http://crm.example.com/mcp"}, "resource"),
        ({"issuer": "http://login.example.com"}, "issuer"),
        ({"issuer": "https://login.example.com?x=1"}, "issuer"),
        ({"token_url": "http://login.example.com/token"}, "token_url"),
        ({"issuer": None}, "issuer"),
        ({"find_issuer": True}, "issuer"),
    ],
)
def test_what_the_keeper_cannot_use_is_told_when_it_starts(
    written: dict[str, Any], at: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**written)
    assert caught.value.place == at


@pytest.mark.threat("T-41")
@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_a_secret_is_never_for_whomever_the_resource_names(way: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(issuer=None, find_issuer=True, client_auth=way)
    assert caught.value.place == "find_issuer"


@pytest.mark.parametrize(
    "text",
    [
        "no key",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(public_exponent=65_537, key_size=1_024)),
    ],
)
def test_a_key_that_is_not_signed_with_is_told_when_the_keeper_starts(text: str) -> None:
    found = section(
        broker="client_credentials",
        resource="https://crm.example.com/mcp",
        issuer="https://login.example.com",
        client_id="remit",
        client_auth="private_key_jwt",
    )
    with pytest.raises(ConfigError) as caught:
        ClientCredentialsBroker(kit(found, secrets={"private_key": text}))
    assert caught.value.place == "private_key"
