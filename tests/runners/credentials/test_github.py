"""The GitHub App broker against a GitHub that checks the App's token, narrows and revokes."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from remit.errors import ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held
from remit.runners.credentials.github import GithubBroker
from tests.runners.credentials.fakes import FakeGithub, Reply, serving
from tests.runners.credentials.world import kit, now_ms, order, section

pytestmark = pytest.mark.anyio

KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text.decode()


@pytest.fixture
def github() -> FakeGithub:
    return FakeGithub(KEY.public_key())


@pytest.fixture
def address(github: FakeGithub) -> Iterator[str]:
    with serving(github) as url:
        yield url


def make(address: str, *, key: Any = KEY, now: Callable[[], int] = now_ms, **written: Any):
    words: dict[str, Any] = {
        "app_id": "4711",
        "installation_id": "77",
        "private_key": "env:KEY",
        "api": address,
        "repositories": ["site", "infra"],
        "permissions": {"contents": "write", "issues": "read"},
        **written,
    }
    secrets = {"private_key": pem(key)}
    return GithubBroker(kit(section(broker="github", **words), secrets=secrets, now=now))


@pytest.fixture
async def broker(address: str) -> AsyncIterator[GithubBroker]:
    made = make(address)
    yield made
    await made.aclose()


def held(advance: Advance) -> Held:
    return Held(loan_id="loan-1", run_id="run-1", key=advance.key, expires_ms=advance.expires_ms)


async def refused(broker: GithubBroker, *scopes: str) -> str:
    with pytest.raises(BrokerFault) as caught:
        await broker.lend(order(scopes=scopes))
    await broker.aclose()
    return caught.value.message


async def test_the_token_is_for_what_plan_and_section_both_name(
    broker: GithubBroker, github: FakeGithub
) -> None:
    scopes = ("permission:contents=read", "permission:issues=write", "repository:site")
    advance = await broker.lend(order(scopes=scopes))
    assert github.live[advance.fields["token"]] == {
        "repositories": ["site"],
        "permissions": {"contents": "read", "issues": "read"},
    }


async def test_without_scopes_it_is_for_what_the_section_names(
    broker: GithubBroker, github: FakeGithub
) -> None:
    advance = await broker.lend(order())
    assert github.live[advance.fields["token"]] == {
        "repositories": ["infra", "site"],
        "permissions": {"contents": "write", "issues": "read"},
    }


@pytest.mark.parametrize(
    ("scopes", "said"),
    [
        (("repository:secret-plans", "permission:contents=read"), "no repository in common"),
        (("repository:site", "permission:administration=write"), "no permission in common"),
        (("repository:site",), "no permission in common"),
        (("permission:contents=read",), "no repository in common"),
        (("repository:site", "permission:contents=owner"), "neither"),
        (("repository:site", "permission:contents"), "neither"),
        (("repository:", "permission:contents=read"), "neither"),
        (("everything",), "neither"),
    ],
)
async def test_an_empty_or_unclear_meet_is_refused_before_anything_is_asked(
    broker: GithubBroker, github: FakeGithub, scopes: tuple[str, ...], said: str
) -> None:
    assert said in await refused(broker, *scopes)
    assert github.seen == []


async def test_the_token_is_dead_after_the_run_and_revoking_twice_is_revoking_once(
    broker: GithubBroker, github: FakeGithub
) -> None:
    advance = await broker.lend(order())
    assert advance.fields["token"] in github.live
    assert await broker.revoke(held(advance)) is True
    assert github.live == {}
    assert await broker.revoke(held(advance)) is True


async def test_another_keeper_ends_it_from_what_was_kept(
    broker: GithubBroker, address: str, github: FakeGithub
) -> None:
    advance = await broker.lend(order())
    following = make(address)
    assert await following.revoke(held(advance)) is True
    assert github.live == {}
    await following.aclose()


async def test_what_was_never_given_is_not_called_revoked(broker: GithubBroker) -> None:
    assert await broker.revoke(Held(loan_id="loan-1", run_id="run-1")) is False


@pytest.mark.threat("T-33")
async def test_the_loan_lives_an_hour_and_its_note_says_for_what(broker: GithubBroker) -> None:
    advance = await broker.lend(order())
    assert advance.expires_ms is not None
    assert 3_500_000 < advance.expires_ms - now_ms() <= 3_600_000
    assert advance.note == "for contents=write, issues=read on infra, site"
    assert advance.secrets == (advance.fields["token"],)
    assert advance.fields["token"] not in repr(advance) + repr(held(advance)) + repr(broker)


def wider_permission(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "permissions": {**body["permissions"], "administration": "write"}}


def higher_level(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "permissions": {**body["permissions"], "issues": "write"}}


def unknown_level(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "permissions": {"contents": "all"}}


def metadata_write(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "permissions": {"metadata": "write"}}


def wider_repository(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "repositories": [*body["repositories"], {"id": 3, "name": "secret-plans"}]}


def all_repositories(body: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k != "repositories"}


def longer(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "expires_at": "2999-01-01T00:00:00Z"}


def without_end(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "expires_at": None}


@pytest.mark.parametrize(
    "change",
    [
        wider_permission,
        higher_level,
        unknown_level,
        metadata_write,
        wider_repository,
        all_repositories,
        longer,
        without_end,
    ],
)
async def test_an_answer_that_is_wider_than_asked_is_revoked_and_not_lent(
    broker: GithubBroker, github: FakeGithub, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    github.change = change
    await refused(broker)
    assert github.live == {}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "App's key or id"),
        (403, "suspended"),
        (404, "no such installation"),
        (422, "does not have all"),
        (418, "status 418"),
    ],
)
async def test_each_refusal_says_what_to_mend_and_is_not_asked_again(
    broker: GithubBroker, github: FakeGithub, status: int, said: str
) -> None:
    secret = "ghs_what_the_other_side_wrote"
    github.first = [Reply(status, {"message": secret})]
    message = await refused(broker)
    assert said in message
    assert secret not in message
    assert len(github.seen) == 1


async def test_a_key_or_an_installation_of_another_app_is_refused(address: str) -> None:
    assert "App's key or id" in await refused(make(address, key=OTHER))
    assert "App's key or id" in await refused(make(address, app_id="4712"))
    assert "no such installation" in await refused(make(address, installation_id="78"))
    assert "does not have all" in await refused(make(address, repositories=["elsewhere"]))


def _skewed(by_ms: int) -> int:
    return now_ms() + by_ms


async def test_a_clock_that_is_slow_or_fast_by_half_a_minute_does_no_harm(address: str) -> None:
    for skew in (-30_000, 30_000):
        broker = make(address, now=functools.partial(_skewed, skew))
        await broker.lend(order())
        await broker.aclose()


async def test_a_rate_limit_is_waited_for_only_if_it_is_short(
    broker: GithubBroker, github: FakeGithub
) -> None:
    github.first = [Reply(429, {}, {"retry-after": "0"})]
    assert (await broker.lend(order())).fields["token"] in github.live
    github.first = [Reply(429, {}, {"retry-after": "60"})]
    github.seen.clear()
    assert "rate limit" in await refused(broker)
    assert len(github.seen) == 1


async def test_a_token_is_never_asked_for_twice_where_the_first_may_have_been_given(
    broker: GithubBroker, github: FakeGithub
) -> None:
    for reply in (Reply(500, {}), Reply(502, {}), Reply(200, broken=True)):
        github.first = [reply]
        github.seen.clear()
        await refused(broker)
        assert len(github.seen) == 1


async def test_revoking_is_tried_again_and_its_failure_is_said(
    broker: GithubBroker, github: FakeGithub
) -> None:
    advance = await broker.lend(order())
    github.first = [Reply(500, {}), Reply(200, broken=True)]
    assert await broker.revoke(held(advance)) is True
    advance = await broker.lend(order())
    github.first = [Reply(500, {})] * 3
    with pytest.raises(BrokerFault, match="did not revoke"):
        await broker.revoke(held(advance))
    github.first = [Reply(403, {})]
    with pytest.raises(BrokerFault, match="did not revoke"):
        await broker.revoke(held(advance))


@pytest.mark.parametrize("place", ["repositories", "permissions"])
def test_a_section_that_would_mean_everything_is_refused(address: str, place: str) -> None:
    empty: Any = [] if place == "repositories" else {}
    with pytest.raises(ConfigError) as caught:
        make(address, **{place: empty})
    assert caught.value.place == place


def test_a_key_that_is_not_rsa_is_refused_without_a_word_of_it(address: str) -> None:
    for key in (pem(ec.generate_private_key(ec.SECP256R1())), "hunter2-is-no-key"):
        found: dict[str, Any] = {"app_id": "1", "installation_id": "1", "api": address}
        found |= {"repositories": ["a"], "permissions": {"contents": "read"}}
        with pytest.raises(ConfigError) as caught:
            GithubBroker(kit(found, secrets={"private_key": key}))
        assert caught.value.place == "private_key"
        assert key not in str(caught.value)
