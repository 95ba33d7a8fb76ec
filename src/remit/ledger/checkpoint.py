"""Signed checkpoints: C2SP signed-note and tlog-checkpoint, with Ed25519 (RFC 8032).

A checkpoint says in three lines which log this is (origin), how many entries it has and what
their root is; a signature line follows after an empty line. Reading is strict: a note of ours
has exactly these three lines, and there is one way to write each of them.

    gateway.example/log
    42
    <base64 of the root>

    — gateway.example/log <base64 of key id and signature>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from remit.errors import Code, Unverified
from remit.ledger.merkle import EMPTY_ROOT, HASH_BYTES
from remit.model import Checkpoint
from remit.ports import Signer

ED25519 = b"\x01"
"""The signature type byte of plain Ed25519 (signed-note, “Signature types”)."""

MAX_NOTE_BYTES = 65_536
MAX_SIGNATURES = 32
MAX_SIZE_DIGITS = 16


def key_id(name: str, public: bytes) -> bytes:
    """The four bytes that name a key: SHA-256(name, newline, type, public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def valid_name(name: str) -> bool:
    """Whether a signed note allows this key name: not empty, no spaces, no plus, printable."""
    return bool(name) and "+" not in name and name.isprintable() and not any(map(str.isspace, name))


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a log's key and the name it signs under; it comes from outside the log."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read `name+hash+base64`.

        Raises:
            Unverified: `signature_invalid` if it is not a whole Ed25519 verifier key.
        """
        name, _, rest = text.strip().partition("+")
        hint, _, encoded = rest.partition("+")
        data = _base64(encoded)
        if not valid_name(name) or data is None or len(data) != 33 or data[:1] != ED25519:
            raise _bad_key("this is not an Ed25519 verifier key")
        if key_id(name, data[1:]).hex() != hint:
            raise _bad_key("the verifier key's hash does not match its name and key")
        return cls(name, data[1:])

    def __str__(self) -> str:
        encoded = base64.b64encode(ED25519 + self.public).decode("ascii")
        return f"{self.name}+{self.id.hex()}+{encoded}"

    @property
    def id(self) -> bytes:
        return key_id(self.name, self.public)


def _bad_key(why: str) -> Unverified:
    return Unverified(
        Code.SIGNATURE_INVALID, why, hint="it looks like `name+1234abcd+base64`, on one line"
    )


def checkpoint_text(origin: str, size: int, root: bytes) -> bytes:
    """The three signed lines."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode('ascii')}\n".encode()


def sign_checkpoint(
    signer: Signer, origin: str, size: int, root: bytes, proof: Sequence[bytes] = ()
) -> Checkpoint:
    """Sign that the log has this size and root.

    `proof` is for a signer that keeps account. Does not check that size and root are those of a
    log: a log signs only what is durable, which is the caller's part.
    """
    text = checkpoint_text(origin, size, root)
    note = f"{text.decode()}\n{signer.sign(text, proof)}\n"
    return Checkpoint(origin=origin, size=size, root=root, note=note)


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """Read a checkpoint and verify this key's signature on it.

    Signatures of other keys are ignored, as the specification asks.

    Raises:
        Unverified: `log_malformed` if it is not a checkpoint, `signature_invalid` if this key
            did not sign it.
    """
    checkpoint = split_checkpoint(note)
    if checkpoint.origin != key.name:
        raise Unverified(Code.SIGNATURE_INVALID, "the checkpoint is of another log")
    _verify_note(note, key)
    return checkpoint


def split_checkpoint(note: str) -> Checkpoint:
    """Read a checkpoint strictly, but trust nothing: no signature is verified.

    Raises:
        Unverified: `log_malformed`.
    """
    lines = _parts(note)[0].split("\n")
    if len(lines) != 4 or lines[3]:
        raise _malformed("a checkpoint has exactly three lines")
    origin, digits, encoded = lines[:3]
    size = _decimal(digits)
    root = _base64(encoded)
    if size is None:
        raise _malformed("the size is not a plain decimal number")
    if root is None or len(root) != HASH_BYTES or (size == 0 and root != EMPTY_ROOT):
        raise _malformed("the root is not a SHA-256 hash that this size can have")
    return Checkpoint(origin=origin, size=size, root=root, note=note)


def signed_by(note: str) -> tuple[str, str]:
    """The name and the key id, in hex, of the first signature line. Does not verify it."""
    name, identifier, _ = _signature_line(_parts(note)[1][0])
    return name, identifier.hex()


def _parts(note: str) -> tuple[str, list[str]]:
    """The signed text, and the signature lines."""
    if len(note) > MAX_NOTE_BYTES:
        raise _malformed("the note is too long")
    if any(char < " " and char != "\n" for char in note) or not note.endswith("\n"):
        raise _malformed("the note has control characters, or does not end in a newline")
    head, separator, tail = note[:-1].rpartition("\n\n")
    if not separator:
        raise _malformed("the note has no signature")
    return head + "\n", tail.split("\n")


def _verify_note(note: str, key: VerifierKey) -> None:
    text, lines = _parts(note)
    if len(lines) > MAX_SIGNATURES:
        raise _malformed("the note has too many signatures")
    signatures: dict[tuple[str, bytes], bytes] = {}
    for line in lines:
        name, identifier, signature = _signature_line(line)
        if (name, identifier) in signatures:
            raise _malformed("the note has two signatures of one key")
        signatures[name, identifier] = signature
    ours = signatures.get((key.name, key.id))
    if ours is None:
        raise Unverified(Code.SIGNATURE_INVALID, "the note is not signed by the given key")
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(ours, text.encode())
    except (InvalidSignature, ValueError):
        raise Unverified(
            Code.SIGNATURE_INVALID, "the signature does not match the note's text"
        ) from None


def signature_line(name: str, identifier: bytes, signature: bytes) -> str:
    """One signature as a note carries it, without the newline."""
    return f"— {name} {base64.b64encode(identifier + signature).decode('ascii')}"


def _signature_line(line: str) -> tuple[str, bytes, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not valid_name(parts[1]):
        raise _malformed("a signature line is not an em dash, a name and base64")
    data = _base64(parts[2])
    if data is None or len(data) < 5:
        raise _malformed("a signature is not base64 of a key id and a signature")
    return parts[1], data[:4], data[4:]


def _decimal(digits: str) -> int | None:
    if not digits.isascii() or not digits.isdigit() or len(digits) > MAX_SIZE_DIGITS:
        return None
    value = int(digits)
    return value if str(value) == digits else None


def _base64(text: str) -> bytes | None:
    """Standard base64 in its one spelling, else None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode("ascii") == text else None


def _malformed(why: str) -> Unverified:
    return Unverified(Code.LOG_MALFORMED, why)
