"""Keys: who holds one is known by its hash alone, and every wrong token is refused alike."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import Code, ConfigError, Refused
from remit.identity.keys import CallerKey, KeyIdentity, NewKey, OperatorKey, new_key, token_hash
from remit.model import Actor, Caller, CallerKind, Operator, Permission

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000_000


def caller_key(key: NewKey, *, expires_ms: int | None = None) -> CallerKey:
    chain = (Actor(subject="dana", kind=CallerKind.HUMAN),)
    caller = Caller(
        tenant="t", subject="bot", kind=CallerKind.AGENT, chain=chain, expires_ms=expires_ms
    )
    return CallerKey(id=key.id, sha256=key.sha256, caller=caller)


def operator_key(key: NewKey, *, expires_ms: int | None = None) -> OperatorKey:
    operator = Operator(subject="olga", may=frozenset({Permission.APPROVE}), expires_ms=expires_ms)
    return OperatorKey(id=key.id, sha256=key.sha256, operator=operator)


def told(refused: pytest.ExceptionInfo[Refused]) -> tuple[object, ...]:
    error = refused.value
    return error.code, error.message, error.place, error.hint, error.detail


AGENT = new_key("agent")
OLGA = new_key("olga")
STALE = new_key("stale")
IDENTITY = KeyIdentity(
    [caller_key(AGENT), caller_key(STALE, expires_ms=NOW)], [operator_key(OLGA)], now=lambda: NOW
)


async def test_holder_of_a_key_is_its_caller_with_the_whole_chain() -> None:
    caller = await IDENTITY.caller(AGENT.token, NOW)
    assert (caller.subject, caller.key_id) == ("bot", "agent")
    assert caller.involves("dana")


async def test_holder_of_an_operators_key_is_that_operator() -> None:
    operator = await IDENTITY.operator(OLGA.token, NOW)
    assert (operator.subject, operator.key_id) == ("olga", "olga")


WRONG = {
    "empty": "",
    "other secret": AGENT.token[:-1] + ("A" if AGENT.token[-1] != "A" else "B"),
    "unknown id": AGENT.token.replace("_agent_", "_agens_"),
    "expired": STALE.token,
    "operator's": OLGA.token,
    "the stored hash": AGENT.sha256,
    "with a newline": AGENT.token + "\n",
    "not ascii": "remit_agent_" + "é" * 43,
    "very long": "remit_" + "a" * 100_000,
    "upper-case id": AGENT.token.replace("agent", "AGENT"),
}


@pytest.mark.threat("T-02")
@pytest.mark.parametrize("how", sorted(WRONG))
async def test_every_wrong_token_is_refused_in_the_same_words(how: str) -> None:
    with pytest.raises(Refused) as wrong:
        await IDENTITY.caller(WRONG[how], NOW)
    with pytest.raises(Refused) as unknown:
        await IDENTITY.caller("remit_nobody_" + "x" * 43, NOW)
    assert told(wrong) == told(unknown)
    assert wrong.value.code is Code.UNAUTHENTICATED


@pytest.mark.threat("T-02")
@pytest.mark.threat("T-09")
async def test_callers_key_is_never_an_operators() -> None:
    with pytest.raises(Refused):
        await IDENTITY.operator(AGENT.token, NOW)


@pytest.mark.threat("T-02")
async def test_key_is_refused_from_the_millisecond_it_expires() -> None:
    key = new_key("short")
    identity = KeyIdentity([caller_key(key, expires_ms=NOW)], [], now=lambda: NOW)
    assert (await identity.caller(key.token, NOW - 1)).expires_ms == NOW
    with pytest.raises(Refused):
        await identity.caller(key.token, NOW)


async def test_operators_key_expires_too() -> None:
    key = new_key("short")
    identity = KeyIdentity([], [operator_key(key, expires_ms=NOW)], now=lambda: NOW)
    with pytest.raises(Refused):
        await identity.operator(key.token, NOW)


@pytest.mark.threat("T-10")
def test_expired_keys_are_not_among_those_in_force() -> None:
    assert IDENTITY.key_ids() == {"agent", "olga"}


@pytest.mark.threat("T-02")
@given(st.text(max_size=200))
def test_no_text_but_the_token_is_anyone(text: str) -> None:
    import anyio

    async def ask() -> bool:
        try:
            await IDENTITY.caller(text, NOW)
        except Refused:
            return False
        return True

    assert anyio.run(ask) is False


def test_new_keys_never_repeat_and_hold_256_random_bits() -> None:
    tokens = {new_key("k").token for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {len("remit_k_") + 43}


@pytest.mark.threat("T-26")
def test_token_is_not_in_the_keys_repr_and_is_stored_hashed() -> None:
    key = new_key("k")
    assert key.token not in repr(key)
    assert key.sha256 == hashlib.sha256(key.token.encode()).hexdigest() == token_hash(key.token)


@pytest.mark.parametrize("bad", ["", "A", "a_b", "-a", "a" * 41, "a\n", "é"])
def test_key_id_that_is_no_plain_name_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError) as error:
        new_key(bad)
    assert error.value.hint


def test_two_keys_with_one_id_are_refused_even_across_the_tables() -> None:
    again = new_key("agent")
    with pytest.raises(ConfigError):
        KeyIdentity([caller_key(AGENT), caller_key(again)], [], now=lambda: NOW)
    with pytest.raises(ConfigError):
        KeyIdentity([caller_key(AGENT)], [operator_key(again)], now=lambda: NOW)


@pytest.mark.threat("T-09")
def test_one_token_for_both_an_agent_and_an_operator_is_refused() -> None:
    other = NewKey(id="other", token=AGENT.token, sha256=AGENT.sha256)
    with pytest.raises(ConfigError):
        KeyIdentity([caller_key(AGENT)], [operator_key(other)], now=lambda: NOW)
