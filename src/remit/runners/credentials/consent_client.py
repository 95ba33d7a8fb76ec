"""Who Remit is at an authorization server where people consent: a client that the operator wrote, the
address of its metadata (CIMD), or one that registered itself (RFC 7591).

What a server gave belongs to that server: with another issuer Remit registers anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from remit.loopback import is_loopback
from remit.runners.credentials.broker import BrokerFault, Kit, Sealed
from remit.runners.credentials.client_assertion import Client
from remit.runners.credentials.discovery import SERVER, Discovery, Endpoints
from remit.runners.credentials.http import Answer

NAME = "Remit"
GRANTS = ["authorization_code", "refresh_token"]
WAYS = ("client_secret_basic", "client_secret_post", "none")
"""How a client that registers shows itself, the first that the server takes."""

UNUSED_MS = 7 * 86_400_000
"""A registered client by which nobody consented for so long registers anew: servers forget clients,
and tell it only to the person who is sent there."""

HOW = "register Remit there, and write client_id and client_auth"


class Clients:
    """The client for each server of one section.

    Raises:
        ConfigError: what the section says of the client is not whole, or a key cannot be used.
    """

    def __init__(self, kit: Kit, sealed: Sealed, now: Callable[[], int]) -> None:
        self._ref = kit.ref
        self._sealed = sealed
        self._now = now
        written = kit.section.get("client_id") is not None
        self._written = Client.of(kit) if written else None

    async def choose(
        self, where: Endpoints, discovery: Discovery, redirect_uri: str, document: str | None
    ) -> Mapping[str, Any]:
        """Who Remit is there, as plain facts that can be kept; `client` makes a client of them.

        Raises:
            BrokerFault: it can be nobody there.
        """
        if self._written is not None:
            if where.methods is not None and self._written.method not in (*where.methods, "none"):
                raise BrokerFault(f"{SERVER} takes no client that shows itself by client_auth")
            return {"kind": "written", "id": self._written.id}
        if where.documents and document is not None:
            return {"kind": "document", "id": document, "method": "none"}
        if where.registration_url is None:
            raise BrokerFault(f"{SERVER} takes no client that it does not know: {HOW}")
        kept = self._sealed.read(self._name(where.issuer))
        if kept is not None and kept.get("redirect_uri") == redirect_uri and self._good(kept):
            return dict(kept["client"])
        facts = await self._register(where, discovery, redirect_uri)
        self._keep(where.issuer, redirect_uri, facts)
        return facts

    def used(self, issuer: str, redirect_uri: str, facts: Mapping[str, Any]) -> None:
        """Somebody consented by this client."""
        if facts["kind"] == "registered":
            self._keep(issuer, redirect_uri, facts)

    def _keep(self, issuer: str, redirect_uri: str, facts: Mapping[str, Any]) -> None:
        kept = {"redirect_uri": redirect_uri, "client": dict(facts), "used_ms": self._now()}
        self._sealed.write(self._name(issuer), kept)

    def client(self, facts: Mapping[str, Any]) -> Client:
        """What shows itself at the server.

        Raises:
            BrokerFault: it was the section's client, and the section has another one now.
        """
        if facts["kind"] != "written":
            secret = str(facts.get("secret", ""))
            return Client(str(facts["id"]), str(facts["method"]), secret=secret)
        if self._written is None or self._written.id != facts["id"]:
            raise BrokerFault("the section has another client now")
        return self._written

    def shows(self, facts: Mapping[str, Any]) -> bool:
        """Whether it shows something that the section has: a secret, or what a key signs."""
        return facts["kind"] == "written" and (
            self._written is None or self._written.method != "none"
        )

    def forget(self, issuer: str) -> None:
        """The server does not know the client any more that registered there."""
        self._sealed.remove(self._name(issuer))

    async def _register(
        self, where: Endpoints, discovery: Discovery, redirect_uri: str
    ) -> Mapping[str, Any]:
        assert where.registration_url is not None
        takes = ("client_secret_basic",) if where.methods is None else where.methods
        way = next((each for each in WAYS if each in takes), None)
        if way is None:
            raise BrokerFault(f"{SERVER} takes no client that could register itself: {HOW}")
        service = discovery.service(where.registration_url, SERVER, "issuer")
        local = is_loopback(urlsplit(redirect_uri).hostname or "")
        about = {
            "client_name": NAME,
            "redirect_uris": [redirect_uri],
            "grant_types": GRANTS,
            "response_types": ["code"],
            "token_endpoint_auth_method": way,
            "application_type": "native" if local else "web",
        }
        try:
            answer = await service.ask("POST", json=about, headers={"accept": "application/json"})
        finally:
            await service.aclose()
        if not answer.ok:
            raise BrokerFault(
                f"{SERVER} did not register Remit, with status {answer.status}: {HOW}"
            )
        return _registered(answer, way)

    def _good(self, kept: Mapping[str, Any]) -> bool:
        if int(kept.get("used_ms", 0)) + UNUSED_MS < self._now():
            return False
        ends_s = kept["client"].get("ends_s")
        return ends_s is None or 1000 * int(ends_s) > self._now()

    def _name(self, issuer: str) -> str:
        return hashlib.sha256(json.dumps(["client", self._ref, issuer]).encode()).hexdigest()


def _registered(answer: Answer, asked: str) -> Mapping[str, Any]:
    """What the server made (RFC 7591 §3.2.1)."""
    found = answer.facts()
    way = found.get("token_endpoint_auth_method", asked)
    if way not in WAYS:
        raise BrokerFault(f"{SERVER} registered a client that shows itself in an unknown way")
    facts: dict[str, Any] = {"kind": "registered", "id": answer.text(found, "client_id")}
    facts["method"] = way
    if way != "none":
        facts["secret"] = answer.text(found, "client_secret")
        ends_s = found.get("client_secret_expires_at", 0)
        if isinstance(ends_s, int) and ends_s > 0:
            facts["ends_s"] = ends_s
    return facts
