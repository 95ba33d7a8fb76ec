"""An authorization server for client credentials, and a resource that names it; both can lie."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from remit.runners.credentials import http
from remit.runners.credentials.client_credentials import ClientCredentialsBroker
from tests.runners.credentials.fakes import Reply, Request, Scripted, serving
from tests.runners.credentials.world import kit, section

SECRET = "s3cr%41t+:with space"
KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
}


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text.decode()


class FakeClients(Scripted):
    """Gives the client `remit` tokens for itself, whichever way it shows itself."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.metadata: dict[str, Any] = {}
        self.documents = {"/.well-known/oauth-authorization-server": self._metadata}
        self.scopes = {"read", "write"}
        self.lives_s: int | None = 60
        self.given: list[dict[str, str]] = []
        self.live: dict[str, dict[str, str]] = {}
        self.seen_jti: set[str] = set()

    def _metadata(self) -> dict[str, Any]:
        found = {
            "issuer": self.url,
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "token_endpoint_auth_methods_supported": [
                "client_secret_basic", "client_secret_post", "private_key_jwt",
            ],
        } | self.metadata  # fmt: skip
        return {key: value for key, value in found.items() if value is not None}

    def answer(self, request: Request) -> Reply:
        if request.method == "GET":
            made = self.documents.get(request.path)
            return Reply(404) if made is None else Reply(200, made())
        form = request.form
        if not self._client(request, form):
            return Reply(401, {"error": "invalid_client"})
        if request.path == "/revoke":
            self.live.pop(form["token"], None)
            return Reply(200)
        if form.get("grant_type") != "client_credentials":
            return Reply(400, {"error": "unsupported_grant_type"})
        scope = form.get("scope", "read")
        if not set(scope.split()) <= self.scopes:
            return Reply(400, {"error": "invalid_scope"})
        token = secrets.token_urlsafe(24)
        self.live[token] = form
        self.given.append(form)
        body = {"access_token": token, "token_type": "Bearer", "scope": scope}
        return Reply(200, body | ({} if self.lives_s is None else {"expires_in": self.lives_s}))

    def _client(self, request: Request, form: dict[str, str]) -> bool:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            name, _, secret = base64.b64decode(text).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == ("remit", SECRET)
        if "client_assertion" in form:
            return self._asserted(form["client_assertion"])
        return (form.get("client_id"), form.get("client_secret")) == ("remit", SECRET)

    def _asserted(self, assertion: str) -> bool:
        algorithm = jwt.get_unverified_header(assertion)["alg"]
        required = ["exp", "iat", "sub", "iss", "jti"]
        try:
            claims = jwt.decode(
                assertion,
                KEYS[algorithm].public_key(),
                algorithms=[algorithm],
                audience=self.url,
                issuer="remit",
                options={"require": required},
            )
        except jwt.InvalidTokenError:
            return False
        fresh = claims["jti"] not in self.seen_jti and claims["exp"] <= time.time() + 120
        self.seen_jti.add(claims["jti"])
        return claims["sub"] == "remit" and fresh


class FakeResource(Scripted):
    """An MCP server that wants a token, and names its authorization server (RFC 9728)."""

    def __init__(self, issuer: str) -> None:
        super().__init__()
        self.url = ""
        self.servers: Any = [issuer]
        self.resource: str | None = None
        self.at = "/.well-known/oauth-protected-resource/mcp"
        self.challenge: str | None = None

    def answer(self, request: Request) -> Reply:
        if request.method == "POST" and request.path == "/mcp":
            shown = {} if self.challenge is None else {"www-authenticate": self.challenge}
            return Reply(401, {"error": "no"}, shown)
        if request.path != self.at:
            return Reply(404)
        resource = self.resource or f"{self.url}/mcp"
        return Reply(200, {"resource": resource, "authorization_servers": self.servers})


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up because this machine is slow: bounds of time have tests of their own."""
    monkeypatch.setattr(http, "TOTAL_S", 60.0)
    monkeypatch.setattr(http, "TRY_S", 30.0)


@dataclass
class Place:
    """Both of them at work on loopback."""

    server: FakeClients
    resource: FakeResource
    secrets: dict[str, str] = field(default_factory=dict)

    def broker(self, **written: Any) -> ClientCredentialsBroker:
        """One that has the operator's words for everything, unless they are changed here."""
        words = {
            "resource": f"{self.resource.url}/mcp",
            "issuer": self.server.url,
            "client_id": "remit",
            "client_auth": "client_secret_basic",
            **written,
        }
        found = section(
            broker="client_credentials",
            client_secret="env:SECRET",
            private_key="env:KEY",
            **{key: value for key, value in words.items() if value is not None},
        )
        given = {"client_secret": SECRET, "private_key": pem(KEYS["ES256"]), **self.secrets}
        return ClientCredentialsBroker(kit(found, secrets=given))


@contextmanager
def placed() -> Iterator[Place]:
    """An authorization server and a resource, for as long as the `with` lasts."""
    server = FakeClients()
    with serving(server) as server.url:
        resource = FakeResource(server.url)
        with serving(resource) as resource.url:
            yield Place(server, resource)
