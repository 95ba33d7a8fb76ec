"""OAuth 2.1 authorization code: tokens that a person gave, for Remit to act for them at one resource.

The person consents at the server's own page; what is given is kept, sealed, until it ends or is
revoked. A run is lent the access token of the person on whose behalf it acts, as the ledger has it:
the first of the caller's chain, else the caller. That token belongs to the consent, not to the run,
which its loan says.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from remit.canonical import digest_of
from remit.challenge import scopes_in
from remit.errors import Code, ConfigError, Refused
from remit.loopback import address_fault
from remit.model import Consent, ConsentPage, ConsentState, Principal
from remit.runners.credentials.broker import (
    Advance,
    BrokerFault,
    Held,
    Kit,
    NoConsent,
    Order,
)
from remit.runners.credentials.consent_begun import OFFLINE, Begun, BegunTable, Question
from remit.runners.credentials.consent_client import Clients
from remit.runners.credentials.consent_renewal import AT_ONCE, Renewal
from remit.runners.credentials.consent_store import ConsentStore, Given
from remit.runners.credentials.consent_tokens import Refusal, Tokens, TokenServer
from remit.runners.credentials.consent_where import Where, Whereabouts
from remit.runners.credentials.discovery import SERVER
from remit.runners.credentials.guarded import Resolve
from remit.runners.credentials.http import bounded, seconds_left

NOTE = "belongs to a person's consent: it outlives the run, and further runs are lent it"
MAX_CODE = 4_096
LOOK = "look"

_ERRORS = {
    "invalid_scope": "the authorization server does not give these scopes",
    "invalid_target": "the authorization server does not give tokens for this resource",
    "unauthorized_client": "the authorization server does not let this client act for people",
    "server_error": "the authorization server failed",
    "temporarily_unavailable": "the authorization server is not available now",
}
"""What it may answer (RFC 6749 §4.1.2.1) in our words."""

_BINDING = ("resource", "issuer", "authorization_url", "token_url", "client_id")
"""With another of these, what was given for the section is not for it any more."""


class AuthorizationCodeBroker:
    """What people consented to at one resource.

    Promises that a consent is lent to runs of its own principal alone, and that its refresh token
    leaves the keeper only for the server that gave it.

    Args:
        resolve: how names that were found are resolved; the system's resolver, if absent.

    Raises:
        ConfigError: an address is not plain, it is said in two ways where the server is, or the
            client is not whole.
    """

    gives = frozenset({"token"})
    narrows = True

    def __init__(self, kit: Kit, *, resolve: Resolve | None = None) -> None:
        if kit.sealed is None:
            raise ConfigError(Code.CONFIG_INVALID, "there is no place to keep what people give")
        section = kit.section
        self.ref = kit.ref
        self._now = kit.now
        self._most = frozenset(map(str, section.get("scopes") or ()))
        self._where = Whereabouts(kit, resolve=resolve)
        self._clients = Clients(kit, kit.sealed, kit.now)
        self._look_as: str | None = section.get("unsafe_look_as")
        self._assertion_audience: str | None = section.get("assertion_audience")
        self._bound = digest_of(
            "remit.consent.bound/1",
            {name: section.get(name) for name in _BINDING},
        )
        self._store = ConsentStore(kit.ref, kit.sealed)
        self._begun = BegunTable(kit.now)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._renewal = Renewal(self._store, self._server_of, self._lost, kit.now)

    # ---------------------------------------------------------------------------- to the run

    async def lend(self, order: Order) -> Advance:
        """The access token of the person for whom the run acts, got anew where it has ended.

        Raises:
            NoConsent: that person gave none, or not these scopes, or it ended.
        """
        seconds_left(order.ends_ms, self._now())
        if order.shortened or order.audience is not None:
            raise BrokerFault("what a person gave has its own life and resource, and no other")
        principal = principal_of(order) if order.kind != LOOK else self._looked_as()
        if self._state(principal, order.scopes) is ConsentState.NEEDED:
            raise NoConsent("the person for whom this is done has not consented to it")
        given = await self._renewal.usable(principal)
        if not set(order.scopes) <= set(given.scopes):
            raise NoConsent("the server gives fewer scopes than the person consented to")
        assert given.access_token is not None
        self._renewal.lent(order.loan_id, given)
        return Advance(
            fields={"token": given.access_token},
            secrets=(given.access_token,),
            expires_ms=given.expires_ms,
            note=NOTE,
        )

    def _looked_as(self) -> Principal:
        """Whose consent is used to look at the server: whom the operator wrote."""
        found = {each.principal for each in self._store if each.principal.subject == self._look_as}
        if self._look_as is None or len(found) != 1:
            raise NoConsent("the person as whom the server is looked at has not consented to it")
        return found.pop()

    async def revoke(self, held: Held) -> bool:
        """A run's end is not a consent's."""
        return False

    async def aclose(self) -> None:
        """Let what is under way come to its end: new tokens must not be lost."""
        await self._renewal.aclose()

    # ------------------------------------------------------------------------- of the person

    async def status(self, principal: Principal, scopes: Sequence[str]) -> ConsentState:
        """See `ports.Consents.status`."""
        return self._state(principal, scopes)

    async def begin(
        self,
        principal: Principal,
        scopes: Sequence[str],
        redirect_uri: str,
        document: str | None,
    ) -> ConsentPage:
        """See `ports.Consents.begin`."""
        _check_redirect(redirect_uri)
        plain = scopes_in(scopes)
        if len(plain) != len(set(scopes)) or (self._most and not set(plain) <= self._most):
            raise _unavailable("the plan names a scope that the section does not have")
        try:
            async with bounded(SERVER, self._turns):
                where = await self._where.find(scopes=not plain and not self._most)
                client = await self._clients.choose(
                    where.endpoints, self._where.discovery, redirect_uri, document
                )
        except BrokerFault as fault:
            raise _unavailable(fault.message) from None
        return self._begun.begin(
            Question(
                ref=self.ref,
                principal=principal,
                scopes=self._asked(principal, plain, where),
                where=where,
                client=client,
                redirect_uri=redirect_uri,
            )
        )

    def asked_with(self, state: str) -> bool:
        """Whether somebody is being asked with this state."""
        return self._begun.has(state)

    async def finish(self, state: str, answer: Mapping[str, str]) -> Consent:
        """See `ports.Consents.finish`."""
        begun = self._begun.take(state)
        question, endpoints = begun.question, begun.question.where.endpoints
        try:
            code = _code(begun, answer)
        except Refused as refused:
            if refused.code is Code.CONSENT_REFUSED:
                self._renewal.declined(question.principal, question.scopes)
            raise
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": question.redirect_uri,
            "code_verifier": begun.verifier,
            "resource": question.where.resource,
        }
        server = self._server(question.client, endpoints.issuer, endpoints.token_url)
        try:
            async with bounded(SERVER, self._turns):
                tokens = await server.tokens(form)
        except Refusal as refusal:
            if refusal.error == "invalid_client" and question.client["kind"] == "registered":
                self._clients.forget(endpoints.issuer)
            raise _failed(refusal.message) from None
        except BrokerFault as fault:
            raise _failed(fault.message) from None
        given = self._given(begun, tokens)
        self._store.put(given)
        self._clients.used(endpoints.issuer, question.redirect_uri, question.client)
        return given.consent

    async def listed(self) -> Sequence[Consent]:
        """All that are held."""
        return [each.consent for each in self._store]

    async def end(self, principal: Principal) -> bool:
        """See `ports.Consents.revoke`."""
        given = await self._renewal.settled(principal)
        if given is None:
            return False
        self._store.remove(principal)
        tokens = [(given.refresh_token, "refresh_token"), (given.access_token, "access_token")]
        if given.bound != self._bound and self._clients.shows(given.client):
            return False  # the secret is another server's now, perhaps
        try:
            server = self._server_of(given)
            async with bounded(SERVER):  # in no turn: whoever ends something waits for nobody
                told = [await server.end(text, kind) for text, kind in tokens if text is not None]
        except BrokerFault:
            return False
        return bool(told) and all(told)

    async def unaccepted(self, loan_id: str, scopes: Sequence[str] | None) -> None:
        """See `ports.Consents.unaccepted`; of one loan."""
        self._where.forget()
        if scopes is None:
            self._renewal.refused(loan_id)
        else:
            self._renewal.wanted(loan_id, scopes_in(scopes), self._most)

    # ------------------------------------------------------------------------------- details

    def _state(self, principal: Principal, scopes: Sequence[str]) -> ConsentState:
        given = self._store.get(principal)
        if given is None or given.bound != self._bound or self._beyond(given.asked):
            return ConsentState.NEEDED
        if not {*scopes, *given.wanted} <= set(given.scopes):
            return ConsentState.NEEDED
        return ConsentState.HELD if self._renewal.lives(given) else ConsentState.NEEDED

    def _beyond(self, scopes: Sequence[str]) -> frozenset[str]:
        """Those that the section, as it now is, does not let anybody be asked for."""
        return frozenset(scopes) - self._most - {OFFLINE} if self._most else frozenset()

    def _asked(self, principal: Principal, plain: tuple[str, ...], where: Where) -> tuple[str, ...]:
        """What to ask for: the plan's or the section's scopes, else what the resource says; with
        those that are held and those that a server wanted since."""
        given = self._store.get(principal)
        before = {*given.scopes, *given.wanted} if given and given.bound == self._bound else set()
        before -= self._beyond(tuple(before))
        wanted = set(plain or self._most or where.challenged) | before
        wanted = wanted or set(where.scopes)
        if wanted and OFFLINE in where.endpoints.scopes:
            wanted.add(OFFLINE)
        return tuple(sorted(wanted))

    def _given(self, begun: Begun, tokens: Tokens) -> Given:
        question, endpoints = begun.question, begun.question.where.endpoints
        return Given(
            ref=self.ref,
            tenant=question.principal.tenant,
            subject=question.principal.subject,
            serial=secrets.token_hex(16),
            bound=self._bound,
            issuer=endpoints.issuer,
            token_url=endpoints.token_url,
            revocation_url=endpoints.revocation_url,
            resource=question.where.resource,
            client=question.client,
            scopes=question.scopes if tokens.scopes is None else tokens.scopes,
            asked=question.scopes,
            given_ms=self._now(),
            got_ms=self._now(),
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_ms=tokens.expires_ms,
            tries_ms=self._renewal.tries(question.principal),
        )

    def _server_of(self, given: Given) -> TokenServer:
        return replace(
            self._server(given.client, given.issuer, given.token_url),
            revocation_url=given.revocation_url,
        )

    def _server(self, client: Mapping[str, Any], issuer: str | None, token_url: str) -> TokenServer:
        return TokenServer(
            token_url=token_url,
            revocation_url=None,
            client=self._clients.client(client),
            audience=self._assertion_audience or issuer or token_url,
            discovery=self._where.discovery,
            written=self._where.written,
            now=self._now,
        )

    def _lost(self, given: Given) -> None:
        """A server that does not know the client that registered: next time another registers."""
        if given.client["kind"] == "registered" and given.issuer is not None:
            self._clients.forget(given.issuer)


def principal_of(order: Order) -> Principal:
    """For whom a run acts: the first of the chain, who has the original authority."""
    subject = order.chain[0].subject if order.chain else order.subject
    return Principal(tenant=order.tenant, subject=subject)


def _code(begun: Begun, answer: Mapping[str, str]) -> str:
    """The code of an answer, if it is of the server that was asked (RFC 9207) and no error."""
    if answer.get("state") != begun.page.state:
        raise _failed("the answer is to another question")
    where, issuer = begun.question.where, answer.get("iss")
    if issuer is None and where.endpoints.answers_iss:
        raise _failed("the answer does not say which server it is of, and this one always says it")
    if issuer is not None and not (where.known_issuer and issuer == where.endpoints.issuer):
        raise _failed("the answer is of another server than the one that was asked")
    if (error := answer.get("error")) is not None:
        if error == "access_denied":
            raise Refused(Code.CONSENT_REFUSED, "the person, or their server, said no")
        raise _failed(_ERRORS.get(error, f"{SERVER} answered with an error"))
    code = answer.get("code", "")
    if not 0 < len(code) <= MAX_CODE or not code.isascii() or not code.isprintable():
        raise _failed("the answer has no code")
    return code


def _check_redirect(redirect_uri: str) -> None:
    if (fault := address_fault(redirect_uri)) is not None:
        raise _unavailable(f"the address that answers come to {fault}")


def _unavailable(message: str) -> Refused:
    return Refused(
        Code.CONSENT_UNAVAILABLE,
        f"nobody can be asked to consent: {message}",
        hint="see docs/credentials/authorization_code.md",
    )


def _failed(message: str) -> Refused:
    return Refused(
        Code.CONSENT_FAILED,
        f"the consent was not given: {message}",
        hint="make the call again, and open the address that it names",
    )
