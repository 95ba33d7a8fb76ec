"""Untrusted text made safe to look at: what would not be seen, or would move what is seen, is
written out as an escape.

It does not notice letters that merely look alike (Latin and Cyrillic a): those are shown as they
are.
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that draw nothing, though Unicode does not class them as format characters."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@:+-]{0,63}")
_SAFE = re.compile(r"[ -~]*")
_MAX_VALUE = 200
FOLDED = "more characters"
"""What stands where text was left out by `fold`."""


def visible(text: str, *, keep: str = "") -> str:
    """`text` with control, format, bidirectional, zero-width and unassigned characters escaped.

    Args:
        text: anything.
        keep: characters left as they are, such as the newline in a page of output.
    """
    if _SAFE.fullmatch(text):
        return text
    return "".join(char if char in keep else _one(char) for char in text)


def _one(char: str) -> str:
    if char == "\n":
        return "\\n"
    if char == "\t":
        return "\\t"
    category = unicodedata.category(char)
    hidden = category[0] == "C" or category in ("Zl", "Zp") or (category == "Zs" and char != " ")
    selector = "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    return f"\\u{{{ord(char):x}}}" if hidden or selector or char in _INVISIBLE else char


def quoted(text: str, limit: int = _MAX_VALUE) -> str:
    """`text` visible, folded to about `limit` characters with its end shown, in quotation marks."""
    return '"' + visible(fold(text, limit)).replace('"', "\\u{22}") + '"'


def literal(text: str, limit: int = 4_000) -> str:
    """`text` as a string of a program: visible, in quotation marks, with backslashes doubled.

    For showing exactly what is run. In a sentence use `quoted`, which keeps every quotation mark
    out of the text.
    """
    escaped = fold(text, limit).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + visible(escaped) + '"'


def shown(text: str, limit: int = _MAX_VALUE) -> str:
    """One plain word as it is; anything else quoted, so that it cannot pose as a sentence."""
    return text if _PLAIN_WORD.fullmatch(text) else quoted(text, limit)


def fold(text: str, limit: int) -> str:
    """`text`, or its beginning and its end with the number of characters left out between."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 4, limit // 4
    return f"{text[:head]} …[{len(text) - head - tail} {FOLDED}]… {text[-tail:]}"
