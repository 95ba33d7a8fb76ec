"""The log in memory, with the state that a transaction may change and take back."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from remit.ledger.entry import entry_text, seal
from remit.ledger.export import export_lines
from remit.ledger.head import Head
from remit.ledger.merkle import leaf_hash
from remit.ledger.reading import matches
from remit.ledger.refusals import RefusalCounts
from remit.ledger.starts import Starts
from remit.model import (
    AccessRequest,
    Activation,
    Approval,
    Checkpoint,
    Entry,
    EntryDraft,
    Receipt,
    Run,
    Touch,
)
from remit.ports import Clock, Signer

T = TypeVar("T")


@dataclass(slots=True)
class State:
    """All that a transaction may change; copied before each one, so that it can be undone."""

    entries: list[Entry] = field(default_factory=list)
    sealed: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    plans: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    replies: dict[str, Any] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    touches: dict[str, tuple[str, str, Touch]] = field(default_factory=dict)
    requests: dict[str, AccessRequest] = field(default_factory=dict)
    active: Activation | None = None
    frozen: str | None = None


class MemoryLog:
    """The log, and transactions that happen whole or not at all."""

    def __init__(self, *, signer: Signer, gateway: str, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._state = State()
        self._refusals = RefusalCounts()
        self._starts = Starts()
        self._nodes: dict[int, bytes] = {}
        self._head = Head(signer, self._nodes.__getitem__)

    async def aclose(self) -> None:
        """Write the counts of refusals that are left."""
        self._write(lambda: self._append(self._refusals.take(None)))

    def _write(self, work: Callable[[], T]) -> T:
        """Run work so that it happens whole or not at all."""
        before = copy.copy(self._state)
        for name in State.__slots__:
            value = getattr(before, name)
            if isinstance(value, dict | list):
                setattr(self._state, name, copy.copy(value))
        frontier = self._head.durable
        try:
            return work()
        except BaseException:
            self._state = before
            self._head.advance(frontier, {})
            raise

    def _append(self, drafts: Sequence[EntryDraft]) -> list[int]:
        return [self._append_one(draft) for draft in drafts]

    def _append_one(self, draft: EntryDraft) -> int:
        commitments: dict[str, str] = {}
        for name, value in draft.sealed.items():
            salt, commitments[name] = seal(value)
            self._state.sealed[commitments[name]] = salt, value
        seq = len(self._state.entries)
        text = entry_text(
            seq=seq,
            time_ms=self._clock.now_ms(),
            gateway=self._gateway,
            event=draft.event,
            public=draft.public,
            commitments=commitments,
        )
        tree, made = self._head.durable.append(leaf_hash(text))
        self._nodes[seq] = b"".join(made)
        self._head.advance(tree, {seq: self._nodes[seq]})
        self._state.entries.append(Entry(index=seq, text=text, leaf_hash=made[0]))
        return seq

    # The log

    async def append(self, drafts: Sequence[EntryDraft]) -> Sequence[int]:
        return self._write(lambda: self._append(drafts))

    async def count_refusal(self, source: str, code: str, now_ms: int) -> None:
        self._refusals.count(source, code, now_ms)
        self._write(lambda: self._append(self._refusals.take(now_ms)))

    async def entries(self, start: int, end: int) -> Sequence[Entry]:
        return self._state.entries[max(0, start) : max(0, end)]

    async def search(self, match: Mapping[str, str], *, limit: int) -> Sequence[Entry]:
        found = (each for each in reversed(self._state.entries) if matches(each.text, match))
        return [each for each, _ in zip(found, range(limit), strict=False)]

    async def value(self, commitment: str) -> bytes | None:
        opened = self._state.sealed.get(commitment)
        return None if opened is None else opened[1]

    async def opening(self, commitment: str) -> tuple[bytes, bytes] | None:
        return self._state.sealed.get(commitment)

    async def checkpoint(self) -> Checkpoint:
        return self._head.checkpoint()

    async def checkpoints(self) -> Sequence[Checkpoint]:
        return self._head.unsaved()

    async def receipt(self, index: int) -> Receipt:
        return self._head.receipt(index)

    @property
    def verifier_key(self) -> str:
        return self._head.verifier_key

    async def export(self) -> AsyncIterator[bytes]:
        self._head.checkpoint()
        for line in export_lines(list(self._state.entries), self._head.unsaved()):
            yield line

    async def plan_text(self, plan_hash: str) -> bytes | None:
        return self._state.plans.get(plan_hash)
