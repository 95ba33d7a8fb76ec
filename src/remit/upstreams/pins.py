"""What differs between the definition of a tool that was accepted and the one that is listed now."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any

from remit import canonical
from remit.upstreams.definitions import PARTS, Definition
from remit.visible import visible

MAX_DIFF_LINES = 2_000
"""Lines of one difference that are shown; how many more there are is said."""
_MAX_COMPARED = 600
"""Longer stretches that differ are shown as all taken out and all put in: comparing them line by
line could take for ever."""
_WIDTH = 160
_CONTEXT = 2
_SENTENCE = re.compile(r"(?<=[.!?;:] )")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One part that changed: its name as in `tools/list`, and a unified diff safe to look at."""

    part: str
    diff: str


def changes(old: Definition, new: Definition) -> tuple[Difference, ...]:
    """What differs between two definitions of a tool, part by part; empty if the digests agree.

    The order of keys is no difference. Each character that cannot be seen is written as an escape
    and each backslash of a text doubled, so that two texts that differ never look the same.
    """
    before, after = old.parts(), new.parts()
    found = []
    for part in PARTS:
        first, second = _lines(before.get(part)), _lines(after.get(part))
        if first != second:
            found.append(Difference(part=part, diff=_diff(part, first, second)))
    return tuple(found)


def _lines(value: Any) -> list[str]:
    """A part on lines that are the same only for the same part; no line where there is no part."""
    if value is None:
        return []
    if isinstance(value, str):
        lines = value.replace("\\", "\\\\").splitlines(keepends=True)
        pieces = [piece for line in lines for piece in _SENTENCE.split(line) if piece]
    else:
        ordered = json.loads(canonical.encode(value))
        pieces = json.dumps(ordered, ensure_ascii=False, indent=2).split("\n")
    return [visible(line) for piece in pieces or [""] for line in _cut(piece)]


def _cut(line: str) -> list[str]:
    return [line[start : start + _WIDTH] for start in range(0, len(line), _WIDTH)] or [""]


def _diff(part: str, before: list[str], after: list[str]) -> str:
    if max(len(before), len(after)) <= _MAX_COMPARED:
        compared = difflib.unified_diff(before, after, "pinned", "now", lineterm="", n=_CONTEXT)
        lines = list(compared)
    else:
        lines = _replaced(before, after)
    lines[:2] = [f"--- {part}, pinned", f"+++ {part}, now"]
    more = len(lines) - MAX_DIFF_LINES
    if more > 0:
        lines[MAX_DIFF_LINES:] = [f"[{more} more lines]"]
    return "\n".join(lines)


def _replaced(before: list[str], after: list[str]) -> list[str]:
    """A diff of one stretch: from the first line that differs to the last."""
    shorter = min(len(before), len(after))
    head = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    left = shorter - head
    tail = next((at for at in range(left) if before[-1 - at] != after[-1 - at]), left)
    out, put = before[head : len(before) - tail], after[head : len(after) - tail]
    first, second = head + bool(out), head + bool(put)  # an empty stretch is after line `head`
    title = f"@@ -{first},{len(out)} +{second},{len(put)} @@"
    return ["", "", title, *(f"-{line}" for line in out), *(f"+{line}" for line in put)]
