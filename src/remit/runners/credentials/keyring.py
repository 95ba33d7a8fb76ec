"""The issuer's signing keys: one that signs, one that is published before it will, old ones.

A verifier fetches the key set and keeps it for a while. So a key is published well before it signs,
and stays published until the last token that it signed is dead.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from remit.errors import Code, ConfigError

PUBLISHED_MS = 3_600_000
"""How long a key is published before it signs, where it can be."""

SKEW_MS = 300_000
"""How far a verifier's clock may be behind: an old key is published this much longer."""

_DAY_MS = 86_400_000

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One key. `signs_ms` is when it began to sign, `retired_ms` when it stopped; None: not yet."""

    private: PrivateKey
    algorithm: str
    made_ms: int
    signs_ms: int | None = None
    retired_ms: int | None = None

    @property
    def kid(self) -> str:
        """The key's thumbprint (RFC 7638)."""
        text = json.dumps(_members(self.private), sort_keys=True, separators=(",", ":"))
        return _b64(hashlib.sha256(text.encode("ascii")).digest())

    @property
    def jwk(self) -> dict[str, str]:
        """The public half as a JWK (RFC 7517)."""
        return {**_members(self.private), "kid": self.kid, "use": "sig", "alg": self.algorithm}


def make(algorithm: str, now_ms: int) -> SigningKey:
    """A new key for RS256 or ES256."""
    private: PrivateKey
    if algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return SigningKey(private=private, algorithm=algorithm, made_ms=now_ms)


class KeyRing:
    """The keys, kept by `save` whenever they change.

    Args:
        stored: what was saved last, or None.
        save: makes its argument durable before it returns; readable by nobody else.
        algorithm: RS256 or ES256; keys of the other one are retired at once.
        rotate_days: age at which the next key takes over.
        token_ms: longest life of a token.

    Raises:
        ConfigError: what is stored cannot be read.
    """

    def __init__(
        self,
        stored: bytes | None,
        save: Callable[[bytes], None],
        *,
        algorithm: str,
        rotate_days: int,
        token_ms: int,
        now_ms: int,
    ) -> None:
        self._save = save
        self._algorithm = algorithm
        self._rotate_ms = rotate_days * _DAY_MS
        self._token_ms = token_ms
        self._keys = [] if stored is None else _read(stored)
        self.turn(now_ms)

    def turn(self, now_ms: int) -> None:
        """Do what is due: let the next key take over, drop dead ones, make the first."""
        keys = [self._aged(key, now_ms) for key in self._keys]
        keys = [key for key in keys if not self._dead(key, now_ms)]
        current = next((k for k in keys if k.signs_ms is not None and k.retired_ms is None), None)
        waiting = next((k for k in keys if k.signs_ms is None and k.retired_ms is None), None)
        if current is not None and waiting is not None and self._due(current, waiting, now_ms):
            keys[keys.index(current)] = replace(current, retired_ms=now_ms)
            current = None
        if current is None:
            chosen = waiting or make(self._algorithm, now_ms)
            keys = [key for key in keys if key is not waiting]
            keys.append(replace(chosen, signs_ms=now_ms))
        if keys != self._keys:
            self._keep(keys)

    def stock(self, now_ms: int) -> None:
        """Make the key that comes next, if there is none: slow, and not needed to begin."""
        if self.wants_next:
            self._keep([*self._keys, make(self._algorithm, now_ms)])

    @property
    def wants_next(self) -> bool:
        """Whether no key waits to take over."""
        return not any(key.signs_ms is None and key.retired_ms is None for key in self._keys)

    @property
    def current(self) -> SigningKey:
        """The key that signs now."""
        return next(k for k in self._keys if k.signs_ms is not None and k.retired_ms is None)

    @property
    def jwks(self) -> dict[str, Any]:
        """All keys that a verifier may meet (RFC 7517 §5)."""
        return {"keys": [key.jwk for key in self._keys]}

    def _aged(self, key: SigningKey, now_ms: int) -> SigningKey:
        if key.algorithm != self._algorithm and key.retired_ms is None:
            return replace(key, retired_ms=now_ms)
        return key

    def _dead(self, key: SigningKey, now_ms: int) -> bool:
        if key.retired_ms is None:
            return False
        return key.signs_ms is None or key.retired_ms + self._token_ms + SKEW_MS <= now_ms

    def _due(self, current: SigningKey, waiting: SigningKey, now_ms: int) -> bool:
        began = current.made_ms if current.signs_ms is None else current.signs_ms
        return began + self._rotate_ms <= now_ms and waiting.made_ms + PUBLISHED_MS <= now_ms

    def _keep(self, keys: list[SigningKey]) -> None:
        self._save(_write(keys))
        self._keys = keys


def _members(private: PrivateKey) -> dict[str, str]:
    """The members that a thumbprint is over."""
    if isinstance(private, rsa.RSAPrivateKey):
        public = private.public_key().public_numbers()
        return {"kty": "RSA", "n": _number(public.n), "e": _number(public.e)}
    point = private.public_key().public_numbers()
    coordinates = (point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big"))
    x, y = map(_b64, coordinates)
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _number(value: int) -> str:
    return _b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _write(keys: list[SigningKey]) -> bytes:
    listed = [
        {
            "pem": key.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode("ascii"),
            "algorithm": key.algorithm,
            "made_ms": key.made_ms,
            "signs_ms": key.signs_ms,
            "retired_ms": key.retired_ms,
        }
        for key in keys
    ]
    return json.dumps({"keys": listed}).encode("ascii")


def _read(stored: bytes) -> list[SigningKey]:
    try:
        return [_read_key(each) for each in json.loads(stored)["keys"]]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            Code.SECRET_UNAVAILABLE,
            "the issuer's keys cannot be read",
            hint="put the file back; without it new keys are made, which verifiers fetch",
        ) from None


def _read_key(facts: dict[str, Any]) -> SigningKey:
    private = serialization.load_pem_private_key(facts["pem"].encode("ascii"), None)
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise TypeError
    return SigningKey(
        private=private,
        algorithm=str(facts["algorithm"]),
        made_ms=int(facts["made_ms"]),
        signs_ms=facts["signs_ms"],
        retired_ms=facts["retired_ms"],
    )
