"""The log's signer in the gateway: asks the keeper, and never has the key.

One SOCK_SEQPACKET socket of its own, so that signing waits for nothing else. A request is the
length of the text in two bytes, the text, and the nodes of the proof; an answer is `+` and the
signature line, or `-` and why not.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence

from remit.errors import Code, LedgerFault

ANSWER_S = 5.0
MAX_TEXT = 4_096
MAX_PROOF = 64


def pack_request(text: bytes, proof: Sequence[bytes]) -> bytes:
    """One request."""
    return struct.pack(">H", len(text)) + text + b"".join(proof)


def unpack_request(data: bytes) -> tuple[bytes, list[bytes]]:
    """The text and the proof.

    Raises:
        ValueError: it is no request.
    """
    if len(data) < 2:
        raise ValueError("too short")
    (length,) = struct.unpack(">H", data[:2])
    text, nodes = data[2 : 2 + length], data[2 + length :]
    if len(text) != length or length > MAX_TEXT or len(nodes) % 32 or len(nodes) > 32 * MAX_PROOF:
        raise ValueError("not a text and a proof")
    return text, [nodes[at : at + 32] for at in range(0, len(nodes), 32)]


class KeeperSigner:
    """The `Signer` port over a keeper; blocking, for any thread.

    Args:
        verifier_key: what the first keeper said; a later one must have the same key.
        revive: told of the socket that failed; starts another keeper unless there is one, and
            calls `connect`; blocking.
    """

    def __init__(self, verifier_key: str, revive: Callable[[socket.socket | None], None]) -> None:
        self._verifier_key = verifier_key
        self._revive = revive
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._signed = 0

    @property
    def verifier_key(self) -> str:
        return self._verifier_key

    @property
    def signed(self) -> int:
        return self._signed

    def connect(self, sock: socket.socket, signed: int) -> None:
        """Use this socket from now on; `signed` is what the keeper says of its account."""
        sock.settimeout(ANSWER_S)
        old, self._socket, self._signed = self._socket, sock, signed
        if old is not None:
            old.close()

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def sign(self, text: bytes, proof: Sequence[bytes] = ()) -> str:
        """The signature line, from the keeper; another keeper is started where this one is gone.

        Raises:
            LedgerFault: the keeper refused, or there is none.
        """
        request = pack_request(text, proof)
        with self._lock:
            tried = self._socket
            answer = self._ask(request)
            if answer is None:
                self._revive(tried)
                answer = self._ask(request)
            if answer is None:
                raise _fault("the keeper is not there to sign")
            if answer[:1] != b"+":
                raise _fault(f"the keeper refused to sign: {answer[1:].decode('utf-8', 'replace')}")
            self._signed = max(self._signed, int(text.split(b"\n")[1]))
            return answer[1:].decode()

    def _ask(self, request: bytes) -> bytes | None:
        """One round trip; None if nobody is at the other end (any more)."""
        sock = self._socket
        if sock is None:
            return None
        try:
            sock.send(request)
            answer = sock.recv(MAX_TEXT)
        except OSError:
            answer = b""
        if not answer:
            if self._socket is sock:  # else another keeper is there already
                self._socket = None
            sock.close()
        return answer or None


def _fault(message: str) -> LedgerFault:
    return LedgerFault(Code.LEDGER_UNAVAILABLE, message)
