"""OAuth 2.1 client credentials: a token for Remit itself, for one resource (RFC 8707).

The authorization server is the operator's word: its endpoints, or its issuer, whose metadata names
them. Only a client with a key may have its server found by asking the resource: a secret would be
shown to whomever the resource names. A token ends with its run, unless `unsafe_keep_s` says that
runs share it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held, Kit, Order
from remit.runners.credentials.client_assertion import Client
from remit.runners.credentials.discovery import SERVER, Discovery, Endpoints
from remit.runners.credentials.guarded import Guard, Resolve
from remit.runners.credentials.http import Answer, Service, bounded, seconds_left
from remit.runners.credentials.kept_tokens import KeptTokens, Token

FOUND_MS = 600_000
"""How long metadata is believed."""

LONGEST_KEPT_S = 7_200

SHARED = "shared with other runs, and not revoked: unsafe_keep_s keeps it"

_SAID = {
    "invalid_request": "it does not take such a request",
    "invalid_client": "it does not accept the client, or what it shows",
    "invalid_grant": "it does not accept the grant",
    "unauthorized_client": "this client may not have tokens for itself",
    "unsupported_grant_type": "it gives no tokens for client credentials",
    "invalid_scope": "it does not give these scopes",
    "invalid_target": "it does not give tokens for this resource",
    "access_denied": "its policy refuses this",
    "temporarily_unavailable": "it is not available now",
}


class ClientCredentialsBroker:
    """One client at one authorization server, for one resource.

    Promises that a token with a scope that was not asked for, with a refresh token or of another
    type is not lent. A token of one run is lent only if it ends with the run or can be revoked;
    one that runs share ends by itself, in `LONGEST_KEPT_S` at most.

    Args:
        resolve: how names that were found are resolved; the system's resolver, if absent.

    Raises:
        ConfigError: an address is not plain, it is not said where the server is, a key or secret
            is missing, or a client with a secret would have its server found.
    """

    gives = frozenset({"token"})
    narrows = True

    def __init__(self, kit: Kit, *, resolve: Resolve | None = None) -> None:
        section = kit.section
        self._now = kit.now
        self._client = Client.of(kit)
        self._resource = str(section["resource"])
        self._audience: str | None = section.get("audience")
        self._scopes = frozenset(map(str, section.get("scopes") or ()))
        self._assertion_audience: str | None = section.get("assertion_audience")
        self._issuer: str | None = section.get("issuer")
        _check_place(section, self._client.method)
        ca = kit.read_file("ca_file")
        for name in ("resource", "issuer"):
            if section.get(name) is not None:  # address and authorities are looked at now
                Service(section[name], name=SERVER, ca=ca, place=name)
        written = (self._resource, self._issuer, section.get("token_url"))
        hosts = frozenset(urlsplit(each).hostname or "" for each in written if each is not None)
        self._discovery = Discovery(Guard(hosts, resolve=resolve), ca=ca)
        self._written = _written(section, ca)
        self._found: tuple[Endpoints, int] | None = None
        self._services: dict[str, Service] = {}
        keep_s = section.get("unsafe_keep_s")
        self._kept = None if keep_s is None else KeptTokens(int(keep_s), kit.now)

    async def lend(self, order: Order) -> Advance:
        """Get a token, or lend the one that is kept."""
        left_s = seconds_left(order.ends_ms, self._now())
        scopes = self._wanted(order)
        if self._kept is not None and not order.shortened:
            key = (order.audience or "", *sorted(scopes))
            token = await self._kept.token(key, lambda: self._shared(order, scopes))
            return _advance(token, key=None, note=SHARED)
        async with bounded(SERVER):
            token, revocable = await self._own(order, scopes, left_s)
        return _advance(
            token,
            key=token.text if revocable else None,
            note=None if revocable else "it cannot be revoked",
        )

    async def revoke(self, held: Held) -> bool:
        """Revoke the token of one run (RFC 7009), where the server has an address for it."""
        if held.key is None:
            return False
        async with bounded(SERVER):
            answer = await self._end(held.key)
        if answer is None:
            return False
        if not answer.ok:
            raise BrokerFault(f"{SERVER} did not revoke the token with status {answer.status}")
        return True

    async def aclose(self) -> None:
        """Let connections go. Tokens that are kept end by themselves."""
        services, self._services = self._services, {}
        for each in services.values():
            await each.aclose()
        for name in ("token_url", "revocation_url"):
            if (written := self._written.get(name)) is not None:
                await written.aclose()

    # ------------------------------------------------------------------------------- one token

    def _wanted(self, order: Order) -> tuple[str, ...]:
        """The scopes to ask for: the plan's, which the section has to have; else the section's."""
        if order.scopes and self._scopes and not set(order.scopes) <= self._scopes:
            raise BrokerFault("the plan names a scope that the section does not have")
        return tuple(sorted(order.scopes or self._scopes))

    async def _shared(self, order: Order, scopes: tuple[str, ...]) -> Token:
        async with bounded(SERVER):
            token = await self._ask(order, scopes)
            lives_s = None if token.expires_ms is None else (token.expires_ms - self._now()) / 1000
            if lives_s is None or lives_s > LONGEST_KEPT_S:
                await self._end(token.text)
                raise BrokerFault(
                    f"a token that runs share has to end within {LONGEST_KEPT_S} s by itself"
                )
        return token

    async def _own(self, order: Order, scopes: tuple[str, ...], left_s: int) -> tuple[Token, bool]:
        """A token for one run, and whether it can be revoked."""
        revocable = await self._revocable()
        token = await self._ask(order, scopes)
        ends_ms = self._now() + 1000 * left_s + 1000  # lives are told in whole seconds
        if not revocable and (token.expires_ms is None or token.expires_ms > ends_ms):
            raise BrokerFault(
                "the token would outlive the run and cannot be revoked: write revocation_url, let "
                "the server give a shorter one, or have runs share it by unsafe_keep_s"
            )
        return token, revocable

    async def _ask(self, order: Order, scopes: tuple[str, ...]) -> Token:
        form = {"grant_type": "client_credentials", "resource": self._resource}
        if (audience := order.audience or self._audience) is not None:
            form["audience"] = audience
        if scopes:
            form["scope"] = " ".join(scopes)
        answer = await self._post("token_url", form)
        assert answer is not None
        if not answer.ok:
            raise _fault(answer)
        found = answer.facts()
        token = answer.text(found, "access_token")
        try:
            lives_s = _lives_s(answer, found, scopes)
        except BrokerFault:
            await self._end(token)
            raise
        expires_ms = None if lives_s is None else self._now() + 1000 * lives_s
        return Token(text=token, expires_ms=expires_ms)

    # ------------------------------------------------------------------------------ the server

    async def _revocable(self) -> bool:
        return await self._service("revocation_url") is not None

    async def _end(self, token: str) -> Answer | None:
        form = {"token": token, "token_type_hint": "access_token"}
        return await self._post("revocation_url", form, again=True)

    async def _post(
        self, which: str, form: Mapping[str, str], *, again: bool = False
    ) -> Answer | None:
        """One request that shows who the client is; None where there is no such address."""
        service = await self._service(which)
        if service is None:
            return None
        shown = self._client.shown(await self._shown_to(), self._now())
        headers = {"accept": "application/json", **shown.headers}
        return await service.ask("POST", headers=headers, form={**form, **shown.form}, again=again)

    async def _shown_to(self) -> str:
        """The audience of an assertion: the issuer, where it is known."""
        if self._assertion_audience is not None:
            return self._assertion_audience
        if self._issuer is not None:
            return self._issuer
        token_url = self._written.get("token_url")
        return token_url.url if token_url is not None else (await self._endpoints()).issuer

    async def _service(self, which: str) -> Service | None:
        if (written := self._written.get(which)) is not None:
            return written
        if "token_url" in self._written:
            return None
        found = await self._endpoints()
        url = found.token_url if which == "token_url" else found.revocation_url
        if url is None:
            return None
        if url not in self._services:
            self._services[url] = self._discovery.service(url, SERVER, which)
        return self._services[url]

    async def _endpoints(self) -> Endpoints:
        if self._found is not None and self._found[1] > self._now():
            return self._found[0]
        issuer = self._issuer or await self._discovery.issuer_of(self._resource)
        found = await self._discovery.endpoints(issuer)
        if found.methods is not None and self._client.method not in found.methods:
            raise BrokerFault(f"{SERVER} takes no client that shows itself by client_auth")
        self._found = (found, self._now() + FOUND_MS)
        return found


def _check_place(section: Mapping[str, Any], method: str) -> None:
    """Whether it is said in one way where the server is."""
    find = bool(section.get("find_issuer"))
    written = section.get("token_url") is not None or section.get("issuer") is not None
    if find == written:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "needs issuer or token_url, or else find_issuer",
            place="issuer",
            hint="write the issuer of the authorization server",
        )
    if find and method != "private_key_jwt":
        raise ConfigError(
            Code.CONFIG_INVALID,
            "would show the client's secret to whomever the resource names",
            place="find_issuer",
            hint="write the issuer, or have a client with a key (private_key_jwt)",
        )


def _written(section: Mapping[str, Any], ca: bytes | None) -> dict[str, Service]:
    """The endpoints that the operator wrote."""
    names = ("token_url", "revocation_url")
    return {
        name: Service(section[name], name=SERVER, ca=ca, place=name)
        for name in names
        if section.get(name) is not None
    }


def _lives_s(answer: Answer, found: Mapping[str, Any], scopes: tuple[str, ...]) -> int | None:
    """Its life in seconds, after it was seen to be no more than was asked for (RFC 6749 §5.1)."""
    if str(found.get("token_type", "")).lower() != "bearer":
        raise BrokerFault(f"{SERVER} gave a token that is no bearer token")
    scope = found.get("scope")
    if scope is not None and not isinstance(scope, str):
        raise BrokerFault(f"{SERVER} answered without a usable scope")
    # Where it says no scope, it is the one that was asked for.
    if scopes and scope is not None and not set(scope.split()) <= set(scopes):
        raise BrokerFault(f"{SERVER} gave a scope that was not asked for")
    if found.get("refresh_token") is not None:
        raise BrokerFault(f"{SERVER} gave a refresh token, which outlives runs")
    return answer.seconds(found, "expires_in") if "expires_in" in found else None


def _advance(token: Token, *, key: str | None, note: str | None) -> Advance:
    return Advance(
        fields={"token": token.text},
        secrets=(token.text,),
        expires_ms=token.expires_ms,
        key=key,
        note=note,
    )


def _fault(answer: Answer) -> BrokerFault:
    """Its error (RFC 6749 §5.2) in our words: its description may hold anything."""
    try:
        code = json.loads(answer.content).get("error")
    except (ValueError, AttributeError, RecursionError):
        code = None
    why = _SAID.get(code) if isinstance(code, str) else None
    said = f": {why}" if why else ""
    return BrokerFault(f"{SERVER} gave no token, with status {answer.status}{said}")
