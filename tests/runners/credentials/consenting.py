"""An authorization server at which people consent, and a browser; it believes nothing and can lie.

It checks client, exact redirect address, PKCE, resource and state of each code, gives a code's tokens
once, and exchanges refresh tokens: an old one that comes again ends all that came of it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import httpx2

from remit.model import ConsentPage
from remit.runners.credentials.authorization_code import AuthorizationCodeBroker
from remit.testing.consents import REDIRECT
from tests.runners.credentials.fakes import Reply, Request, Scripted, serving
from tests.runners.credentials.oauth import FakeResource
from tests.runners.credentials.world import kit, now_ms, section

DOCUMENT = "https://remit.example/consents/client.json"


@dataclass
class Grant:
    """What one person gave one client; all tokens that came of it."""

    client: str
    scopes: list[str]
    resource: str
    refresh: str = ""
    access: set[str] = field(default_factory=set)
    ended: bool = False


class FakeConsentServer(Scripted):
    """Asks nobody: whoever comes to its page consents to `allows`, or to all that is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.metadata: dict[str, Any] = {}
        self.clients: dict[str, dict[str, Any]] = {}
        self.documents = {DOCUMENT: [REDIRECT]}
        self.codes: dict[str, dict[str, str]] = {}
        self.grants: list[Grant] = []
        self.pages: list[dict[str, str]] = []
        self.refreshes = 0
        self.allows: set[str] | None = None
        self.iss: str | None = ""
        self.lives_s: int | None = 3_600
        self.renews = True
        self.rotates = True
        self.asking: threading.Event | None = None
        self.lock = threading.Lock()

    def known(self, client_id: str, secret: str = "", *, redirect: str = REDIRECT) -> None:
        """Have a client that somebody registered by hand."""
        self.clients[client_id] = {"redirect_uris": [redirect], "secret": secret}

    def live(self, token: str) -> Grant | None:
        """The grant of an access token that is good."""
        return next((g for g in self.grants if token in g.access and not g.ended), None)

    def answer(self, request: Request) -> Reply:
        path, _, query = request.path.partition("?")
        with self.lock:
            match path:
                case "/.well-known/oauth-authorization-server":
                    return Reply(200, self._about())
                case "/authorize":
                    return self._page({k: v[0] for k, v in parse_qs(query).items()})
                case "/register":
                    return self._register(request)
                case "/token":
                    return self._token(request)
                case "/revoke":
                    return self._revoke(request)
        return Reply(404)

    def _about(self) -> dict[str, Any]:
        found = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "registration_endpoint": f"{self.url}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata
        return {key: value for key, value in found.items() if value is not None}

    def _redirects(self, client_id: str) -> list[str]:
        known = self.clients.get(client_id, {}).get("redirect_uris")
        return known or self.documents.get(client_id, [])

    def _page(self, asked: dict[str, str]) -> Reply:
        self.pages.append(asked)
        if asked.get("redirect_uri") not in self._redirects(asked.get("client_id", "")):
            return Reply(400, {"error": "no such client, or another address"})
        if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            return Reply(400, {"error": "no PKCE"})
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"]}
        if self.iss is not None:
            back["iss"] = self.iss or self.url
        return Reply(302, None, {"location": f"{asked['redirect_uri']}?{urlencode(back)}"})

    def _register(self, request: Request) -> Reply:
        import json

        asked = json.loads(request.body)
        name = f"client-{len(self.clients)}"
        way = asked["token_endpoint_auth_method"]
        secret = "" if way == "none" else secrets.token_urlsafe(16)
        self.clients[name] = {**asked, "secret": secret}
        return Reply(
            201, {**asked, "client_id": name} | ({"client_secret": secret} if secret else {})
        )

    def _client(self, request: Request) -> str | None:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        form = request.form
        if kind == "Basic":
            name, _, secret = base64.b64decode(text).decode().partition(":")
            name, secret = unquote_plus(name), unquote_plus(secret)
        else:
            name, secret = form.get("client_id", ""), form.get("client_secret", "")
        if name in self.documents:
            return name
        known = self.clients.get(name)
        return name if known is not None and known["secret"] == secret else None

    def _token(self, request: Request) -> Reply:
        form, client = request.form, self._client(request)
        if client is None:
            return Reply(401, {"error": "invalid_client"})
        if form["grant_type"] == "refresh_token":
            return self._refreshed(form, client)
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        shown = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or (asked["client_id"], asked["redirect_uri"]) != (client, form["redirect_uri"])
            or asked["code_challenge"] != shown
            or asked.get("resource") != form.get("resource")
        ):
            return Reply(400, {"error": "invalid_grant"})
        wanted = asked.get("scope", "").split()
        scopes = [each for each in wanted if self.allows is None or each in self.allows]
        grant = Grant(client=client, scopes=scopes, resource=asked["resource"])
        self.grants.append(grant)
        return self._give(grant)

    def _refreshed(self, form: dict[str, str], client: str) -> Reply:
        self.refreshes += 1
        for grant in self.grants:
            if form["refresh_token"].startswith(f"{id(grant)}-") and grant.client == client:
                if form["refresh_token"] != grant.refresh:
                    grant.ended = True
                if not grant.ended and form.get("resource") == grant.resource:
                    return self._give(grant)
        return Reply(400, {"error": "invalid_grant"})

    def _give(self, grant: Grant) -> Reply:
        token = secrets.token_urlsafe(24)
        grant.access.add(token)
        body: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
        if grant.scopes:
            body["scope"] = " ".join(grant.scopes)
        if self.lives_s is not None:
            body["expires_in"] = self.lives_s
        if self.renews:
            if self.rotates or not grant.refresh:
                grant.refresh = f"{id(grant)}-{secrets.token_urlsafe(16)}"
            body["refresh_token"] = grant.refresh
        return Reply(200, body, held=self.asking)

    def _revoke(self, request: Request) -> Reply:
        if self._client(request) is None:
            return Reply(401, {"error": "invalid_client"})
        token = request.form["token"]
        for grant in self.grants:
            if token == grant.refresh or token in grant.access:
                grant.ended = True
        return Reply(200)


class Kept:
    """What brokers keep, in memory."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.written: list[str] = []

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> Mapping[str, Any] | None:
        return self.files.get(name)

    def write(self, name: str, facts: Mapping[str, Any]) -> None:
        self.written.append(str(facts.get("access_token")))
        self.files[name] = dict(facts)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)


async def browse(page: ConsentPage | str) -> dict[str, str]:
    """Go to the page as a person's browser does, and give what comes back to Remit."""
    url = page if isinstance(page, str) else page.url
    async with httpx2.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302, (answer.status_code, answer.text)
    found = parse_qs(urlsplit(answer.headers["location"]).query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {key: values[0] for key, values in found.items()}


@dataclass
class Town:
    """The server, a resource that names it, and what is kept; a broker is made of them."""

    server: FakeConsentServer
    resource: FakeResource
    kept: Kept = field(default_factory=Kept)
    ahead_ms: int = 0

    def now(self) -> int:
        return now_ms() + self.ahead_ms

    def section(self, **written: Any) -> dict[str, Any]:
        words = {"resource": f"{self.resource.url}/mcp", "broker": "authorization_code", **written}
        return section(**{key: value for key, value in words.items() if value is not None})

    def broker(
        self, secrets: Mapping[str, str] | None = None, **written: Any
    ) -> AuthorizationCodeBroker:
        made = kit(self.section(**written), secrets=secrets, now=self.now, sealed=self.kept)
        return AuthorizationCodeBroker(made)


@contextmanager
def town() -> Iterator[Town]:
    """All of it at work on loopback, for as long as the `with` lasts."""
    server = FakeConsentServer()
    with serving(server) as server.url:
        resource = FakeResource(server.url)
        with serving(resource) as resource.url:
            yield Town(server, resource)
