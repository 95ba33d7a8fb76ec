"""Files that only a keeper of this state directory can read: AES-256-GCM, with a key of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit.keeper.state import StateDirectory

SEAL = "seal.key"
_NONCE = 12


def seal_of(state: StateDirectory) -> AESGCM:
    """The seal of a state directory, made with its first use."""
    key = state.read(SEAL)
    if key is None or len(key) != 32:
        key = AESGCM.generate_key(bit_length=256)
        state.write(SEAL, key)
    return AESGCM(key)


class SealedFiles:
    """JSON objects by name, each in a file of one directory, sealed for that name alone."""

    def __init__(self, state: StateDirectory, name: str) -> None:
        self._files = state.below(name)
        self._seal = seal_of(state)

    def give(self, uid: int) -> None:
        """Make them this user's."""
        self._files.give(uid)

    def names(self) -> list[str]:
        return self._files.names()

    def read(self, name: str) -> Mapping[str, Any] | None:
        """What was written; None if there is nothing, or nothing that this seal closed for it."""
        data = self._files.read(name)
        if data is None:
            return None
        try:
            found = json.loads(self._seal.decrypt(data[:_NONCE], data[_NONCE:], name.encode()))
        except (InvalidTag, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, facts: Mapping[str, Any]) -> None:
        """Put it in place of what was there; durable when it returns, and never half."""
        nonce = os.urandom(_NONCE)
        text = json.dumps(dict(facts)).encode("ascii")
        self._files.write(name, nonce + self._seal.encrypt(nonce, text, name.encode()))

    def remove(self, name: str) -> None:
        """Durably, so that a loss of power brings nothing back."""
        self._files.remove(name)
        os.fsync(self._files.fd)
