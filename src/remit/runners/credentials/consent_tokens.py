"""The token endpoint for consents: a code for tokens, new tokens for old, and an end to them
(RFC 6749 §4.1.3 and §6, RFC 7009, RFC 8707)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from remit.challenge import scopes_in
from remit.runners.credentials.broker import BrokerFault
from remit.runners.credentials.client_assertion import Client
from remit.runners.credentials.discovery import SERVER, Discovery
from remit.runners.credentials.http import Answer, Service

_SAID = {
    "invalid_request": "it does not take such a request",
    "invalid_client": "it does not accept the client, or what it shows",
    "invalid_grant": "it does not accept the code, or what was given ended",
    "unauthorized_client": "this client may not act for people",
    "unsupported_grant_type": "it gives no tokens for a code",
    "invalid_scope": "it does not give these scopes",
    "invalid_target": "it does not give tokens for this resource",
    "access_denied": "its policy refuses this",
    "temporarily_unavailable": "it is not available now",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the server gave. `scopes` None: those that were asked for."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_ms: int | None
    scopes: tuple[str, ...] | None


class Refusal(BrokerFault):
    """The server said no; `error` is its code (RFC 6749 §5.2), None where it has none that is known."""

    def __init__(self, message: str, error: str | None) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServer:
    """One authorization server's endpoints, asked as one client.

    `audience` is whom an assertion of the client is for. `written` are the endpoints that the
    operator wrote, by address; any other is asked with the guard.
    """

    token_url: str
    revocation_url: str | None
    client: Client
    audience: str
    discovery: Discovery
    written: Mapping[str, Service]
    now: Callable[[], int]

    async def tokens(self, form: Mapping[str, str]) -> Tokens:
        """Tokens for this form.

        Raises:
            Refusal: the server said no.
            BrokerFault: nobody knows what it did, or what it gave cannot be used.
        """
        answer = await self._post(self.token_url, form)
        if not answer.ok:
            raise _refusal(answer)
        found = answer.facts()
        if str(found.get("token_type", "")).lower() != "bearer":
            raise BrokerFault(f"{SERVER} gave a token that is no bearer token")
        lives_s = (
            answer.seconds(found, "expires_in") if found.get("expires_in") is not None else None
        )
        refresh = None
        if found.get("refresh_token") is not None:
            refresh = answer.text(found, "refresh_token")
        return Tokens(
            access_token=answer.text(found, "access_token"),
            refresh_token=refresh,
            expires_ms=None if lives_s is None else self.now() + 1000 * lives_s,
            scopes=_scopes(found.get("scope")),
        )

    async def end(self, token: str, hint: str) -> bool:
        """Have a token ended; whether the server confirmed it.

        Raises:
            BrokerFault: the server could not be asked.
        """
        if self.revocation_url is None:
            return False
        form = {"token": token, "token_type_hint": hint}
        return (await self._post(self.revocation_url, form, again=True)).ok

    async def _post(self, url: str, form: Mapping[str, str], *, again: bool = False) -> Answer:
        shown = self.client.shown(self.audience, self.now())
        headers = {"accept": "application/json", **shown.headers}
        service = self.written.get(url) or self.discovery.service(url, SERVER, "issuer")
        try:
            return await service.ask(
                "POST", headers=headers, form={**form, **shown.form}, again=again
            )
        finally:
            await service.aclose()


def _scopes(scope: object) -> tuple[str, ...] | None:
    """Those of an answer; None where it names none (RFC 6749 §5.1)."""
    if scope is None or scope == "":
        return None
    found = scopes_in(scope.split(" ")) if isinstance(scope, str) else ()
    if not found:
        raise BrokerFault(f"{SERVER} answered without a usable scope")
    return found


def _refusal(answer: Answer) -> Refusal:
    """Its error in our words: its description may hold anything."""
    try:
        code = json.loads(answer.content).get("error")
    except (ValueError, AttributeError, RecursionError):
        code = None
    known = code if isinstance(code, str) and code in _SAID else None
    said = f": {_SAID[known]}" if known else ""
    message = f"{SERVER} gave no token, with status {answer.status}{said}"
    return Refusal(message, known)
