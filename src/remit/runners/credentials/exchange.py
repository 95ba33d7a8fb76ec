"""OAuth 2.0 token exchange (RFC 8693): the run's own token for one of another authorization server.

The subject token is of Remit's issuer and names the caller and all on whose behalf it acts. What
comes back is checked against what was asked for; it is revoked (RFC 7009) where the server can.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import Advance, BrokerFault, Held, Kit, Order
from remit.runners.credentials.http import (
    Answer,
    Service,
    bounded,
    required_issuer,
    seconds_left,
)

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name, no secret
JWT = "urn:ietf:params:oauth:token-type:jwt"

SUBJECT_TTL_S = 120

_GIVEN = frozenset({ACCESS_TOKEN, JWT})

_SAID = {
    "invalid_request": "it does not take such a request",
    "invalid_client": "it does not accept client_id and client_secret",
    "invalid_grant": "it does not accept Remit's token",
    "unauthorized_client": "this client may not exchange tokens",
    "unsupported_grant_type": "it does not exchange tokens",
    "invalid_scope": "it does not give these scopes",
    "invalid_target": "it does not give tokens for this audience or resource",
    "access_denied": "its policy refuses this",
    "temporarily_unavailable": "it is not available now",
}


class ExchangeBroker:
    """One token endpoint. Scopes of an order are the `scope` of the request.

    Promises that a token of another type, or with a scope that was not asked for, is not lent; it
    is revoked where that can be done. A token that lives longer than the run is lent only where it
    can be revoked.

    Raises:
        ConfigError: an address is not plain, a secret without a client, or there is no issuer.
    """

    gives = frozenset({"token"})
    narrows = True

    def __init__(self, kit: Kit) -> None:
        section = kit.section
        self._issuer = required_issuer(kit.issuer)
        self._now = kit.now
        self._subject_audience = str(section["subject_audience"])
        self._wanted = {
            name: str(section[name])
            for name in ("audience", "resource")
            if section.get(name) is not None
        }
        self._client_id: str | None = section.get("client_id")
        self._basic = _basic(kit) if section.get("client_secret") is not None else None
        name = "the authorization server"
        self._tokens = Service(section["token_url"], name=name, place="token_url")
        revocation = section.get("revocation_url")
        self._revocations = (
            None if revocation is None else Service(revocation, name=name, place="revocation_url")
        )

    async def lend(self, order: Order) -> Advance:
        """Exchange a new token of the run's."""
        left_s = seconds_left(order.ends_ms, self._now())
        wanted = dict(self._wanted)
        if order.audience is not None:
            wanted["audience"] = order.audience
        form = {
            "grant_type": GRANT,
            "subject_token": self._issuer.mint(
                self._subject_audience, order, min(SUBJECT_TTL_S, left_s)
            ),
            "subject_token_type": JWT,
            "requested_token_type": ACCESS_TOKEN,
            **wanted,
        }
        if order.scopes:
            form["scope"] = " ".join(order.scopes)
        async with bounded("the authorization server"):
            answer = await self._post(self._tokens, form)
            if not answer.ok:
                raise _fault("the exchange was refused", answer)
            found = answer.facts()
            token = answer.text(found, "access_token")
            try:
                lives_s = self._check(answer, found, order, left_s)
            except BrokerFault:
                await self._end(token)
                raise
        return Advance(
            fields={"token": token},
            secrets=(token,),
            expires_ms=None if lives_s is None else self._now() + lives_s * 1000,
            key=None if self._revocations is None else token,
            note="it cannot be revoked" if self._revocations is None else None,
        )

    async def revoke(self, held: Held) -> bool:
        """Revoke the token, where the server has an address for it."""
        if held.key is None or self._revocations is None:
            return False
        async with bounded("the authorization server"):
            answer = await self._end(held.key)
        if answer is None or not answer.ok:
            status = "" if answer is None else f" with status {answer.status}"
            raise BrokerFault(f"the authorization server did not revoke the token{status}")
        return True

    async def aclose(self) -> None:
        await self._tokens.aclose()
        if self._revocations is not None:
            await self._revocations.aclose()

    def _check(
        self, answer: Answer, found: Mapping[str, Any], order: Order, left_s: int
    ) -> int | None:
        """Its life in seconds, after it was seen to be no more than was asked for (RFC 8693 §2.2.1)."""
        if found.get("issued_token_type") not in _GIVEN:
            raise BrokerFault("the authorization server gave a token of another kind")
        if str(found.get("token_type", "")).lower() != "bearer":
            raise BrokerFault("the authorization server gave a token that is no bearer token")
        scope = found.get("scope")
        if scope is not None and not isinstance(scope, str):
            raise BrokerFault("the authorization server answered without a usable scope")
        # Where it says no scope, it is the one that was asked for.
        if order.scopes and scope is not None and not set(scope.split()) <= set(order.scopes):
            raise BrokerFault("the authorization server gave a scope that was not asked for")
        if found.get("refresh_token") is not None:
            raise BrokerFault("the authorization server gave a refresh token, which outlives runs")
        lives_s = answer.seconds(found, "expires_in") if "expires_in" in found else None
        if self._revocations is None and (lives_s is None or lives_s > left_s):
            raise BrokerFault(
                "the token would outlive the run and cannot be revoked: write revocation_url, or "
                "let the server give a shorter one"
            )
        return lives_s

    async def _end(self, token: str) -> Answer | None:
        if self._revocations is None:
            return None
        form = {"token": token, "token_type_hint": "access_token"}
        return await self._post(self._revocations, form, again=True)

    async def _post(self, service: Service, form: dict[str, str], *, again: bool = False) -> Answer:
        headers = {"accept": "application/json"}
        if self._basic is not None:
            headers["authorization"] = self._basic
        elif self._client_id is not None:
            form["client_id"] = self._client_id
        return await service.ask("POST", headers=headers, form=form, again=again)


def _basic(kit: Kit) -> str:
    """The client's name and secret, each form-encoded first (RFC 6749 §2.3.1)."""
    client_id = kit.section.get("client_id")
    if client_id is None:
        raise ConfigError(
            Code.CONFIG_INVALID, "a client's secret needs client_id beside it", place="client_id"
        )
    pair = f"{quote_plus(client_id)}:{quote_plus(kit.secret('client_secret'))}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def _fault(step: str, answer: Answer) -> BrokerFault:
    """Its error (RFC 6749 §5.2) in our words: its description may hold anything."""
    try:
        code = json.loads(answer.content).get("error")
    except (ValueError, AttributeError, RecursionError):
        code = None
    why = _SAID.get(code) if isinstance(code, str) else None
    said = f": {why}" if why else ""
    return BrokerFault(f"{step} by the authorization server with status {answer.status}{said}")
