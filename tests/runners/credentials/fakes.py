"""Lending systems that cannot be had here: they check what the real ones check, and can misbehave."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import jwt

LEVELS = ("read", "write", "admin")


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(self.body.decode(), strict_parsing=True).items()}

    @property
    def bearer(self) -> str:
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else ""


@dataclass
class Reply:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    broken: bool = False
    held: threading.Event | None = None
    drips: bool = False


Answerer = Callable[[Request], Reply]


@contextlib.contextmanager
def serving(answer: Answerer, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answers on loopback for as long as the `with` lasts; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = answer(Request(self.command, self.path, headers, self.rfile.read(length)))
            if reply.held is not None:
                reply.held.wait(30)
            if reply.broken:
                self.close_connection = True
                return
            text = b"" if reply.body is None else _bytes(reply.body)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            with contextlib.suppress(OSError):
                if reply.drips:
                    self._drip(text)
                    return
                self.wfile.write(text)

        def _drip(self, text: bytes) -> None:
            for byte in text:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)  # slow on purpose

        do_GET = do_POST = do_DELETE = do_PUT = _any

        def log_message(self, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


class Scripted:
    """Replies with each of `first` once, in order, then as the system itself does."""

    def __init__(self) -> None:
        self.first: list[Reply] = []
        self.seen: list[Request] = []
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body

    def __call__(self, request: Request) -> Reply:
        self.seen.append(request)
        if self.first:
            return self.first.pop(0)
        reply = self.answer(request)
        if isinstance(reply.body, dict) and reply.status < 300:
            reply.body = self.change(reply.body)
        return reply

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError


class FakeGithub(Scripted):
    """One App with one installation: checks the App's token, narrows, revokes."""

    def __init__(self, public_key: Any) -> None:
        super().__init__()
        self._key = public_key
        self.repositories = {"site": 1, "infra": 2, "secret-plans": 3}
        self.permissions = {"contents": "write", "issues": "write", "administration": "write"}
        self.live: dict[str, dict[str, Any]] = {}

    def answer(self, request: Request) -> Reply:
        if (request.method, request.path) == ("DELETE", "/installation/token"):
            found = self.live.pop(request.bearer, None)
            return Reply(401, {"message": "Bad credentials"}) if found is None else Reply(204)
        if request.method != "POST" or not request.path.startswith("/app/installations/"):
            return Reply(404, {"message": "Not Found"})
        if not self._is_app(request.bearer):
            return Reply(401, {"message": "A JSON web token could not be decoded"})
        if request.path != "/app/installations/77/access_tokens":
            return Reply(404, {"message": "Not Found"})
        return self._token(json.loads(request.body))

    def _is_app(self, token: str) -> bool:
        try:
            claims = jwt.decode(token, self._key, algorithms=["RS256"])
        except jwt.InvalidTokenError:
            return False
        now = time.time()
        return bool(claims["iss"] == "4711" and claims["iat"] <= now and claims["exp"] <= now + 600)

    def _token(self, asked: dict[str, Any]) -> Reply:
        names = asked.get("repositories") or list(self.repositories)
        wanted = asked.get("permissions") or self.permissions
        if any(name not in self.repositories for name in names) or any(
            LEVELS.index(level) > LEVELS.index(self.permissions.get(name, "read"))
            or name not in self.permissions
            for name, level in wanted.items()
        ):
            return Reply(422, {"message": "The permissions requested are not granted"})
        token = "ghs_" + secrets.token_hex(18)
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        self.live[token] = {"repositories": names, "permissions": wanted}
        body = {
            "token": token,
            "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "permissions": {**wanted, "metadata": "read"},
            "repository_selection": "selected",
            "repositories": [{"id": self.repositories[n], "name": n} for n in names],
        }
        return Reply(201, body)


class FakeAuthorization(Scripted):
    """An authorization server with token exchange and revocation; verifies against the JWKS."""

    def __init__(self, jwks_url: Callable[[], str], issuer: Callable[[], str]) -> None:
        super().__init__()
        self._jwks_url = jwks_url
        self._issuer = issuer
        self.clients: dict[str, str | None] = {"remit": "s3cr%41t+:with space", "open": None}
        self.scopes = {"read", "write"}
        self.live: dict[str, dict[str, Any]] = {}

    def answer(self, request: Request) -> Reply:
        form = request.form
        if not self._client(request, form):
            return Reply(401, {"error": "invalid_client"})
        if request.path == "/revoke":
            self.live.pop(form["token"], None)
            return Reply(200)
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange":
            return Reply(400, {"error": "unsupported_grant_type"})
        try:
            claims = self._verified(form["subject_token"])
        except jwt.InvalidTokenError as error:
            return Reply(400, {"error": "invalid_grant", "error_description": str(error)})
        scope = form.get("scope", "read")
        if not set(scope.split()) <= self.scopes:
            return Reply(400, {"error": "invalid_scope"})
        if form.get("audience") not in (None, "payments"):
            return Reply(400, {"error": "invalid_target"})
        token = secrets.token_urlsafe(24)
        self.live[token] = {"sub": claims["sub"], "claims": claims, "scope": scope, "form": form}
        body = {
            "access_token": token,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 60,
            "scope": scope,
        }
        return Reply(200, body, {"cache-control": "no-store"})

    def _client(self, request: Request, form: dict[str, str]) -> bool:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            name, _, secret = base64.b64decode(text).decode().partition(":")
            return self.clients.get(unquote_plus(name)) == unquote_plus(secret)
        return form.get("client_id") in self.clients and self.clients[form["client_id"]] is None

    def _verified(self, token: str) -> dict[str, Any]:
        key = jwt.PyJWKClient(self._jwks_url(), cache_keys=False).get_signing_key_from_jwt(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=["RS256"],
            audience="https://login.example.com",
            issuer=self._issuer(),
            options={"require": ["exp", "iat", "sub", "jti"]},
        )
        return claims
