"""Consents from memory, and the contract that every `Consents` must keep.

The fake asks nobody: whoever finishes with the state of what was begun has consented.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest

from remit.errors import Code, Refused
from remit.model import Consent, ConsentPage, ConsentState, Lease, Principal
from remit.ports import Consents

ALICE = Principal(tenant="acme", subject="alice")
BOB = Principal(tenant="acme", subject="bob")
ELSEWHERE = Principal(tenant="other", subject="alice")
REDIRECT = "http://127.0.0.1:8700/consents/callback"
TEN_MINUTES_MS = 600_000


@dataclass(slots=True)
class _Begun:
    page: ConsentPage
    used: bool = False


class MemoryConsents:
    """The `Consents` port without a keeper.

    Args:
        refs: the handles that are lent by consent.
        host: of the authorization server that pages lead to.
        now: milliseconds since the epoch.
    """

    def __init__(
        self,
        refs: Sequence[str],
        *,
        host: str = "login.example.com",
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._refs = frozenset(refs)
        self._host = host
        self._now = now
        self._numbers = itertools.count(1)
        self._begun: dict[str, _Begun] = {}
        self._wanted: dict[tuple[str, Principal], frozenset[str]] = {}
        self.held: dict[tuple[str, Principal], Consent] = {}
        self.loans: dict[str, tuple[str, Principal]] = {}
        self.revokes = True

    def asks(self, ref: str) -> bool:
        return ref in self._refs

    async def status(
        self, ref: str, principal: Principal, scopes: Sequence[str] = ()
    ) -> ConsentState:
        held = self.held.get((ref, principal))
        wanted = {*scopes, *self._wanted.get((ref, principal), ())}
        return (
            ConsentState.HELD
            if held is not None and wanted <= set(held.scopes)
            else ConsentState.NEEDED
        )

    async def begin(
        self,
        ref: str,
        principal: Principal,
        scopes: Sequence[str],
        redirect_uri: str,
        client_document: str | None,
    ) -> ConsentPage:
        if ref not in self._refs:
            raise Refused(Code.CONSENT_UNAVAILABLE, "no such handle is lent by consent")
        held = self.held.get((ref, principal))
        asked = {*scopes, *self._wanted.get((ref, principal), ()), *(held.scopes if held else ())}
        state = f"state-{next(self._numbers)}"
        query = urlencode({"state": state, "redirect_uri": redirect_uri})
        page = ConsentPage(
            ref=ref,
            principal=principal,
            url=f"https://{self._host}/authorize?{query}",
            host=self._host,
            scopes=tuple(sorted(asked)),
            state=state,
            ends_ms=self._now() + TEN_MINUTES_MS,
        )
        self._begun[state] = _Begun(page)
        return page

    async def finish(self, state: str, answer: Mapping[str, str]) -> Consent:
        begun = self._begun.get(state)
        if begun is None or begun.used or begun.page.ends_ms <= self._now():
            raise Refused(Code.CONSENT_STATE_INVALID, "nothing is being asked with this state")
        begun.used = True
        if answer.get("error"):
            raise Refused(Code.CONSENT_REFUSED, "the person said no")
        if not answer.get("code") or answer.get("state", state) != state:
            raise Refused(Code.CONSENT_FAILED, "the answer cannot be used")
        page = begun.page
        consent = Consent(
            ref=page.ref,
            principal=page.principal,
            scopes=page.scopes,
            given_ms=self._now(),
            renewable=True,
        )
        self.held[(page.ref, page.principal)] = consent
        self._wanted.pop((page.ref, page.principal), None)
        return consent

    async def listed(self, tenant: str | None = None) -> Sequence[Consent]:
        found = [each for each in self.held.values() if tenant in (None, each.principal.tenant)]
        return sorted(
            found, key=lambda each: (each.ref, each.principal.tenant, each.principal.subject)
        )

    async def revoke(self, ref: str, principal: Principal) -> bool:
        return self.held.pop((ref, principal), None) is not None and self.revokes

    async def unaccepted(self, lease: Lease, scopes: Sequence[str] | None = None) -> None:
        whose = self.loans.get(lease.id)
        if whose is not None and scopes:
            self._wanted[whose] = self._wanted.get(whose, frozenset()) | frozenset(scopes)


Visit = Callable[[ConsentPage], Awaitable[Mapping[str, str]]]
"""Goes to the page as a person who says yes, and gives the parameters that came back."""


class ConsentsContract:
    """What every `Consents` must do: subclass, and override the fixtures.

    The handle `contract` is lent by consent, with the scopes `read` and `write`; `plain` is not.
    """

    CLIENT_DOCUMENT: str | None = None

    @pytest.fixture
    def consents(self) -> Consents:
        raise NotImplementedError

    @pytest.fixture
    def visit(self) -> Visit:
        raise NotImplementedError

    async def begun(
        self, consents: Consents, principal: Principal = ALICE, scopes: Sequence[str] = ("read",)
    ) -> ConsentPage:
        return await consents.begin("contract", principal, scopes, REDIRECT, self.CLIENT_DOCUMENT)

    async def test_only_some_handles_are_lent_by_consent(self, consents: Consents) -> None:
        assert consents.asks("contract")
        assert not consents.asks("plain")
        assert not consents.asks("absent")

    async def test_a_consent_is_held_once_the_person_gave_it(
        self, consents: Consents, visit: Visit
    ) -> None:
        assert await consents.status("contract", ALICE, ["read"]) is ConsentState.NEEDED
        page = await self.begun(consents)
        assert page.host in page.url
        assert (page.ref, page.principal, page.scopes) == ("contract", ALICE, ("read",))
        assert await consents.status("contract", ALICE, ["read"]) is ConsentState.NEEDED
        given = await consents.finish(page.state, await visit(page))
        assert (given.ref, given.principal, given.scopes) == ("contract", ALICE, ("read",))
        assert await consents.status("contract", ALICE, ["read"]) is ConsentState.HELD
        assert await consents.status("contract", ALICE) is ConsentState.HELD

    @pytest.mark.threat("T-51")
    async def test_a_consent_is_its_principals_alone(
        self, consents: Consents, visit: Visit
    ) -> None:
        page = await self.begun(consents)
        await consents.finish(page.state, await visit(page))
        for other in (BOB, ELSEWHERE):
            assert await consents.status("contract", other) is ConsentState.NEEDED
            assert not await consents.revoke("contract", other)
        assert await consents.status("contract", ALICE) is ConsentState.HELD

    @pytest.mark.threat("T-51")
    async def test_a_state_is_used_once(self, consents: Consents, visit: Visit) -> None:
        page = await self.begun(consents)
        answer = await visit(page)
        await consents.finish(page.state, answer)
        with pytest.raises(Refused) as refused:
            await consents.finish(page.state, answer)
        assert refused.value.code is Code.CONSENT_STATE_INVALID

    @pytest.mark.threat("T-51")
    async def test_a_state_that_was_never_given_is_refused(self, consents: Consents) -> None:
        with pytest.raises(Refused) as refused:
            await consents.finish("never", {"code": "x", "state": "never"})
        assert refused.value.code is Code.CONSENT_STATE_INVALID

    async def test_a_no_is_a_no_and_uses_the_state(self, consents: Consents, visit: Visit) -> None:
        page = await self.begun(consents)
        came = await visit(page)
        answer = {key: value for key, value in came.items() if key != "code"}
        with pytest.raises(Refused) as refused:
            await consents.finish(page.state, {**answer, "error": "access_denied"})
        assert refused.value.code is Code.CONSENT_REFUSED
        with pytest.raises(Refused):
            await consents.finish(page.state, came)
        assert await consents.status("contract", ALICE) is ConsentState.NEEDED

    async def test_more_scopes_are_asked_for_beside_those_held(
        self, consents: Consents, visit: Visit
    ) -> None:
        first = await self.begun(consents)
        await consents.finish(first.state, await visit(first))
        assert await consents.status("contract", ALICE, ["write"]) is ConsentState.NEEDED
        second = await self.begun(consents, scopes=["write"])
        assert second.scopes == ("read", "write")
        await consents.finish(second.state, await visit(second))
        assert await consents.status("contract", ALICE, ["read", "write"]) is ConsentState.HELD

    async def test_what_is_revoked_is_held_no_more(self, consents: Consents, visit: Visit) -> None:
        for principal in (ALICE, BOB):
            page = await self.begun(consents, principal)
            await consents.finish(page.state, await visit(page))
        assert [each.principal for each in await consents.listed()] == [ALICE, BOB]
        assert await consents.revoke("contract", ALICE)
        assert await consents.status("contract", ALICE) is ConsentState.NEEDED
        assert [each.principal for each in await consents.listed("acme")] == [BOB]
        assert not await consents.revoke("contract", ALICE)
        assert list(await consents.listed("other")) == []

    async def test_nobody_is_asked_for_another_kind_of_credential(self, consents: Consents) -> None:
        with pytest.raises(Refused) as refused:
            await consents.begin("plain", ALICE, [], REDIRECT, self.CLIENT_DOCUMENT)
        assert refused.value.code is Code.CONSENT_UNAVAILABLE
