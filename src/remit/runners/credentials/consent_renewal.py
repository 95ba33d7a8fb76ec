"""New access tokens for old consents: one renewal at a time, kept before it is used.

A server may exchange the refresh token with each use and end everything where an old one comes again.
So what it gave is durable before anybody has the access token, and nobody's giving up ends a request
that is under way.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from remit.model import Principal
from remit.runners.credentials.broker import BrokerFault, NoConsent
from remit.runners.credentials.consent_store import ConsentStore, Given
from remit.runners.credentials.consent_tokens import Refusal, Tokens, TokenServer
from remit.runners.credentials.discovery import SERVER
from remit.runners.credentials.http import bounded

MARGIN_MS = 30_000
"""A token that ends sooner than this is not lent any more; of a short one, its second half."""

TWICE_MS = 300_000
"""A token that was got because the one before was refused, and is refused within this time too, shows
that the server does not take what this person gave."""

STEPS = 3
STEPS_MS = 3_600_000
"""So many times in so long a person is asked for more because a server wants more."""

AT_ONCE = 16
"""So many requests of one section's people, and of its runs, are under way: where a server does not
answer, the others' loans need descriptors too."""

LOANS = 4_096
CLOSE_S = 8.0


class Renewal:
    """The access tokens of one section's consents.

    Args:
        store: the consents.
        server: who is asked for new tokens of one.
        lost: told of a consent whose server does not know Remit's client any more.
        now: milliseconds since the epoch.
    """

    def __init__(
        self,
        store: ConsentStore,
        server: Callable[[Given], TokenServer],
        lost: Callable[[Given], None],
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._server = server
        self._lost = lost
        self._now = now
        self._under_way: dict[Principal, asyncio.Task[None]] = {}
        self._loans: OrderedDict[str, Given] = OrderedDict()
        self._turns = asyncio.Semaphore(AT_ONCE)

    def lives(self, given: Given) -> bool:
        """Whether there is a token that can be lent, or one by which another is got."""
        return given.refresh_token is not None or self._fresh(given)

    async def usable(self, principal: Principal) -> Given:
        """The principal's consent with an access token that can be lent.

        Raises:
            NoConsent: it ended.
            BrokerFault: the server could not be asked; it may be later.
        """
        given = self._store.get(principal)
        if given is not None and not self._fresh(given):
            await self._renewed(principal)
            given = self._store.get(principal)  # of however short a life: it is the newest there is
        if given is None or given.access_token is None:
            raise NoConsent("what the person gave has ended")
        return given

    async def settled(self, principal: Principal) -> Given | None:
        """The principal's consent, with no renewal of it under way."""
        if (task := self._under_way.get(principal)) is not None:
            await asyncio.wait([task])
        return self._store.get(principal)

    async def aclose(self) -> None:
        """Wait for what is under way, a while."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=CLOSE_S)

    # ----------------------------------------------------------- what servers say of a token

    def lent(self, loan_id: str, given: Given) -> None:
        """Remember what a run was lent."""
        self._loans[loan_id] = given
        while len(self._loans) > LOANS:
            self._loans.popitem(last=False)

    def refused(self, loan_id: str) -> None:
        """A server did not accept the token of this loan: no run is lent it any more."""
        given = self._current(loan_id)
        if given is None:
            return
        again = given.forced and given.got_ms + TWICE_MS > self._now()
        if given.refresh_token is None or again:
            self._store.remove(given.principal)
        else:
            self._store.put(replace(given, access_token=None))

    def wanted(self, loan_id: str, scopes: tuple[str, ...], most: AbstractSet[str]) -> None:
        """A server wants these scopes too, which the person is asked for, where that can help."""
        given = self._current(loan_id)
        if given is None or not scopes or (most and not set(scopes) <= most):
            return
        if set(scopes) <= {*given.asked, *given.scopes}:
            return  # was asked for, and given or not: asking again changes nothing
        tries = tuple(each for each in given.tries_ms if each + STEPS_MS > self._now())
        if len(tries) < STEPS:
            both = tuple(sorted({*given.wanted, *scopes}))
            self._store.put(replace(given, wanted=both, tries_ms=(*tries, self._now())))

    def declined(self, principal: Principal, scopes: tuple[str, ...]) -> None:
        """The person said no: what they gave before is lent on, and this is not asked for again."""
        given = self._store.get(principal)
        if given is not None and given.wanted:
            asked = tuple(sorted({*given.asked, *scopes}))
            self._store.put(replace(given, wanted=(), asked=asked))

    def tries(self, principal: Principal) -> tuple[int, ...]:
        """When this person was asked for more."""
        given = self._store.get(principal)
        return () if given is None else given.tries_ms

    def _current(self, loan_id: str) -> Given | None:
        """The consent of a loan, if its token is still the one that is lent."""
        lent = self._loans.get(loan_id)
        given = None if lent is None else self._store.get(lent.principal)
        if lent is None or given is None or given.serial != lent.serial:
            return None
        return given if given.access_token == lent.access_token else None

    # ------------------------------------------------------------------------------ renewing

    def _fresh(self, given: Given) -> bool:
        if given.access_token is None:
            return False
        if given.expires_ms is None:
            return True
        margin_ms = min(MARGIN_MS, (given.expires_ms - given.got_ms) // 2)
        return given.expires_ms > self._now() + margin_ms

    async def _renewed(self, principal: Principal) -> None:
        """Join the renewal of this consent, or begin it; it goes on where its asker is gone."""
        task = self._under_way.get(principal)
        if task is None:
            task = asyncio.ensure_future(self._renew(principal))
            self._under_way[principal] = task
            task.add_done_callback(lambda done: self._over(principal, done))
        await asyncio.shield(task)

    def _over(self, principal: Principal, task: asyncio.Task[None]) -> None:
        self._under_way.pop(principal, None)
        if not task.cancelled():
            task.exception()  # told to who asked, if anybody still does

    async def _renew(self, principal: Principal) -> None:
        given = self._store.get(principal)
        if given is None or given.refresh_token is None:
            raise NoConsent("what the person gave has ended")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": given.refresh_token,
            "resource": given.resource,
        }
        server = self._server(given)
        try:
            async with bounded(SERVER, self._turns):
                tokens = await server.tokens(form)
        except Refusal as refusal:
            gone = refusal.error == "invalid_client" and given.client["kind"] != "written"
            if gone:
                self._lost(given)
            if gone or refusal.error == "invalid_grant":
                self._drop(given)
                raise NoConsent("what the person gave has ended") from None
            raise BrokerFault(refusal.message) from None
        current = self._store.get(principal)
        if current is None or current.serial != given.serial:
            raise BrokerFault("the person consented anew meanwhile")
        self._store.put(self._with(current, tokens))

    def _with(self, given: Given, tokens: Tokens) -> Given:
        return replace(
            given,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or given.refresh_token,
            expires_ms=tokens.expires_ms,
            scopes=given.scopes if tokens.scopes is None else tokens.scopes,
            got_ms=self._now(),
            forced=given.access_token is None,
        )

    def _drop(self, given: Given) -> None:
        current = self._store.get(given.principal)
        if current is not None and current.serial == given.serial:
            self._store.remove(given.principal)
