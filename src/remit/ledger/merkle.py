"""The Merkle tree of RFC 9162 §2.1 (the same tree as RFC 6962 §2.1), as pure functions.

A tree is held as its `Frontier`: the roots of the complete subtrees it is made of. Appending one
leaf completes that leaf and a few nodes above it; whoever keeps those (`level`, `index` → hash)
can make every proof in O(log n) without reading the leaves again.

Verification is strict: a size of zero, a hash that is not 32 bytes and a proof with a node too
many or too few are refused, also where the arithmetic would let them pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remit.errors import Code, Unverified

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves (RFC 9162 §2.1.1)."""

Nodes = Callable[[int, int], bytes]
"""Gives the hash of the complete subtree number `index` at `level`; leaves are level 0."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: SHA-256 over 0x00 and the data."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 over 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree as the roots of its complete subtrees, the largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> tuple[Frontier, list[bytes]]:
        """The tree with one leaf more, and the nodes that leaf completes from level 0 upward."""
        made = [leaf]
        peaks = list(self.peaks)
        level = self.size
        while level & 1:
            made.append(node_hash(peaks.pop(), made[-1]))
            level >>= 1
        peaks.append(made[-1])
        return Frontier(self.size + 1, tuple(peaks)), made

    def root(self) -> bytes:
        """The root of the whole tree."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def frontier(size: int, nodes: Nodes) -> Frontier:
    """The frontier of the first `size` leaves, read from kept nodes."""
    peaks: list[bytes] = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            peaks.append(nodes(level, start >> level))
            start += 1 << level
    return Frontier(size, tuple(peaks))


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves (RFC 9162 §2.1.3.1).

    Raises:
        ValueError: unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError("the leaf is not in the tree")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left_width(end - start)
        if index < middle:
            path.append(_subtree(nodes, middle, end))
            end = middle
        else:
            path.append(_subtree(nodes, start, middle))
            start = middle
    path.reverse()
    return path


def consistency_proof(first: int, second: int, nodes: Nodes) -> list[bytes]:
    """The proof that the tree of `second` leaves begins with that of `first` (RFC 9162 §2.1.4.1).

    Raises:
        ValueError: unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError("the first size must be positive and not above the second")
    path: list[bytes] = []
    start, end, whole = 0, second, True
    while first != end:
        middle = start + _left_width(end - start)
        if first <= middle:
            path.append(_subtree(nodes, middle, end))
            end = middle
        else:
            path.append(_subtree(nodes, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(_subtree(nodes, start, end))
    path.reverse()
    return path


def _left_width(width: int) -> int:
    """The largest power of two smaller than `width`: how many leaves go to the left."""
    return 1 << (width - 1).bit_length() - 1


def _subtree(nodes: Nodes, start: int, end: int) -> bytes:
    """The root over leaves start <= index < end, where `start` is where such a subtree begins."""
    width = end - start
    level = width.bit_length() - 1
    left = nodes(level, start >> level)
    if width == 1 << level:
        return left
    return node_hash(left, _subtree(nodes, start + (1 << level), end))


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` is at `index` in the tree of `size` leaves with `root` (§2.1.3.2).

    Raises:
        Unverified: `log_malformed` if the numbers or lengths cannot be, else `log_tampered`.
    """
    _require_hashes((leaf, root, *proof))
    if not 0 <= index < size:
        raise Unverified(Code.LOG_MALFORMED, "the proof is for a leaf outside the tree")
    position, last, computed = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise Unverified(Code.LOG_MALFORMED, "the inclusion proof has too many nodes")
        if position & 1 or position == last:
            computed = node_hash(step, computed)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            computed = node_hash(computed, step)
        position >>= 1
        last >>= 1
    if last != 0:
        raise Unverified(Code.LOG_MALFORMED, "the inclusion proof has too few nodes")
    if computed != root:
        raise Unverified(Code.LOG_TAMPERED, "the entry is not in the tree with this root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `second` leaves begins with the tree of `first` (§2.1.4.2).

    Raises:
        Unverified: `log_malformed` if the numbers or lengths cannot be, else `log_inconsistent`.
    """
    _require_hashes((first_root, second_root, *proof))
    if not 0 < first <= second:
        raise Unverified(Code.LOG_MALFORMED, "the sizes of a consistency proof cannot be these")
    if first == second:
        if proof:
            raise Unverified(Code.LOG_MALFORMED, "equal trees need no consistency proof")
        if first_root != second_root:
            raise Unverified(Code.LOG_INCONSISTENT, "two roots are given for one size")
        return
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise Unverified(Code.LOG_MALFORMED, "the consistency proof is empty")
    old, new, last = _walk_consistency(first - 1, second - 1, path)
    if last != 0:
        raise Unverified(Code.LOG_MALFORMED, "the consistency proof has too few nodes")
    if old != first_root or new != second_root:
        raise Unverified(Code.LOG_INCONSISTENT, "the larger tree does not begin with the smaller")


def _walk_consistency(position: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes, int]:
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            raise Unverified(Code.LOG_MALFORMED, "the consistency proof has too many nodes")
        if position & 1 or position == last:
            old = node_hash(step, old)
            new = node_hash(step, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, step)
        position >>= 1
        last >>= 1
    return old, new, last


def _require_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(each) != HASH_BYTES for each in hashes):
        raise Unverified(Code.LOG_MALFORMED, "a hash is not 32 bytes long")
