"""What verifiers of run tokens read: the discovery document and the issuer's public keys.

Public by their nature, so nobody is asked who they are; both may be cached for a few minutes. The
keys come from the keeper, at most once in `FRESH_S`, however often they are asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from remit.doors import edge
from remit.doors.settings import DoorSettings
from remit.errors import RemitError

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/.well-known/jwks.json"
MAX_AGE_S = 300
"""How long an answer may be kept; a new key is published for much longer before it signs."""

FRESH_S = 5.0
RETRY_S = 1.0

CLAIMS = (
    *("iss", "sub", "aud", "iat", "nbf", "exp", "jti", "act"),
    *("run", "kind", "fence", "plan_hash", "tenant", "environment", "tool", "tool_digest"),
    *("effect", "caller", "approval", "approvers"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicIssuer:
    """The issuer as the outside sees it; `keys` gives its JWK Set (RFC 7517 §5)."""

    url: str
    algorithm: str
    keys: Callable[[], Awaitable[Mapping[str, Any]]]


def configuration(issuer: PublicIssuer) -> dict[str, Any]:
    """The discovery document (OpenID Connect Discovery 1.0 §3), as far as an issuer without
    logins has one."""
    url = issuer.url.rstrip("/")
    return {
        "issuer": url,
        "jwks_uri": url + KEYS,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [issuer.algorithm],
        "claims_supported": list(CLAIMS),
    }


def issuer_routes(issuer: PublicIssuer, settings: DoorSettings) -> list[Route]:
    """The two pages. `Host` may be the issuer's own, beside those of the door."""
    pages = _Pages(issuer, settings)
    return [
        Route(CONFIGURATION, pages.configuration, methods=["GET"]),
        Route(KEYS, pages.keys, methods=["GET"]),
    ]


class _Pages:
    def __init__(self, issuer: PublicIssuer, settings: DoorSettings) -> None:
        self._issuer = issuer
        self._hosts = (*settings.allowed_hosts, urlsplit(issuer.url).netloc.lower())
        self._configuration = _bytes(configuration(issuer))
        self._asking = asyncio.Lock()
        self._known: bytes | None = None
        self._asked_s = -FRESH_S

    async def configuration(self, request: Request) -> Response:
        return self._answer(request, self._configuration)

    async def keys(self, request: Request) -> Response:
        async with self._asking:
            if time.monotonic() - self._asked_s >= FRESH_S:
                try:
                    self._known = _bytes(await self._issuer.keys())
                    self._asked_s = time.monotonic()
                except RemitError:
                    # Those that were known still verify what was signed with them. A keeper that
                    # fails is not asked anew for each request of a stranger either.
                    self._asked_s = time.monotonic() - FRESH_S + RETRY_S
        return self._answer(request, self._known)

    def _answer(self, request: Request, body: bytes | None) -> Response:
        if not edge.listed(request.headers.get("host", ""), self._hosts):
            return Response(status_code=421)
        if body is None:
            return Response(status_code=503, headers={"retry-after": "1"})
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {
            "etag": tag,
            "cache-control": f"public, max-age={MAX_AGE_S}",
            "x-content-type-options": "nosniff",
        }
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")
