"""Signing the log, and nothing else: checkpoints of one log that only ever grows.

The keeper keeps account of the largest tree it signed. It signs a larger one only with the proof
that it begins with that one (RFC 9162 §2.1.4), and the same size only with the same root. So
whoever has the gateway, but not the keeper, cannot get a second history of the log signed, nor
anything that is not a checkpoint.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from remit.errors import Code, ConfigError, RemitError
from remit.keeper.state import StateDirectory
from remit.ledger.checkpoint import checkpoint_text, split_checkpoint
from remit.ledger.merkle import verify_consistency
from remit.ledger.signer import FileSigner
from remit.runners.credentials.signer import MAX_PROOF, MAX_TEXT, unpack_request

ACCOUNT = "signed"
_SLOT = 512
_SYNC_EVERY_S = 1.0
_NO_NOTE = "\n— none AAAAAAA=\n"


class Unsigned(Exception):
    """A text was refused; the message says why."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The largest tree that was signed."""

    size: int = 0
    root: bytes = b""


class Account:
    """The mark, kept in a file of two slots that are written in turn, so that one is always whole.

    A write survives the end of this process at once; a loss of power may take the last second's,
    which leaves an older mark: still one of the same log.
    """

    def __init__(self, state: StateDirectory, origin: str) -> None:
        self._fd = state.open(ACCOUNT, os.O_RDWR | os.O_CREAT)
        self._origin = origin
        self._turn = 0
        self._synced = time.monotonic()
        self.mark = Mark()
        for slot in range(2):
            self._take(os.pread(self._fd, _SLOT, slot * _SLOT), slot)

    def _take(self, data: bytes, slot: int) -> None:
        try:
            origin, size, root = json.loads(data.rstrip(b"\0 "))
            mark = Mark(int(size), bytes.fromhex(root))
        except (ValueError, TypeError):
            return  # never written, or cut short by a loss of power
        if origin != self._origin:
            raise ConfigError(
                Code.LOG_TAMPERED,
                "the keeper has signed for another log",
                hint="the log's key was exchanged; a log goes on only with the key it began with",
            )
        if mark.size >= self.mark.size:
            self.mark, self._turn = mark, 1 - slot

    def advance(self, mark: Mark) -> None:
        """Keep the mark; it must be kept before the signature is given away."""
        text = json.dumps([self._origin, mark.size, mark.root.hex()]).encode("utf-8")
        os.pwrite(self._fd, text.ljust(_SLOT), self._turn * _SLOT)
        self._turn = 1 - self._turn
        self.mark = mark

    def sync(self) -> None:
        """Make it durable, at most once a second."""
        if time.monotonic() - self._synced >= _SYNC_EVERY_S:
            os.fdatasync(self._fd)
            self._synced = time.monotonic()


class CheckpointSigner:
    """Signs checkpoints of one log under its account."""

    def __init__(self, key: FileSigner, state: StateDirectory) -> None:
        self._key = key
        self._account = Account(state, key.origin)
        self.verifier_key = key.verifier_key

    @property
    def mark(self) -> Mark:
        """The largest tree that was signed."""
        return self._account.mark

    def sign(self, text: bytes, proof: Sequence[bytes]) -> str:
        """The signature line.

        Raises:
            Unsigned: it is no checkpoint of this log, or does not follow from what was signed.
        """
        asked = self._read(text)
        mark = self._account.mark
        if asked.size < mark.size:
            raise Unsigned(f"a tree of {mark.size} entries was signed already")
        if mark.size > 0:
            self._check_follows(mark, asked, proof)
        if asked != mark:
            self._account.advance(asked)
        return self._key.sign(text)

    def _read(self, text: bytes) -> Mark:
        """The size and root, if this is a checkpoint of this log in its one spelling."""
        try:
            found = split_checkpoint(text.decode() + _NO_NOTE)
        except (RemitError, UnicodeDecodeError):
            raise Unsigned("this is not a checkpoint") from None
        if found.origin != self._key.origin:
            raise Unsigned("this is not a checkpoint of this log")
        if checkpoint_text(found.origin, found.size, found.root) != text:
            raise Unsigned("this is not a checkpoint")
        return Mark(found.size, found.root)

    def _check_follows(self, mark: Mark, asked: Mark, proof: Sequence[bytes]) -> None:
        try:
            verify_consistency(mark.size, asked.size, mark.root, asked.root, proof)
        except RemitError:
            raise Unsigned("the tree does not begin with the one that was signed") from None

    def serve(self, sock: socket.socket) -> None:
        """Answer requests on this socket until it ends, in a thread of its own."""
        threading.Thread(target=self._serve, args=(sock,), name="signing", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            while True:
                try:
                    data = sock.recv(2 + MAX_TEXT + 32 * MAX_PROOF + 1)
                    if not data:
                        return
                    sock.send(self._answer(data))
                    self._account.sync()
                except OSError:
                    return

    def _answer(self, data: bytes) -> bytes:
        try:
            return b"+" + self.sign(*unpack_request(data)).encode()
        except (Unsigned, ValueError) as exc:
            return b"-" + str(exc).encode()
