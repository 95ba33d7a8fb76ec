"""Checks a log offline: that it is whole, signed, and tells a story that the rules allow.

Needs no store, no gateway and no network: the standard library, `cryptography`, and the log's
formats. The key comes from outside; so does whatever shows that a log was cut or forked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from remit.canonical import digest, encode
from remit.errors import Code, InputError, Unverified
from remit.ledger.checkpoint import VerifierKey, open_checkpoint
from remit.ledger.entry import SALT_BYTES, SCHEMA, commitment
from remit.ledger.merkle import HASH_BYTES, Frontier, leaf_hash
from remit.ledger.records import CheckpointRecord, EntryRecord, Header, PlanRecord, Record
from remit.ledger.rules import says_shadow
from remit.ledger.story import Story
from remit.model import Checkpoint, Receipt

PLAN_DOMAIN = "remit.plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first thing that does not hold; `index` is the entry it was found at, if it is one's."""

    code: Code
    message: str
    index: int | None = None
    place: str | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found. `problem` is None if all of it holds."""

    key: str
    entries: int = 0
    signed: int = 0
    checkpoints: int = 0
    plans: int = 0
    opened: int = 0
    sealed: int = 0
    intents: int = 0
    outcomes: int = 0
    unenforced: int = 0
    unshown: int = 0
    open_runs: list[tuple[str, int]] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    outside: int | None = None
    live: bool = False
    problem: Problem | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def verify(
    records: Iterable[Record],
    key: VerifierKey,
    *,
    checkpoint: Checkpoint | None = None,
    receipt: Receipt | None = None,
) -> Report:
    """Check records in order, up to the first that does not hold.

    Args:
        records: from `read_export` or `read_store`.
        key: the log's verifier key, from outside.
        checkpoint: one that was kept outside, verified with the same key.
        receipt: the same; a log that was cut or forked before it was given does not agree.

    Raises:
        LedgerFault: the records could not be read; what does not hold is in the report instead.
    """
    check = _Check(key, checkpoint, receipt)
    try:
        for record in records:
            check.take(record)
        check.finish()
    except Unverified as found:
        check.report.problem = Problem(
            code=found.code, message=found.message, index=found.index, place=found.place
        )
    return check.result()


class _Check:
    def __init__(
        self, key: VerifierKey, checkpoint: Checkpoint | None, receipt: Receipt | None
    ) -> None:
        self.report = Report(key=f"{key.name}+{key.id.hex()}")
        self._key = key
        self._receipt = receipt
        self._outside = [each for each in (checkpoint, receipt and receipt.checkpoint) if each]
        self._header: Header | None = None
        self._tree = Frontier()
        self._good = 0
        self._story = Story()
        self._last: Record | None = None
        self._shadow: set[str] = set()

    def take(self, record: Record) -> None:
        if self._header is None and not isinstance(record, Header):
            raise Unverified(Code.LOG_MALFORMED, "the export does not begin with its header")
        match record:
            case Header():
                self._take_header(record)
            case EntryRecord():
                self._take_entry(record)
            case PlanRecord():
                self._take_plan(record)
            case CheckpointRecord():
                self._take_checkpoint(record)
            case _:
                assert_never(record)
        self._last = record

    def _take_header(self, header: Header) -> None:
        if self._header is not None:
            raise Unverified(Code.LOG_MALFORMED, "the export has two headers")
        self._header = header
        self.report.live = header.size is None
        if header.size is None:
            return
        if header.origin != self._key.name or header.key != self._key.id.hex():
            raise Unverified(
                Code.SIGNATURE_INVALID, "the export is of another log, or another key signed it"
            )

    # Entries

    def _take_entry(self, record: EntryRecord) -> None:
        index = self._tree.size
        if record.index != index:
            raise Unverified(
                Code.LOG_TAMPERED,
                "an entry is missing, repeated or out of order here",
                index=index,
            )
        leaf = leaf_hash(record.text)
        if leaf != record.nodes[:HASH_BYTES]:
            raise Unverified(
                Code.LOG_TAMPERED, "the entry is not the one that was written", index=index
            )
        self._tree, made = self._tree.append(leaf)
        self._check_nodes(index, record.nodes, made)
        entry = _document(index, record.text)
        self._check_openings(index, entry, record.openings)
        self._story.observe(index, entry)
        self._check_outside(index, leaf)
        self.report.entries = self._tree.size

    def _check_nodes(self, index: int, stored: bytes, made: list[bytes]) -> None:
        """A store keeps the inner nodes too; they narrow down where a change was made."""
        if self.report.live and stored != b"".join(made):
            level = next(
                (n for n, node in enumerate(made) if stored[n * 32 : n * 32 + 32] != node), 0
            )
            first = index + 1 - (1 << level)
            raise Unverified(
                Code.LOG_TAMPERED,
                f"one of the entries {first} to {index} is not the one that was written",
                index=first,
            )

    def _check_openings(
        self, index: int, entry: Mapping[str, Any], openings: Mapping[str, tuple[bytes, bytes]]
    ) -> None:
        commitments = entry.get("commitments", {})
        for name, (salt, value) in openings.items():
            if len(salt) != SALT_BYTES or commitment(salt, value) != commitments.get(name):
                raise Unverified(
                    Code.LOG_TAMPERED,
                    "a value beside the log does not open its commitment",
                    index=index,
                )
        self.report.opened += len(openings)
        self.report.sealed += len(commitments) - len(openings)

    def _check_outside(self, index: int, leaf: bytes) -> None:
        receipt = self._receipt
        if receipt is not None and receipt.index == index and receipt.leaf_hash != leaf:
            raise Unverified(
                Code.LOG_INCONSISTENT, "the entry is not the one of the receipt", index=index
            )
        for outside in self._outside:
            if outside.size == self._tree.size:
                self._check_root(outside, "the log is not the one that was signed for others")
                self.report.outside = max(self.report.outside or 0, outside.size)

    def _check_root(self, checkpoint: Checkpoint, why: str) -> None:
        if checkpoint.root != self._tree.root():
            code = Code.LOG_TAMPERED if why.startswith("one") else Code.LOG_INCONSISTENT
            raise Unverified(code, why, index=self._good)
        self._good = self._tree.size

    # Checkpoints and plans

    def _take_checkpoint(self, record: CheckpointRecord) -> None:
        size = self._tree.size
        checkpoint = open_checkpoint(record.note, self._key)
        if checkpoint.size > size:
            raise Unverified(
                Code.LOG_TRUNCATED,
                f"the log ends before entry {checkpoint.size - 1}, which was signed",
                index=size,
            )
        if checkpoint.size < size or checkpoint.size <= self.report.signed:
            raise Unverified(
                Code.LOG_MALFORMED, "a checkpoint is repeated or out of place", index=size
            )
        self._check_root(
            checkpoint,
            f"one of the entries {self._good} to {size - 1} is not the one that was signed",
        )
        self.report.signed = size
        self.report.checkpoints += 1

    def _take_plan(self, record: PlanRecord) -> None:
        if digest(PLAN_DOMAIN, record.text) != record.hash:
            raise Unverified(
                Code.LOG_TAMPERED, "a stored plan is not the one of its hash", place=record.hash
            )
        if record.hash not in self._story.plans and not self.report.live:
            raise Unverified(Code.LOG_MALFORMED, "a plan that no entry names", place=record.hash)
        if record.hash in self._story.unenforced:
            if not says_shadow(record.text):
                raise Unverified(
                    Code.LOG_INCONSISTENT,
                    "policy was not enforced on a plan that does not say so",
                    place=record.hash,
                )
            self._shadow.add(record.hash)
        self.report.plans += 1

    def finish(self) -> None:
        """Check what only the end shows."""
        if self._header is None:
            raise Unverified(Code.LOG_MALFORMED, "the export is empty")
        size = self._tree.size
        if self._header.size is not None:
            if size < self._header.size:
                raise Unverified(Code.LOG_TRUNCATED, "the export was cut", index=size)
            if size > self._header.size or not isinstance(self._last, CheckpointRecord):
                raise Unverified(
                    Code.LOG_MALFORMED, "the export goes on after its end", index=self.report.signed
                )
        for outside in self._outside:
            if outside.size > size:
                raise Unverified(
                    Code.LOG_TRUNCATED,
                    f"the log ends before entry {outside.size - 1}, which was signed for others",
                    index=size,
                )

    def result(self) -> Report:
        report = self.report
        report.intents, report.outcomes = self._story.intents, self._story.outcomes
        for plan, intents in self._story.unenforced.items():
            report.unenforced += len(intents)
            report.unshown += 0 if plan in self._shadow else len(intents)
        report.open_runs, report.unresolved = self._story.open_runs(), self._story.unresolved()
        return report


def _document(index: int, text: bytes) -> Mapping[str, Any]:
    """The entry as JSON, if it is canonical and one of ours with its own number."""
    try:
        entry = json.loads(text)
        whole = isinstance(entry, dict) and encode(entry) == text
    except (ValueError, InputError, RecursionError):
        whole, entry = False, {}
    if not whole or entry.get("schema") != SCHEMA or not _commitments_whole(entry):
        raise Unverified(Code.LOG_MALFORMED, f"the entry is not canonical {SCHEMA}", index=index)
    if entry.get("seq") != index:
        raise Unverified(
            Code.LOG_TAMPERED, "the entry says it has another place in the log", index=index
        )
    document: Mapping[str, Any] = entry
    return document


def _commitments_whole(entry: Mapping[str, Any]) -> bool:
    found = entry.get("commitments", {})
    return isinstance(found, dict) and all(isinstance(each, str) for each in found.values())
