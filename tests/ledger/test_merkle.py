"""The tree is RFC 9162's: against a plain reading of its definition, and outside vectors."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import Code, Unverified
from remit.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    frontier,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(1, 80)


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(str(n).encode()) for n in range(count)]


def plain_root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 §2.1.1, word for word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(plain_root(hashes[:k]), plain_root(hashes[k:]))


class Grown:
    """A tree grown leaf by leaf, with the nodes that each leaf completed."""

    def __init__(self, count: int) -> None:
        self.tree = Frontier()
        self.made: list[list[bytes]] = []
        for leaf in leaves(count):
            self.tree, made = self.tree.append(leaf)
            self.made.append(made)

    def node(self, level: int, index: int) -> bytes:
        return self.made[((index + 1) << level) - 1][level]


@given(SIZES)
def test_a_tree_grown_leaf_by_leaf_has_the_root_of_the_definition(size: int) -> None:
    grown = Grown(size)
    assert grown.tree.root() == plain_root(leaves(size))
    assert frontier(size, grown.node) == grown.tree


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == plain_root([])


@given(st.data())
def test_each_leaf_has_a_proof_that_only_it_satisfies(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    index = data.draw(st.integers(0, size - 1))
    grown = Grown(size)
    proof = inclusion_proof(index, size, grown.node)
    root = grown.tree.root()
    verify_inclusion(index, size, leaves(size)[index], proof, root)
    for wrong_index, wrong_size, leaf in (
        (index, size, leaf_hash(b"other")),
        (index + 1, size, leaves(size)[index]),
        (index, size + 1, leaves(size)[index]) if size & (size - 1) == 0 else (-1, size, root),
    ):
        with pytest.raises(Unverified):
            verify_inclusion(wrong_index, wrong_size, leaf, proof, root)


@given(st.data())
def test_each_tree_is_proved_to_begin_with_each_smaller_one(data: st.DataObject) -> None:
    second = data.draw(SIZES)
    first = data.draw(st.integers(1, second))
    grown = Grown(second)
    proof = consistency_proof(first, second, grown.node)
    old, new = plain_root(leaves(first)), grown.tree.root()
    verify_consistency(first, second, old, new, proof)
    for wrong_old, wrong_new in ((leaf_hash(b"x"), new), (old, leaf_hash(b"x"))):
        with pytest.raises(Unverified):
            verify_consistency(first, second, wrong_old, wrong_new, proof)


@pytest.mark.threat("T-21")
@given(st.data())
def test_a_proof_with_a_node_changed_added_or_lost_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 80))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size - 1))
    grown = Grown(size)
    root = grown.tree.root()
    inclusion = inclusion_proof(index, size, grown.node)
    consistency = consistency_proof(first, size, grown.node)
    old = plain_root(leaves(first))
    for bad in _spoilt(inclusion, data):
        with pytest.raises(Unverified):
            verify_inclusion(index, size, leaves(size)[index], bad, root)
    for bad in _spoilt(consistency, data):
        with pytest.raises(Unverified):
            verify_consistency(first, size, old, root, bad)


def _spoilt(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    at = data.draw(st.integers(0, len(proof) - 1))
    flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    return [
        [*proof[:at], flipped, *proof[at + 1 :]],
        [*proof[:at], *proof[at + 1 :]],
        [*proof, proof[at]],
        [proof[at], *proof],
        [*proof[:at], proof[at][:31], *proof[at + 1 :]],
    ]


def test_no_proof_is_made_or_taken_for_what_is_not_in_the_tree() -> None:
    node = Grown(4).node
    for index, size in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="not in the tree"):
            inclusion_proof(index, size, node)
    for first, second in ((0, 4), (5, 4), (0, 0)):
        with pytest.raises(ValueError, match="size"):
            consistency_proof(first, second, node)
        with pytest.raises(Unverified) as caught:
            verify_consistency(first, second, EMPTY_ROOT, EMPTY_ROOT, [])
        assert caught.value.code is Code.LOG_MALFORMED


@pytest.mark.threat("T-21")
def test_what_the_arithmetic_alone_would_let_pass_is_refused() -> None:
    leaf, empty = leaf_hash(b"x"), b""
    with pytest.raises(Unverified, match="32 bytes"):
        verify_inclusion(0, 1, empty, [], empty)
    with pytest.raises(Unverified, match="32 bytes"):
        verify_consistency(2, 2, empty, empty, [])
    with pytest.raises(Unverified, match="no consistency proof"):
        verify_consistency(2, 2, leaf, leaf, [leaf])
    with pytest.raises(Unverified, match="empty"):
        verify_consistency(3, 5, leaf, leaf, [])
    with pytest.raises(Unverified, match="too few"):
        verify_consistency(3, 5, leaf, leaf, [leaf])
    with pytest.raises(Unverified, match="too many"):
        verify_consistency(1, 2, leaf, leaf, [leaf, leaf])
    with pytest.raises(Unverified, match="too many"):
        verify_inclusion(0, 1, leaf, [leaf], leaf)


def _vectors(folder: Path) -> list[dict[str, Any]]:
    path = folder / "merkle-proofs.jsonl"
    if not path.is_file():
        pytest.skip("outside test data is absent; to run it: put it in ../shared/data")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _verify_vector(case: dict[str, Any]) -> None:
    def raw(name: str) -> bytes:
        return base64.b64decode(case[name] or "")

    proof = [base64.b64decode(step) for step in case["proof"] or []]
    if "leafIdx" in case and "start" in case:
        start, width = case["start"], case["end"] - case["start"]
        if start < 0 or width <= 0 or start % (1 << (width - 1).bit_length()):
            raise Unverified(Code.LOG_MALFORMED, "no subtree begins and ends there")
        verify_inclusion(case["leafIdx"] - start, width, raw("leafHash"), proof, raw("root"))
    elif "leafIdx" in case:
        verify_inclusion(case["leafIdx"], case["treeSize"], raw("leafHash"), proof, raw("root"))
    elif "start" in case:
        verify_consistency(case["end"], case["size"], raw("root1"), raw("root2"), proof)
    else:
        verify_consistency(case["size1"], case["size2"], raw("root1"), raw("root2"), proof)


def _we_never_accept(case: dict[str, Any]) -> bool:
    """An empty tree and a hash that is not 32 bytes, which a vector each accepts."""
    if case.get("end") == 0:
        return True
    names = [name for name in ("root", "root1", "root2", "leafHash") if name in case]
    return any(len(base64.b64decode(case[name] or "")) != 32 for name in names)


@pytest.mark.threat("T-21")
def test_every_outside_vector_is_answered_as_it_says(shared_data: Path) -> None:
    # A subtree's inclusion is a tree's; its consistency is a tree's only where both begin at 0.
    cases = [
        case for case in _vectors(shared_data) if "leafIdx" in case or case.get("start", 0) == 0
    ]
    assert len(cases) > 250
    wrong = []
    for case in cases:
        try:
            _verify_vector(case)
            accepted = True
        except Unverified:
            accepted = False
        if accepted == (case["wantErr"] or _we_never_accept(case)):
            wrong.append(case["file"])
    assert wrong == []
