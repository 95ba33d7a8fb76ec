"""Recorded decisions, read offline with the input that policy was asked: to ask it again.

They come from a ledger's file, which a gateway may be writing to meanwhile, or from an export
with values. An input is given out only if it opens its commitment and has the digest that the
entry names. The log itself is not verified here: that is what `remit audit verify` does.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from remit.canonical import digest, encode
from remit.document import SCHEMA
from remit.errors import Code, LedgerFault, Unverified
from remit.ledger.entry import commitment
from remit.ledger.reading import SEARCH_STEP, read_opening
from remit.ledger.records import EntryRecord, is_store, read_export
from remit.ledger.schema import connect_reader

EVENTS = frozenset({"decision", "question"})

_ASKED = b'"input_digest":'
"""What the text of each entry of an answer of policy holds; a question that never got to policy,
which is a `question` too, does not."""

_ROWS = (
    "SELECT seq, text FROM entry WHERE seq >= ? AND seq < ? AND instr(text, ?) AND instr(text, ?)"
)

Open = Callable[[str, str], bytes | None]
"""The value behind the commitment of a name; None if it is not there. Raises `_Altered`."""


class Kept(StrEnum):
    """Whether the input of a decision is still there: as recorded, not any more, or changed."""

    WHOLE = "whole"
    ERASED = "erased"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """One answer of policy as its entry tells it; `index` is the entry's number.

    `input` is the canonical text that policy was asked, empty unless `kept` is `WHOLE`. `layers`
    names each layer with its revision where there were several. `told` is code and message of
    each reason, None where the messages are not there.
    """

    index: int
    id: str
    time: str
    verdict: str
    code: str | None
    reasons: tuple[str, ...]
    obligations: tuple[str, ...]
    revision: str
    engine: str
    layers: tuple[tuple[str, str], ...]
    kept: Kept
    input: bytes
    told: tuple[tuple[str, str], ...] | None


class _Altered(Exception):
    """What is kept does not open its commitment."""


def last_decisions(path: Path, count: int) -> list[RecordedDecision]:
    """The newest so many decisions in a ledger's file or an export, oldest first.

    Raises:
        LedgerFault: the file cannot be read.
        Unverified: `log_malformed`: an entry is not what an entry must be.
    """
    if _is_store(path):
        with _store(path) as db:
            return list(islice(_newest_first(db, _ASKED), count))[::-1]
    return list(deque(_exported(path), maxlen=count))


def find_decision(path: Path, decision_id: str) -> RecordedDecision | None:
    """The decision of that id in a ledger's file or an export; None if there is none.

    Raises:
        LedgerFault, Unverified: as `last_decisions`.
    """
    if _is_store(path):
        with _store(path) as db:
            found = _newest_first(db, b'"decision":' + encode(decision_id))
            return next((each for each in found if each.id == decision_id), None)
    return next((each for each in _exported(path) if each.id == decision_id), None)


# ----------------------------------------------------------------------------------- the two files


def _is_store(path: Path) -> bool:
    try:
        return is_store(path)
    except OSError as error:
        raise _unreadable(path, f"the file cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _store(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(connect_reader(path)) as db:
            yield db
    except sqlite3.Error:
        raise _unreadable(path, "the file cannot be read as a ledger") from None


def _newest_first(db: sqlite3.Connection, needle: bytes) -> Iterator[RecordedDecision]:
    """The decisions whose entry holds these bytes, read backwards a step at a time."""
    end = int(db.execute("SELECT coalesce(max(seq) + 1, 0) FROM entry").fetchall()[0][0])
    while end > 0:
        start = max(0, end - SEARCH_STEP)
        rows = db.execute(f"{_ROWS} ORDER BY seq DESC", (start, end, _ASKED, needle))
        for seq, text in rows.fetchall():
            found = _decision(seq, text, lambda _, named: _stored(db, named))
            if found is not None:
                yield found
        end = start


def _stored(db: sqlite3.Connection, named: str) -> bytes | None:
    try:
        opened = read_opening(db, named)
    except (LedgerFault, TypeError):
        raise _Altered from None
    return None if opened is None else opened[1]


def _exported(path: Path) -> Iterator[RecordedDecision]:
    try:
        with path.open("rb") as file:
            for record in read_export(file):
                if isinstance(record, EntryRecord) and _ASKED in record.text:
                    found = _decision(record.index, record.text, _opener(record.openings))
                    if found is not None:
                        yield found
    except OSError as error:
        raise _unreadable(path, f"the file cannot be read: {error.strerror}") from None


def _opener(openings: Mapping[str, tuple[bytes, bytes]]) -> Open:
    def opened(name: str, named: str) -> bytes | None:
        if name not in openings:
            return None
        salt, value = openings[name]
        if commitment(salt, value) != named:
            raise _Altered
        return value

    return opened


def _unreadable(path: Path, why: str) -> LedgerFault:
    return LedgerFault(
        Code.LEDGER_UNAVAILABLE, why, place=str(path),
        hint="name a ledger's file, or an export made with --with-values",
    )  # fmt: skip


# --------------------------------------------------------------------------------------- one entry


def _decision(index: int, text: bytes, opened: Open) -> RecordedDecision | None:
    """The decision that an entry tells of; None if it tells of something else."""
    try:
        entry = json.loads(text)
        if entry["event"] not in EVENTS:
            return None
        policy = entry["policy"]
        kept, asked = _input(entry, opened)
        return RecordedDecision(
            index=index,
            id=_text(entry["decision"]),
            time=_text(entry["time"]),
            verdict=_text(entry["verdict"]),
            code=None if entry["code"] is None else _text(entry["code"]),
            reasons=tuple(map(_text, entry["reasons"])),
            obligations=tuple(map(_text, entry.get("obligations", ()))),
            revision=_text(policy["revision"]),
            engine=_text(policy["engine"]),
            layers=tuple(
                (_text(each["name"]), _text(each["revision"])) for each in policy.get("layers", ())
            ),
            kept=kept,
            input=asked,
            told=_told(entry, opened),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unverified(
            Code.LOG_MALFORMED, "this is not an entry of a decision", index=index,
            place=f"entry {index}", hint="run `remit audit verify`",
        ) from None  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _input(entry: Mapping[str, Any], opened: Open) -> tuple[Kept, bytes]:
    """The input, held to its commitment and to the digest that the entry names."""
    try:
        value = _behind(entry, "input", opened)
    except _Altered:
        return Kept.ALTERED, b""
    if value is None:
        return Kept.ERASED, b""
    if digest(SCHEMA, value) != entry["input_digest"]:
        return Kept.ALTERED, b""
    return Kept.WHOLE, value


def _told(entry: Mapping[str, Any], opened: Open) -> tuple[tuple[str, str], ...] | None:
    try:
        value = _behind(entry, "reasons", opened)
    except _Altered:
        return None
    if value is None:
        return None
    return tuple((_text(code), _text(message)) for code, message in json.loads(value))


def _behind(entry: Mapping[str, Any], name: str, opened: Open) -> bytes | None:
    named = entry.get("commitments", {}).get(name)
    return None if named is None else opened(name, _text(named))
