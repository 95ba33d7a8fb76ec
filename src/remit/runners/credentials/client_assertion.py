"""How Remit shows an authorization server which client it is: a secret, or a key (RFC 7523)."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import Kit

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What goes into a request: headers and members of its form."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)


class Client:
    """One client at one authorization server.

    `method` is the name that servers' metadata has for its way (RFC 8414 §2).

    Raises:
        ConfigError: there is no secret or key for that way, or the key is of no kind that is
            signed with.
    """

    def __init__(self, kit: Kit) -> None:
        section = kit.section
        self.method = str(section["client_auth"])
        self._id = str(section["client_id"])
        self._key: Any = None
        self._secret = ""
        if self.method == "private_key_jwt":
            self._key, self._algorithm = _private_key(kit.secret("private_key"))
            key_id = section.get("key_id")
            self._head = {} if key_id is None else {"kid": str(key_id)}
        else:
            self._secret = kit.secret("client_secret")

    def shown(self, audience: str, now_ms: int) -> Shown:
        """What this request shows; an assertion is for this audience alone and lives a minute."""
        if self.method == "client_secret_basic":
            # Each form-encoded first (RFC 6749 §2.3.1).
            pair = f"{quote_plus(self._id)}:{quote_plus(self._secret)}".encode("ascii")
            return Shown(headers={"authorization": "Basic " + base64.b64encode(pair).decode()})
        if self.method == "client_secret_post":
            return Shown(form={"client_id": self._id, "client_secret": self._secret})
        now = now_ms // 1000
        claims = {
            "iss": self._id,
            "sub": self._id,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_S,
            "jti": os.urandom(16).hex(),
        }
        assertion = jwt.encode(claims, self._key, algorithm=self._algorithm, headers=self._head)
        return Shown(
            form={
                "client_id": self._id,
                "client_assertion_type": ASSERTION,
                "client_assertion": assertion,
            }
        )


def _private_key(pem: str) -> tuple[Any, str]:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _wrong("holds no private key in PEM without a password") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2_048:
        return key, "RS256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key, "ES256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key, "EdDSA"
    raise _wrong("is neither RSA of 2048 bits or more, nor P-256, nor Ed25519")


def _wrong(message: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"the key {message}",
        place="private_key",
        hint="such as: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    )
