"""A careful verifier of run tokens."""

from __future__ import annotations

from typing import Any

import jwt

AUDIENCE = "https://there.example"


def verified(token: str, jwks: dict[str, Any]) -> dict[str, Any]:
    """What a careful verifier reads: signature by `kid`, issuer, audience, times."""
    header = jwt.get_unverified_header(token)
    key = next(k for k in jwt.PyJWKSet.from_dict(jwks).keys if k.key_id == header["kid"])
    found: dict[str, Any] = jwt.decode(
        token,
        key.key,
        algorithms=[header["alg"]],
        audience=AUDIENCE,
        issuer="https://remit.example",
        options={"require": ["exp", "iat", "nbf", "sub", "jti"]},
    )
    return found
