"""Bundle signatures as OPA makes them: `.signatures.json`, one JWT over the hash of every file.

One key, one algorithm, one key id and one scope are pinned by the operator; what a token says of
itself chooses nothing (RFC 8725 §3.1). Rollback is not covered: an older bundle that was rightly
signed is rightly signed still.

Hashes are OPA's: a `data.json` or `.manifest` is hashed over its parsed content with keys sorted
and numbers as written, any other file over its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from remit import canonical
from remit.errors import Code, ConfigError, InputError
from remit.policy.content import DATA, MANIFEST, SIGNATURES, read_json

Algorithm = Literal["RS256", "ES256", "EdDSA", "HS256"]
ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA", "HS256")
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
MAX_CLAIMS_BYTES = 1024 * 1024

_HASHES = {"SHA-256": hashlib.sha256, "SHA-384": hashlib.sha384, "SHA-512": hashlib.sha512}
_DEFAULT_PLUGIN = ("", "_default")


def algorithm_of(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        ValueError: it is none of `ALGORITHMS`.
    """
    return ALGORITHMS[ALGORITHMS.index(name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a bundle has to be signed with. Checked when made.

    `key` is a public key in PEM, or the secret of HS256. An empty `scope` means that the
    signature has none.

    Raises:
        ConfigError: `config_invalid`: the key does not fit the algorithm, or is too weak.
    """

    key: str = field(repr=False)
    key_id: str
    algorithm: Algorithm = "RS256"
    scope: str = ""

    def __post_init__(self) -> None:
        _public_key(self.key, self.algorithm)


def verify(files: Mapping[str, bytes], wanted: Verification) -> None:
    """Check that these files are exactly those that were signed with the pinned key.

    Every file must be listed with its hash and every listed file be there; only
    `.signatures.json` itself is not. Does not look at `iat`, `iss`, `exp` or other claims, as OPA
    does not.

    Raises:
        ConfigError: `signature_invalid`.
    """
    if SIGNATURES not in files:
        raise _bad("the bundle is not signed", None, "sign it: `remit policy sign`, or `opa sign`")
    claims = _claims(_token(files[SIGNATURES]), wanted)
    if claims.get("scope", "") != wanted.scope:
        raise _bad("the signature is for another scope")
    listed = _listed(claims.get("files"))
    present = files.keys() - {SIGNATURES}
    for name in sorted(present | listed.keys()):
        if name not in listed:
            raise _bad("a file is not covered by the signature", name)
        if name not in present:
            raise _bad("a file that was signed is missing", name)
        algorithm, digest = listed[name]
        if hashed(name, files[name], algorithm) != digest:
            raise _bad("a file is not what was signed", name)


def sign(
    files: Mapping[str, bytes],
    *,
    key: str,
    key_id: str,
    algorithm: Algorithm = "RS256",
    scope: str = "",
) -> bytes:
    """The `.signatures.json` of these files.

    Args:
        key: a private key in PEM, or the secret of HS256.
        key_id: stands in the header (`kid`) and in the claims (`keyid`), where older OPAs look.

    Raises:
        ConfigError: `config_invalid`: the key does not fit the algorithm, or is too weak.
    """
    listed = [
        {"name": name, "hash": hashed(name, content, "SHA-256"), "algorithm": "SHA-256"}
        for name, content in sorted(files.items())
        if name != SIGNATURES
    ]
    claims: dict[str, Any] = {"files": listed, "keyid": key_id}
    if scope:
        claims["scope"] = scope
    token = jwt.api_jws.PyJWS().encode(
        canonical.encode(claims),
        _private_key(key, algorithm),
        algorithm=algorithm,
        headers={"kid": key_id},
    )
    return canonical.encode({"signatures": [token]})


def hashed(name: str, content: bytes, algorithm: str) -> str:
    """The hash of a file, in hex, as OPA takes it.

    Raises:
        ConfigError: `policy_invalid`: it is a structured file that is not JSON.
    """
    if name.rpartition("/")[2] in (DATA, MANIFEST):
        read_json(content, name)  # it can be read in one way only
        value = json.loads(content, parse_int=_Number, parse_float=_Number)
        content = _structure(value).encode()
    return _HASHES[algorithm](content).hexdigest()


class _Number(str):
    """A number as it is written: `1.50` and `1.5` are two hashes."""

    __slots__ = ()


def _structure(value: Any) -> str:
    match value:
        case _Number():
            return str(value)
        case dict():
            pairs = (f"{_quoted(key)}:{_structure(value[key])}" for key in sorted(value))
            return "{" + ",".join(pairs) + "}"
        case list():
            return "[" + ",".join(map(_structure, value)) + "]"
        case str():
            return _quoted(value)
        case _:
            return json.dumps(value)


def _quoted(text: str) -> str:
    # Go's encoder escapes these two besides what JSON asks for.
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _token(content: bytes) -> str:
    """The one JWT of the signatures file."""
    value = read_json(content, SIGNATURES)
    tokens = value.get("signatures") if isinstance(value, dict) else None
    if not isinstance(tokens, list) or len(tokens) != 1 or not isinstance(tokens[0], str):
        raise _bad("there has to be exactly one signature", SIGNATURES)
    if value.get("plugin", "") not in _DEFAULT_PLUGIN:
        raise _bad("the signature was made by a plugin", SIGNATURES, "sign it without a plugin")
    return str(tokens[0])


def _claims(token: str, wanted: Verification) -> Mapping[str, Any]:
    """The claims of a token whose signature, algorithm and key id are the pinned ones (RFC 7515)."""
    try:
        decoded = jwt.api_jws.PyJWS().decode_complete(
            token,
            _public_key(wanted.key, wanted.algorithm),
            algorithms=[wanted.algorithm],
        )
        claims = canonical.parse(decoded["payload"], max_bytes=MAX_CLAIMS_BYTES)
    except (jwt.PyJWTError, InputError, ValueError, RecursionError):
        raise _bad(
            "the signature does not hold",
            SIGNATURES,
            "it has to be made with the key and algorithm under `verify`",
        ) from None
    if not isinstance(claims, dict):
        raise _bad("the signature's claims are not an object", SIGNATURES)
    named = [decoded["header"].get("kid"), claims.get("keyid")]
    if any(each not in (None, wanted.key_id) for each in named) or named == [None, None]:
        raise _bad("the signature names another key id, or none", SIGNATURES)
    return claims


def _listed(value: Any) -> dict[str, tuple[str, str]]:
    """The hash algorithm and hash of each file that the signature covers."""
    if not isinstance(value, list):
        raise _bad("the signature lists no files", SIGNATURES)
    found: dict[str, tuple[str, str]] = {}
    for entry in value:
        fields = entry if isinstance(entry, dict) else {}
        name, digest, algorithm = (fields.get(key) for key in ("name", "hash", "algorithm"))
        if not isinstance(name, str) or not isinstance(digest, str) or name in found:
            raise _bad("the signature lists a file without name or hash, or twice", SIGNATURES)
        if algorithm not in _HASHES:
            raise _bad("the signature uses a hash that is not accepted", SIGNATURES,
                       "the hashes are " + ", ".join(_HASHES))  # fmt: skip
        found[name] = (algorithm, digest.lower())
    return found


_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _public_key(text: str, algorithm: Algorithm) -> Any:
    if algorithm == "HS256":
        return _secret(text)
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_key("is not a public key in PEM", algorithm) from None
    _check_fits(key, algorithm)
    return key


def _private_key(text: str, algorithm: Algorithm) -> Any:
    if algorithm == "HS256":
        return _secret(text)
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _bad_key("is not a private key in PEM without a passphrase", algorithm) from None
    _check_fits(key, algorithm)
    return key


def _check_fits(key: object, algorithm: Algorithm) -> None:
    match algorithm, key:
        case "RS256", rsa.RSAPublicKey() | rsa.RSAPrivateKey():
            if key.key_size < MIN_RSA_BITS:
                raise _bad_key(f"has less than {MIN_RSA_BITS} bits", algorithm)
        case "ES256", ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey():
            if not isinstance(key.curve, ec.SECP256R1):
                raise _bad_key("is not on the curve P-256", algorithm)
        case "EdDSA", ed25519.Ed25519PublicKey() | ed25519.Ed25519PrivateKey():
            pass
        case _:
            raise _bad_key("is of another kind", algorithm)


def _secret(text: str) -> bytes:
    secret = text.encode()
    if b"-----BEGIN" in secret:
        raise _bad_key("is a key in PEM, not a secret", "HS256")
    if len(secret) < MIN_SECRET_BYTES:  # RFC 7518 §3.2
        raise _bad_key(f"is shorter than {MIN_SECRET_BYTES} bytes", "HS256")
    return secret


def _bad_key(why: str, algorithm: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"the key for bundle signatures {why}",
        hint=f"give a key that is made for {algorithm}, or name its algorithm",
    )


def _bad(message: str, place: str | None = None, hint: str | None = None) -> ConfigError:
    return ConfigError(Code.SIGNATURE_INVALID, message, place=place, hint=hint)
