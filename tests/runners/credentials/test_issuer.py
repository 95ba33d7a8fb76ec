"""Tokens of runs: what they say, how long they live, and which keys verify them."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.errors import ConfigError
from remit.model import Actor, CallerKind
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.issuer import RunIssuer, subject
from remit.runners.credentials.keyring import PUBLISHED_MS, SKEW_MS, KeyRing
from tests.runners.credentials.issuing import AUDIENCE, verified
from tests.runners.credentials.world import now_ms, order

DAY_MS = 86_400_000


class Shelf:
    """Where a key ring is kept, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.now = now_ms()

    def save(self, data: bytes) -> None:
        self.data = data

    def ring(self, algorithm: str = "ES256", rotate_days: int = 30) -> KeyRing:
        return KeyRing(
            self.data,
            self.save,
            algorithm=algorithm,
            rotate_days=rotate_days,
            token_ms=300_000,
            now_ms=self.now,
        )


def issuer(shelf: Shelf, ring: KeyRing, **section: Any) -> RunIssuer:
    return RunIssuer(
        {"url": "https://remit.example", "ttl_s": 300} | section, ring, lambda: shelf.now
    )


def kids(ring: KeyRing) -> list[str]:
    return [key["kid"] for key in ring.jwks["keys"]]


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_verifies_against_the_published_keys_and_names_the_run(algorithm: str) -> None:
    shelf = Shelf()
    ring = shelf.ring(algorithm)
    wanted = order(
        approval_id="apr_1",
        approvers=("olga",),
        chain=(
            Actor(subject="root", kind=CallerKind.HUMAN),
            Actor(subject="bot", kind=CallerKind.AGENT),
        ),
    )
    claims = verified(issuer(shelf, ring).mint(AUDIENCE, wanted, 120), ring.jwks)
    assert claims["sub"] == "tenant:acme:environment:production:tool:db.report"
    assert claims["jti"] == wanted.loan_id
    assert (claims["run"], claims["fence"]) == (wanted.run_id, 7)
    assert (claims["plan_hash"], claims["tool_digest"]) == (wanted.plan_hash, wanted.tool_digest)
    assert claims["caller"] == {"subject": "ada", "kind": "agent", "groups": ["dev"]}
    assert (claims["approval"], claims["approvers"]) == ("apr_1", ["olga"])
    assert claims["act"] == {
        "sub": "ada",
        "kind": "agent",
        "act": {"sub": "bot", "kind": "agent", "act": {"sub": "root", "kind": "human"}},
    }


def test_a_token_ends_with_the_order_the_request_or_the_issuers_limit_whichever_is_first() -> None:
    shelf = Shelf()
    minter = issuer(shelf, shelf.ring())

    def lives(ttl_s: int, order_s: float) -> int:
        token = minter.mint(AUDIENCE, order(lives_s=order_s), ttl_s)
        claims = jwt.decode(token, options={"verify_signature": False})
        return int(claims["exp"] - claims["iat"])

    assert lives(60, 1_000) == 60
    assert lives(10_000, 10_000) == 300
    assert 27 <= lives(10_000, 28) <= 28
    with pytest.raises(BrokerFault):
        minter.mint(AUDIENCE, order(lives_s=0), 60)


@given(st.lists(st.text(min_size=1), min_size=6, max_size=6))
@example(["a", "b", "c:d", "a", "b", "c%3Ad"])
@example(["a", "b:tool:c", "d", "a", "b", "c:tool:d"])
def test_two_different_runs_never_have_one_subject(names: list[str]) -> None:
    first = order(tenant=names[0], environment=names[1], tool=names[2])
    second = order(tenant=names[3], environment=names[4], tool=names[5])
    assert (subject(first) == subject(second)) == (names[:3] == names[3:])
    assert subject(first).count(":") == 5


def test_a_key_is_published_before_it_signs_and_after_it_stopped() -> None:
    shelf = Shelf()
    ring = shelf.ring()
    ring.stock(shelf.now)
    old, coming = kids(ring)
    minter = issuer(shelf, ring)
    token = minter.mint(AUDIENCE, order(lives_s=600), 300)
    shelf.now += 30 * DAY_MS
    assert minter.mint(AUDIENCE, order(lives_s=40 * 86_400), 300)
    assert ring.current.kid == coming
    assert kids(ring) == [old, coming]
    assert verified(token, minter.jwks)["iss"] == "https://remit.example"
    shelf.now += 300_000 + SKEW_MS - 1
    assert old in kids_of(minter)
    shelf.now += 1
    assert kids_of(minter) == [coming]


def kids_of(minter: RunIssuer) -> list[str]:
    return [key["kid"] for key in minter.jwks["keys"]]


def test_a_key_that_was_not_published_long_enough_does_not_take_over_yet() -> None:
    shelf = Shelf()
    ring = shelf.ring()
    old = ring.current.kid
    shelf.now += 31 * DAY_MS
    ring.stock(shelf.now)
    ring.turn(shelf.now + PUBLISHED_MS - 1)
    assert ring.current.kid == old
    ring.turn(shelf.now + PUBLISHED_MS)
    assert ring.current.kid != old


def test_keys_outlive_the_process_and_a_change_of_algorithm_retires_them() -> None:
    shelf = Shelf()
    ring = shelf.ring()
    ring.stock(shelf.now)
    assert kids(shelf.ring()) == kids(ring)
    other = shelf.ring("RS256")
    assert other.current.algorithm == "RS256"
    assert {key["alg"] for key in other.jwks["keys"]} == {"ES256", "RS256"}
    assert "PRIVATE" not in json.dumps(other.jwks)
    assert all(
        set(key) <= {"kty", "n", "e", "crv", "x", "y", "kid", "use", "alg"}
        for key in other.jwks["keys"]
    )


def test_the_kid_is_the_keys_thumbprint() -> None:
    shelf = Shelf()
    key = shelf.ring("RS256").current
    assert len(key.kid) == 43
    assert jwt.PyJWK.from_dict(key.jwk).key_id == key.kid


def test_keys_that_cannot_be_read_are_not_replaced_in_silence() -> None:
    shelf = Shelf()
    shelf.data = b"{}"
    with pytest.raises(ConfigError):
        shelf.ring()
