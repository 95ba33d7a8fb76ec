"""Whether the person for whom a call is made lets Remit act for them at the servers that it uses.

Asked once policy has answered and before anybody is asked to approve: nobody approves what cannot
run yet. Where a consent is missing nothing is committed; the caller is told where the person can
give it, and the same call made again goes on. What a run is lent never follows from what is found
here: the keeper reads in the ledger whose run it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from weakref import WeakValueDictionary

from remit.backends import Backends, PathSettings
from remit.canonical import encode
from remit.errors import Code, Refused
from remit.model import (
    Call,
    Caller,
    Consented,
    ConsentPage,
    ConsentState,
    CredentialRule,
    Decided,
    Frozen,
    Method,
    Principal,
    Question,
)
from remit.ports import Progress
from remit.stages.approve import PROGRESS_EVERY_S, Bell, iso
from remit.stages.consent_pages import ConsentRequired, Page, Pages
from remit.stages.rounds import CONSENT, Rounds

PATH = "/consents"
CALLBACK = f"{PATH}/callback"
DOCUMENT = f"{PATH}/client.json"

_MAY_ASK = frozenset({Method.TOOLS_CALL, Method.PROMPTS_GET, Method.RESOURCES_READ})
"""The methods whose result may be a question (MCP 2026-07-28, multi-round requests)."""

BEGIN_WITHIN_S = 30.0
"""How long it may take to find out where a person is to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A decided plan that cannot be carried out before a person has consented on this page."""

    decided: Decided
    rule: CredentialRule
    page: Page


def principal_of(caller: Caller) -> Principal:
    """Whose consent a call of this caller needs: that of the one with the original authority."""
    subject = caller.chain[0].subject if caller.chain else caller.subject
    return Principal(tenant=caller.tenant, subject=subject)


def whose(page: Page) -> str:
    """Under which name calls wait for what is given on a page: all that need the same."""
    return encode([page.ref, page.principal.tenant, page.principal.subject]).decode()


def opens_pages(call: Call) -> bool:
    """Whether the client that makes this call can be asked, in the midst of it, to open a page."""
    asked = call.capabilities.value().get("elicitation", {})
    return call.method in _MAY_ASK and "url" in asked


class Consenting:
    """Looks whether a consent is there, and asks for it where it is not.

    Args:
        rounds: seals what a caller is asked.
    """

    def __init__(self, backends: Backends, settings: PathSettings, rounds: Rounds) -> None:
        self._consents = backends.consents
        self._clock = backends.clock
        self._rounds = rounds
        self._public_url = settings.public_url
        self._hold_s = settings.hold_s
        self._asking: WeakValueDictionary[tuple[str, Principal], asyncio.Lock] = (
            WeakValueDictionary()
        )
        self.pages = Pages(backends.clock)
        self.bell = Bell()

    async def __call__(self, decided: Decided) -> Consented | Wanted:
        """The plan, where nobody has to be asked; else the page on which the person is.

        Raises:
            Refused: `consent_unavailable`, `rate_limited`: nobody can be asked.
            RunnerFault: `credential_unavailable`: nobody can tell.
        """
        principal = principal_of(decided.planned.admitted.normal.call.caller)
        for rule in decided.planned.plan.credentials:
            if self._consents.asks(rule.ref) and await self._needed(rule, principal):
                upstream = decided.planned.admitted.normal.tool.upstream
                server = rule.ref if upstream is None else upstream.server
                page = await self.page(rule.ref, principal, rule.scopes, server=server)
                return Wanted(decided=decided, rule=rule, page=page)
        return Consented(decided=decided)

    async def held(self, wanted: Wanted, progress: Progress) -> None:
        """Wait, where the person said that they go to the page; returns when they have consented.

        Raises:
            ConsentRequired: they have not, or were not asked yet.
            Refused: `consent_refused`: the page ended without it.
        """
        normal = wanted.decided.planned.admitted.normal
        if normal.consenting and await self._comes(wanted, progress):
            return
        url = self.address(wanted.page)
        question = self._rounds.consent(
            normal, _asked(wanted.page, url), wanted.page.id, self._clock.now_ms()
        )
        raise _required(wanted, url, question)

    def address(self, page: Page) -> str:
        """Where a browser finds the page."""
        return f"{self._public_url}{PATH}/{page.id}"

    async def _comes(self, wanted: Wanted, progress: Progress) -> bool:
        left = self._hold_s
        while True:
            event = self.bell.listen(whose(wanted.page))
            ended = self.pages.ended(wanted.page.id)  # before the look: what comes later rings
            if not await self._needed(wanted.rule, wanted.page.principal):
                return True
            if ended:
                raise Refused(
                    Code.CONSENT_REFUSED,
                    "the page ended without consent: the person said no, or took too long",
                    hint="call again only if they want to be asked again",
                )
            if left <= 0:
                return False
            await progress.report(f"Waiting for {wanted.page.principal.subject} to consent")
            step = min(left, PROGRESS_EVERY_S)
            left -= step
            try:
                async with asyncio.timeout(step):
                    await event.wait()
            except TimeoutError:
                continue

    async def _needed(self, rule: CredentialRule, principal: Principal) -> bool:
        found = await self._consents.status(rule.ref, principal, rule.scopes)
        return found is not ConsentState.HELD

    async def page(
        self, ref: str, principal: Principal, scopes: tuple[str, ...], *, server: str
    ) -> Page:
        """The page that asks for this; another one only where none waits already.

        Raises:
            Refused: `consent_unavailable`, `rate_limited`.
        """
        turn = self._asking.setdefault((ref, principal), asyncio.Lock())
        async with turn:
            page = self.pages.waiting(ref, principal, scopes)
            if page is not None:
                return page
            leads = await self._begun(ref, principal, scopes)
            return self.pages.put(leads, server, scopes)

    async def _begun(self, ref: str, principal: Principal, scopes: tuple[str, ...]) -> ConsentPage:
        base = self._public_url
        if base is None:
            raise Refused(
                Code.CONSENT_UNAVAILABLE,
                "a person has to consent first, and no browser finds this gateway",
                hint="an operator writes server.public_url",
            )
        self.pages.room(principal)
        document = f"{base}{DOCUMENT}" if base.startswith("https://") else None
        try:
            async with asyncio.timeout(BEGIN_WITHIN_S):
                return await self._consents.begin(
                    ref, principal, scopes, f"{base}{CALLBACK}", document
                )
        except TimeoutError:
            raise Refused(
                Code.CONSENT_UNAVAILABLE, "the authorization server was not found in time"
            ) from None


def _required(wanted: Wanted, url: str, question: Question) -> ConsentRequired:
    page, evaluation = wanted.page, wanted.decided.decision.evaluation
    subject = page.principal.subject
    return ConsentRequired(
        f"the MCP server {page.server} is used for {subject}, who has to agree at "
        f"{page.leads.host} first: open {url} in a browser",
        hint="call again with the same arguments once that is done",
        question=question,
        facts={
            "url": url,
            "server": page.server,
            "subject": subject,
            "authorization_server": page.leads.host,
            "scopes": list(page.leads.scopes),
        },
        decision_id=evaluation.decision_id,
        policy_revision=evaluation.revision,
        plan_hash=wanted.decided.planned.plan.hash,
        expires_at=iso(page.leads.ends_ms),
    )


def _asked(page: Page, url: str) -> Frozen:
    """The question of MCP that asks to open a page; Remit asks, and says where it leads."""
    message = (
        f"Remit asks {page.principal.subject}: may it use the MCP server {page.server} for you? "
        f"On this page of Remit's own you show your Remit key, and agree at {page.leads.host}."
    )
    params = {"mode": "url", "message": message, "url": url}
    return Frozen(encode({CONSENT: {"method": "elicitation/create", "params": params}}))
