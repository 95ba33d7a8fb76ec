"""The person's side of a consent: who opens a page, where they are sent, and what they come back with.

A page is opened by whoever shows a key of the principal that it asks, so that a link is worth nothing
to anybody else; and only the browser in which that was done may come back from the authorization
server. What is given is written down before anybody hears that it was.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from remit.canonical import encode
from remit.errors import Code, NotFound, Refused, RunnerFault
from remit.loopback import is_loopback
from remit.model import Caller, Consent, ConsentPage, EntryDraft, Operator, Principal
from remit.pipeline import Pipeline
from remit.stages.approve import iso
from remit.stages.authenticate import within
from remit.stages.consent import CALLBACK, DOCUMENT, principal_of, whose
from remit.stages.consent_pages import Page, same
from remit.telemetry import CONSENTS, logger

GIVEN = "consent.given"
REVOKED = "consent.revoked"

_BROWSER_BYTES = 32

log = logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Where a person who showed their key goes, and what their browser brings back from there."""

    url: str = field(repr=False)
    state: str = field(repr=False)
    browser: str = field(repr=False)
    ends_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A consent, and the server that it was asked for."""

    consent: Consent
    server: str


class ConsentDesk:
    """The person's side of one gateway; implements `doors.consents.Desk`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._backends = pipeline.backends
        self._pages = pipeline.consenting.pages
        self._bell = pipeline.consenting.bell
        self._under_way: set[asyncio.Future[Given]] = set()
        self.public_url = pipeline.settings.public_url

    async def ask(self, ref: str, principal: Principal) -> Mapping[str, Any]:
        """A page on which this principal, and nobody else, can consent; where it is and leads.

        Raises:
            NotFound: no such credential is lent by consent.
            Refused: `consent_unavailable`, `rate_limited`.
        """
        if not self._backends.consents.asks(ref):
            raise NotFound(
                Code.NOT_FOUND,
                "no credential of that name is lent by people's consent",
                hint="runners.credentials in remit.yaml has them, of the broker authorization_code",
            )
        page = await self._pipeline.consenting.page(ref, principal, (), server=ref)
        return {
            "url": self._pipeline.consenting.address(page),
            "subject": principal.subject,
            "authorization_server": page.leads.host,
            "scopes": list(page.leads.scopes),
            "ends_ms": page.leads.ends_ms,
        }

    def now_ms(self) -> int:
        return self._backends.clock.now_ms()

    def page(self, page_id: str) -> Page | None:
        """What a page asks of whom; None if there is none, also where it was used or is too old."""
        return self._pages.get(page_id)

    async def open(self, page_id: str, key: str, source_ip: str) -> Leaving | None:
        """Let the person go whose key this is; None if there is no such page.

        Raises:
            Refused: `unauthenticated`: no key, or not one of theirs, which is not told apart;
                `rate_limited`; `consent_failed`: the page does not lead where it says.
        """
        caller = await self._pipeline.authenticate(f"Bearer {key}", source_ip)
        page = self._pages.get(page_id)
        if page is None:
            return None
        if not self._may(caller, page.principal):
            await self._refuse(source_ip)
        _check(page.leads)
        browser = secrets.token_urlsafe(_BROWSER_BYTES)
        self._pages.opened(page, browser, caller.key_id)
        leads = page.leads
        return Leaving(url=leads.url, state=leads.state, browser=browser, ends_ms=leads.ends_ms)

    def _may(self, caller: Caller, principal: Principal) -> bool:
        """Whether this key is one that its principal consents with.

        Where the person has a key of their own, one with which another acts for them is not taken:
        whoever holds that is whom the consent is about.
        """
        if principal_of(caller) != principal:
            return False
        now = self.now_ms()
        own = [
            each
            for each in self._backends.identity.known(principal.subject)
            if each.tenant == principal.tenant and not each.chain
        ]
        valid = [each for each in own if each.expires_ms is None or now < each.expires_ms]
        return not caller.chain or not valid

    async def _refuse(self, source_ip: str) -> None:
        within(self._backends.rates, "authentication", source_ip)
        await self._pipeline.refuse_at_door(Code.UNAUTHENTICATED, source_ip)
        raise Refused(Code.UNAUTHENTICATED, "a valid key is required")

    async def finish(self, answer: Mapping[str, str], browser: str) -> Given:
        """Take what a browser comes back with from an authorization server.

        Args:
            answer: the parameters, each once.
            browser: what this browser was given when it left; empty if it has nothing.

        Raises:
            Refused: `consent_state_invalid`: nobody was sent there, not from this browser, or it
                was answered already; `consent_refused`, `consent_failed`.
            LedgerFault: it could not be written down, so it is not held.
        """
        state = answer.get("state", "")
        page = self._pages.coming(state)
        if page is None:
            raise Refused(
                Code.CONSENT_STATE_INVALID,
                "this answer is too late, was given already, or was never asked for",
                hint="have the call made again, and open the link that it gives",
            )
        if not same(page.browser, browser):
            raise Refused(
                Code.CONSENT_STATE_INVALID,
                "this browser is not the one in which the consent was begun",
                hint="open the link in this browser, show the key, and go on from there",
            )
        self._pages.take(page)
        taking = asyncio.ensure_future(self._taken(page, answer))
        self._under_way.add(taking)
        taking.add_done_callback(self._under_way.discard)
        return await asyncio.shield(taking)  # whoever waits may go: what is held is written down

    async def _taken(self, page: Page, answer: Mapping[str, str]) -> Given:
        try:
            consent = await self._backends.consents.finish(page.leads.state, answer)
            await self._written(consent, page)
        finally:
            self._pages.drop(page)
            self._bell.ring(whose(page))
        return Given(consent=consent, server=page.server)

    async def _written(self, consent: Consent, page: Page) -> None:
        try:
            await self._backends.ledger.append([_given(consent, page)])
        except BaseException:  # whatever it was, and if nobody waits for it any more
            ended = self._backends.consents.revoke(consent.ref, consent.principal)
            await asyncio.shield(asyncio.ensure_future(ended))
            raise
        CONSENTS.labels("given").inc()
        log.info("consent_given", credential=consent.ref, server=page.server, key_id=page.key)

    async def revoke(self, operator: Operator, ref: str, principal: Principal) -> bool:
        """End a consent on an operator's word: whether the authorization server confirmed it.

        It is forgotten first and written down then: what takes power away waits for nothing.

        Raises:
            NotFound: there is none.
        """
        if not await self._held(ref, principal):
            raise NotFound(
                Code.NOT_FOUND, "there is no such consent", hint="list them: `remit consents list`"
            )
        confirmed = await self._backends.consents.revoke(ref, principal)
        CONSENTS.labels("revoked").inc()
        log.info("consent_revoked", credential=ref, by=operator.subject, confirmed=confirmed)
        public = {
            **_named(ref, principal), "operator": operator.subject, "confirmed": confirmed
        }  # fmt: skip
        await self._backends.ledger.append([EntryDraft(event=REVOKED, public=public)])
        return confirmed

    async def _held(self, ref: str, principal: Principal) -> bool:
        """Whether there may be such a consent: where nobody can tell, it is ended all the same."""
        try:
            held = await self._backends.consents.listed(principal.tenant)
        except RunnerFault:
            return True
        return any((each.ref, each.principal) == (ref, principal) for each in held)

    def document(self) -> Mapping[str, Any] | None:
        """The Client ID Metadata Document; None where no authorization server could fetch it."""
        base = self.public_url
        if base is None or not base.startswith("https://"):
            return None
        return {
            "client_id": f"{base}{DOCUMENT}",
            "client_name": "Remit",
            "client_uri": base,
            "redirect_uris": [f"{base}{CALLBACK}"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }


def _check(leads: ConsentPage) -> None:
    """A person is sent nowhere but to the host that they were shown, and never in the clear.

    Raises:
        Refused: `consent_failed`.
    """
    parts = urlsplit(leads.url)
    shown = leads.host in (parts.hostname, parts.netloc)
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not shown or not safe or parts.username is not None or parts.password is not None:
        raise Refused(
            Code.CONSENT_FAILED,
            "the authorization server's page is not where it was said to be",
            hint="tell whoever runs this gateway",
        )


def _named(ref: str, principal: Principal) -> dict[str, Any]:
    return {"credential": ref, "tenant": principal.tenant, "subject": principal.subject}


def _given(consent: Consent, page: Page) -> EntryDraft:
    """The entry of a consent: who gave it for which server, and where. No code and no token."""
    public = {
        **_named(consent.ref, consent.principal),
        "server": page.server,
        "authorization_server": page.leads.host,
        "key": page.key,
        "given": iso(consent.given_ms),
        "renewable": consent.renewable,
    }
    if consent.expires_ms is not None:
        public["expires"] = iso(consent.expires_ms)
    # Scopes are the authorization server's words.
    return EntryDraft(event=GIVEN, public=public, sealed={"scopes": encode(list(consent.scopes))})
