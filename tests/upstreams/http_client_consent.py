"""A person who consents to whatever Remit asks for, in the official suite's scenarios."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from remit.errors import UpstreamFault
from remit.model import ConsentState, Principal
from remit.runners.credentials.authorization_code import AuthorizationCodeBroker
from remit.runners.credentials.discovery import Discovery
from remit.runners.credentials.guarded import Guard
from tests.runners.credentials.consenting import Kept, browse
from tests.runners.credentials.world import kit, order, section

T = TypeVar("T")

ADA = Principal(tenant="acme", subject="ada")
REDIRECT = "http://127.0.0.1:8700/consents/callback"
DOCUMENT = "https://conformance-test.local/client-metadata.json"
"""Where the suite says that a client's metadata are."""

MOST = 6
"""Calls after which this client would give up, if Remit did not before."""


class Person:
    """Asks with the token that the broker lends, and consents where there is none."""

    def __init__(self, broker: AuthorizationCodeBroker, document: str | None) -> None:
        self._broker = broker
        self._document = document
        self._numbers = itertools.count()

    @classmethod
    async def at(cls, url: str, scenario: str, context: dict[str, Any]) -> Self:
        """For one server. A client that the suite gives is written with its issuer, which whoever
        writes the configuration looks up before."""
        written: dict[str, Any] = {"resource": url}
        if "client_id" in context:
            guard = Guard(frozenset({urlsplit(url).hostname or ""}))
            written |= {
                "client_id": context["client_id"],
                "client_auth": "client_secret_basic",
                "client_secret": "env:SECRET",
                "issuer": await Discovery(guard).issuer_of(url),
            }
        found = section(broker="authorization_code", **written)
        secrets = {"client_secret": context.get("client_secret", "")}
        document = DOCUMENT if scenario == "auth/basic-cimd" else None
        return cls(AuthorizationCodeBroker(kit(found, secrets=secrets, sealed=Kept())), document)

    async def asking(self, ask: Callable[[bytes], Awaitable[T]]) -> T:
        """What is asked, with a token; again only where that one was not enough and another is."""
        before = b""
        for _ in range(MOST):
            if await self._broker.status(ADA, ()) is ConsentState.NEEDED:
                page = await self._broker.begin(ADA, (), REDIRECT, self._document)
                await self._broker.finish(page.state, await browse(page))
            name = f"loan-{next(self._numbers)}"
            lent = await self._broker.lend(
                order(tenant=ADA.tenant, subject=ADA.subject, loan_id=name)
            )
            token = lent.fields["token"].encode()
            if token == before:
                break
            try:
                return await ask(token)
            except UpstreamFault as fault:
                if fault.challenged is None:
                    raise
                before = token
                await self._broker.unaccepted(name, fault.challenged or None)
        raise SystemExit("the server does not take what was given, and Remit asks no more")

    async def aclose(self) -> None:
        await self._broker.aclose()
