"""The log's signing key in a file of its own, readable by its owner only."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit.errors import Code, ConfigError
from remit.ledger.checkpoint import ED25519, VerifierKey, signature_line, valid_name

PREFIX = "PRIVATE+KEY+"


class FileSigner:
    """Signs checkpoints with an Ed25519 key read from a file.

    The file holds one line in the signed-note signer form, `PRIVATE+KEY+name+hash+base64`.
    Whoever can read the file can sign in the log's name. A gateway has its keeper sign, which
    holds such a key and signs no second history; this class alone is for tools and tests.
    """

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._key = VerifierKey(name, private.public_key().public_bytes_raw())
        self._id = self._key.id

    @classmethod
    def create(cls, path: Path, origin: str) -> FileSigner:
        """Make a new key for the log called `origin`, in a new file of mode 0600.

        Raises:
            ConfigError: if the origin is not a valid name, or the file is there already.
        """
        if not valid_name(origin):
            raise ConfigError(
                Code.CONFIG_INVALID,
                "a log's origin must be a name without spaces and plus signs",
                hint="take a name like gateway.example/log",
            )
        signer = cls(origin, Ed25519PrivateKey.generate())
        seed = base64.b64encode(ED25519 + signer._private.private_bytes_raw()).decode("ascii")
        line = f"{PREFIX}{origin}+{signer._id.hex()}+{seed}\n"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as exc:
            raise ConfigError(
                Code.SECRET_UNAVAILABLE,
                f"the log key could not be made: {exc.strerror}",
                place=str(path),
                hint="an existing key is never replaced; move it away first",
            ) from None
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return signer

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """Read a key that `create` made.

        Raises:
            ConfigError: `secret_unavailable` if it cannot be read, others can read it, or it
                is not a signing key.
        """
        try:
            mode = path.stat().st_mode
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise _unusable(
                path,
                "the log key cannot be read",
                "`remit init` makes one; a log goes on only with the key that it began with",
            ) from None
        if stat.S_IMODE(mode) & 0o077:
            raise _unusable(path, "the log key can be read by others", "run chmod 600 on it")
        name, _, rest = text.removeprefix(PREFIX).partition("+")
        hint, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded, validate=True)
            private = Ed25519PrivateKey.from_private_bytes(data[1:])
        except ValueError:
            raise _unusable(path, "the log key is not an Ed25519 signing key") from None
        signer = cls(name, private)
        whole = text.startswith(PREFIX) and valid_name(name) and data[:1] == ED25519
        if not whole or signer._id.hex() != hint:
            raise _unusable(path, "the log key is not whole")
        return signer

    @property
    def origin(self) -> str:
        """The name this key signs under, which is the log's."""
        return self._key.name

    @property
    def verifier_key(self) -> str:
        """The public half, `name+hash+base64`: what a verifier must be given from outside."""
        return str(self._key)

    @property
    def signed(self) -> int:
        """It keeps no account of what it signed."""
        return 0

    def sign(self, text: bytes, proof: Sequence[bytes] = ()) -> str:
        """The signature line over `text`, without a newline. Looks at neither text nor proof."""
        return signature_line(self._key.name, self._id, self._private.sign(text))


def _unusable(path: Path, why: str, hint: str | None = None) -> ConfigError:
    return ConfigError(Code.SECRET_UNAVAILABLE, why, place=str(path), hint=hint)
