"""What brokers are given in tests: an issuer whose keys are served, and orders for runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from remit.runners.credentials.broker import Issuer, Kit, Order, Sealed

ORDER = Order(
    loan_id="loan-1",
    ref="database",
    scopes=(),
    audience=None,
    ends_ms=0,
    run_id="run-01ABCDEF",
    fence=7,
    kind="run",
    plan_hash="sha256:" + "ab" * 32,
    call_digest="sha256:" + "cd" * 32,
    tenant="acme",
    subject="ada",
    caller_kind="agent",
    groups=("dev",),
    chain=(),
    tool="db.report",
    tool_digest="sha256:" + "ef" * 32,
    effect="read",
    environment="production",
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def order(*, lives_s: float = 120, **changed: Any) -> Order:
    return dataclasses.replace(ORDER, ends_ms=now_ms() + int(lives_s * 1000), **changed)


def kit(
    section: Mapping[str, Any],
    issuer: Issuer | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    now: Callable[[], int] = now_ms,
    sealed: Sealed | None = None,
) -> Kit:
    """A section as the keeper hands it over, with the secrets that its references name."""

    def read_file(name: str) -> bytes | None:
        path = section.get(name)
        return None if path is None else Path(path).read_bytes()

    return Kit(
        ref="database",
        section=section,
        secret=(secrets or {}).__getitem__,
        read_file=read_file,
        issuer=issuer,
        now=now,
        sealed=sealed,
    )


def section(**written: Any) -> dict[str, Any]:
    """A section of runners.credentials as the keeper gets it: read by its settings, as JSON."""
    from pydantic import TypeAdapter

    from remit.settings.credentials import CredentialSection

    found = TypeAdapter(CredentialSection).validate_python(written)
    dumped: dict[str, Any] = json.loads(json.dumps(found.model_dump(mode="json"), default=str))
    return dumped


class TokenIssuer:
    """Signs what the gateway's issuer would sign, and anything else that a test wants signed."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self.url = ""
        self.extra: dict[str, Any] = {}

    def mint(self, audience: str, order: Order, ttl_s: int) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": f"tenant:{order.tenant}:environment:{order.environment}:tool:{order.tool}",
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + ttl_s,
            "jti": order.loan_id,
            "tool": order.tool,
            "environment": order.environment,
            **self.extra,
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "k1"})

    @property
    def jwks(self) -> dict[str, Any]:
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}


@contextlib.contextmanager
def served(documents: Mapping[str, Callable[[], Any]]) -> Iterator[str]:
    """JSON documents by path on loopback; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made = documents.get(self.path)
            body = b"{}" if made is None else json.dumps(made()).encode()
            self.send_response(404 if made is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
