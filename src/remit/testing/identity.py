"""Identities named in a test, and the contract that every `Identity` must keep.

    identity = NamedIdentity(callers={"key-ann": caller("ann")}, operators={"op-olga": operator})

To check a backend, subclass `IdentityContract` and override its `presented` fixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from remit.errors import Code, Refused
from remit.model import Actor, Caller, CallerKind, Operator, Permission
from remit.ports import Identity

NOW_MS = 1_800_000_000_000


class NamedIdentity:
    """Implements `Identity`: whoever presents one of these words is that caller or operator."""

    def __init__(
        self,
        callers: Mapping[str, Caller] | None = None,
        operators: Mapping[str, Operator] | None = None,
        *,
        now_ms: int = NOW_MS,
    ) -> None:
        self.callers = dict(callers or {})
        self.operators = dict(operators or {})
        self.now_ms = now_ms

    async def caller(self, bearer: str, now_ms: int) -> Caller:
        found = self.callers.get(bearer)
        if found is None or _over(found.expires_ms, now_ms):
            raise _refused()
        return replace(found, key_id=found.key_id or bearer)

    async def operator(self, bearer: str, now_ms: int) -> Operator:
        found = self.operators.get(bearer)
        if found is None or _over(found.expires_ms, now_ms):
            raise _refused()
        return replace(found, key_id=found.key_id or bearer)

    def key_ids(self) -> frozenset[str]:
        everyone: list[tuple[str, Caller | Operator]] = [
            *self.callers.items(),
            *self.operators.items(),
        ]
        return frozenset(
            who.key_id or bearer
            for bearer, who in everyone
            if not _over(who.expires_ms, self.now_ms)
        )

    def known(self, subject: str) -> Sequence[Caller]:
        return [
            replace(found, key_id=found.key_id or bearer)
            for bearer, found in self.callers.items()
            if found.subject == subject
        ]


def caller(subject: str = "ann", *, expires_ms: int | None = None) -> Caller:
    """An agent who acts for dana."""
    return Caller(
        tenant="t",
        subject=subject,
        kind=CallerKind.AGENT,
        groups=("agents",),
        chain=(Actor(subject="dana", kind=CallerKind.HUMAN),),
        expires_ms=expires_ms,
    )


def operator(subject: str = "olga", *, expires_ms: int | None = None) -> Operator:
    """An operator who may do everything."""
    return Operator(subject=subject, may=frozenset(Permission), expires_ms=expires_ms)


def _over(expires_ms: int | None, now_ms: int) -> bool:
    return expires_ms is not None and now_ms >= expires_ms


def _refused() -> Refused:
    return Refused(Code.UNAUTHENTICATED, "a valid key is required")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """An identity at `NOW_MS`, and bearer tokens: one of each kind that it knows.

    `caller` and `operator` are valid, `expired` is a caller's and ended at `NOW_MS`.
    """

    identity: Identity
    caller: str
    operator: str
    expired: str


class IdentityContract:
    """What every `Identity` must do."""

    @pytest.fixture
    def presented(self) -> Presented:
        raise NotImplementedError("override this fixture")

    async def test_valid_tokens_are_their_holders_with_a_key_id(self, presented: Presented) -> None:
        identity = presented.identity
        assert (await identity.caller(presented.caller, NOW_MS)).key_id in identity.key_ids()
        assert (await identity.operator(presented.operator, NOW_MS)).key_id in identity.key_ids()

    async def test_same_token_is_the_same_caller_each_time(self, presented: Presented) -> None:
        one = await presented.identity.caller(presented.caller, NOW_MS)
        assert one == await presented.identity.caller(presented.caller, NOW_MS + 1)

    async def test_callers_token_opens_no_operators_door_and_the_reverse(
        self, presented: Presented
    ) -> None:
        with pytest.raises(Refused):
            await presented.identity.operator(presented.caller, NOW_MS)
        with pytest.raises(Refused):
            await presented.identity.caller(presented.operator, NOW_MS)

    async def test_every_wrong_token_is_refused_in_the_same_words(
        self, presented: Presented
    ) -> None:
        said = set()
        for token in ("", "x", presented.caller[:-1], presented.expired, presented.operator):
            with pytest.raises(Refused) as refused:
                await presented.identity.caller(token, NOW_MS)
            error = refused.value
            assert error.code is Code.UNAUTHENTICATED
            said.add((error.message, error.place, error.hint, error.detail))
        assert len(said) == 1

    async def test_expired_key_was_valid_and_is_not_in_force(self, presented: Presented) -> None:
        before = await presented.identity.caller(presented.expired, NOW_MS - 1)
        assert before.key_id not in presented.identity.key_ids()

    async def test_those_who_hold_a_key_are_known_by_name_expired_or_not(
        self, presented: Presented
    ) -> None:
        identity = presented.identity
        for token, at in ((presented.caller, NOW_MS), (presented.expired, NOW_MS - 1)):
            holder = await identity.caller(token, at)
            assert holder in identity.known(holder.subject)
        assert list(identity.known("nobody of this name")) == []
        operator = await identity.operator(presented.operator, NOW_MS)
        assert all(one.key_id != operator.key_id for one in identity.known(operator.subject))
