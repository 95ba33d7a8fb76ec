"""The durable end of the log: what may be signed, and the proofs made from it.

The writer advances it after each commit; everything else only reads it. A checkpoint is signed
when someone asks, over what is durable at that moment, and serves all who ask until more is
durable. It is kept in the store with the next commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache

from remit.errors import Code, LedgerFault, NotFound
from remit.ledger.checkpoint import sign_checkpoint
from remit.ledger.merkle import HASH_BYTES, Frontier, consistency_proof, inclusion_proof
from remit.model import Checkpoint, Receipt
from remit.ports import Signer

RECENT = 4096
"""How many entries' nodes are at hand without reading the store."""


class Head:
    """The durable tree, its last checkpoint, and proofs of its entries.

    Args:
        signer: signs checkpoints; its name is the log's origin.
        stored: gives the stored nodes of an entry that is durable.
    """

    def __init__(self, signer: Signer, stored: Callable[[int], bytes]) -> None:
        self._signer = signer
        self.verifier_key = signer.verifier_key
        self.origin = self.verifier_key.partition("+")[0]
        self._stored = lru_cache(maxsize=RECENT)(stored)
        self._recent: dict[int, bytes] = {}
        self._signing = threading.Lock()
        self._unsaved: list[Checkpoint] = []
        self.durable = Frontier()
        self.latest: Checkpoint | None = None

    def advance(self, frontier: Frontier, fresh: Mapping[int, bytes]) -> None:
        """Take over what a commit made durable: the new tree, and the nodes of its new entries."""
        self._recent.update(fresh)
        while len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        self.durable = frontier

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree; kept with the entry that completed it."""
        seq = ((index + 1) << level) - 1
        nodes = self._recent.get(seq) or self._stored(seq)
        return nodes[level * HASH_BYTES : (level + 1) * HASH_BYTES]

    @property
    def unsigned(self) -> bool:
        """Whether something durable is not under a checkpoint yet."""
        return self.durable.size > (0 if self.latest is None else self.latest.size)

    def checkpoint(self, covering: int | None = None) -> Checkpoint:
        """The last checkpoint if it covers entry `covering` (all that is durable if None), else
        a new one over all that is durable.

        Raises:
            LedgerFault: the signer failed.
        """
        with self._signing:
            frontier, latest = self.durable, self.latest
            needed = frontier.size if covering is None else covering + 1
            if latest is None or latest.size < needed:
                latest = self._sign(frontier)
                self._unsaved.append(latest)
                self.latest = latest
            return latest

    def _sign(self, frontier: Frontier) -> Checkpoint:
        try:
            first, size = self._signer.signed, frontier.size
            proof = consistency_proof(first, size, self.node) if 0 < first < size else []
            return sign_checkpoint(self._signer, self.origin, size, frontier.root(), proof)
        except Exception:  # noqa: BLE001 - a signer may be another process, and fail in any way
            raise LedgerFault(
                Code.LEDGER_UNAVAILABLE, "the log key could not be used to sign"
            ) from None

    def take_unsaved(self) -> list[Checkpoint]:
        """The checkpoints that are not in the store yet; whoever takes them keeps them."""
        with self._signing:
            taken, self._unsaved = self._unsaved, []
            return taken

    def give_back(self, checkpoints: list[Checkpoint]) -> None:
        """Undo `take_unsaved` after a commit that failed."""
        with self._signing:
            self._unsaved = checkpoints + self._unsaved

    @property
    def has_unsaved(self) -> bool:
        return bool(self._unsaved)

    def unsaved(self) -> list[Checkpoint]:
        return list(self._unsaved)

    def receipt(self, index: int) -> Receipt:
        """The proof of a durable entry.

        Raises:
            NotFound: if there is no such entry, or it is not durable.
        """
        if not 0 <= index < self.durable.size:
            raise NotFound(Code.NOT_FOUND, "there is no such entry")
        checkpoint = self.checkpoint(covering=index)
        return Receipt(
            index=index,
            leaf_hash=self.node(0, index),
            proof=tuple(inclusion_proof(index, checkpoint.size, self.node)),
            checkpoint=checkpoint,
        )
