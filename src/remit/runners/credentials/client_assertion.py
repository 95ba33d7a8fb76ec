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

    `method` is the name that servers' metadata has for its way (RFC 8414 §2); `none` shows its name
    alone.

    Args:
        secret: what it shows, where that is one.
        key: what it signs with, and the algorithm.
        key_id: `kid` of what the key signs.
    """

    def __init__(
        self,
        client_id: str,
        method: str,
        *,
        secret: str = "",
        key: tuple[Any, str] | None = None,
        key_id: str | None = None,
    ) -> None:
        self.id, self.method = client_id, method
        self._secret = secret
        self._key = key
        self._head = {} if key_id is None else {"kid": key_id}

    @classmethod
    def of(cls, kit: Kit) -> Client:
        """The client that the operator wrote.

        Raises:
            ConfigError: there is no secret or key for its way, or the key is of no kind that is
                signed with.
        """
        section = kit.section
        client_id, method = str(section["client_id"]), str(section["client_auth"])
        if method == "none":
            return cls(client_id, method)
        if method != "private_key_jwt":
            return cls(client_id, method, secret=kit.secret("client_secret"))
        key_id = section.get("key_id")
        return cls(
            client_id,
            method,
            key=_private_key(kit.secret("private_key")),
            key_id=None if key_id is None else str(key_id),
        )

    def shown(self, audience: str, now_ms: int) -> Shown:
        """What this request shows; an assertion is for this audience alone and lives a minute."""
        if self.method == "client_secret_basic":
            # Each form-encoded first (RFC 6749 §2.3.1).
            pair = f"{quote_plus(self.id)}:{quote_plus(self._secret)}".encode("ascii")
            return Shown(headers={"authorization": "Basic " + base64.b64encode(pair).decode()})
        if self.method == "client_secret_post":
            return Shown(form={"client_id": self.id, "client_secret": self._secret})
        if self.method == "none":
            return Shown(form={"client_id": self.id})
        assert self._key is not None
        key, algorithm = self._key
        now = now_ms // 1000
        claims = {
            "iss": self.id,
            "sub": self.id,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_S,
            "jti": os.urandom(16).hex(),
        }
        assertion = jwt.encode(claims, key, algorithm=algorithm, headers=self._head)
        return Shown(
            form={
                "client_id": self.id,
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
