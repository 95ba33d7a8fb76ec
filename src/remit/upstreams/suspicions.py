"""What in a server's words about its tools should make an operator look twice.

These are signs, not proofs. They are shown to operators and decide nothing: harmless texts have
some of them, and a text that has none can still mislead a model. Letters of other scripts that look
like Latin ones are not noticed, nor instructions in other languages than English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from remit.upstreams.definitions import Definition
from remit.upstreams.names import Skeleton, skeleton
from remit.upstreams.walk import Path, pointer, walk
from remit.visible import quoted, visible

LONG = {"title": 100, "description": 4_000}
"""Characters from which a text of a tool, or of a parameter (a quarter), is called long."""


class Sign(StrEnum):
    BIDI = "bidi"
    """Characters that change the order in which text is seen."""
    ZERO_WIDTH = "zero_width"
    TAG = "tag"
    """Characters of the tags block: ASCII that models read and people cannot see."""
    VARIATION = "variation"
    """Variation selectors, which can carry hidden bytes; one that makes an emoji is not told."""
    CONTROL = "control"
    HIDDEN = "hidden"
    """Any other character that draws nothing, or a space that is not the plain one."""
    INSTRUCTION = "instruction"
    """Words to the model instead of about the tool."""
    OTHER_TOOL = "other_tool"
    """Another tool is named, to be used less, or only after this one."""
    URL = "url"
    """An address with a place for data."""
    LONG = "long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """One sign at one place of a definition; place and excerpt are safe to look at."""

    sign: Sign
    place: str
    excerpt: str


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ZERO_WIDTH = frozenset("\u00ad\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff")
_LINES = "\n\r\t"
_CLEAN = re.compile(r"[ -~\n\r\t]*")

_UNSAID = r"(?:do not|don['\u2019]?t|never|without|must not)"
_SAYING = r"(?:tell|mention|inform|reveal|show|notify|alert|ask)(?:ing)?"
_BOUND = r"(?:must|should|have to|need to)(?: always| first| also| now){0,2}"
_DOING = r"(?:call|use|run|invoke|read|send|include|pass|provide|respond|reply)"
_INSTRUCTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:ignore|disregard|forget|override)\b.{0,30}\b(?:previous|prior|above|earlier)\b",
        r"\b(?:ignore|disregard|forget|override)\b.{0,30}\b(?:instructions?|prompts?|rules)\b",
        rf"\b{_UNSAID} (?:\w+ ){{0,2}}{_SAYING}\b.{{0,30}}\busers?\b",
        r"\b(?:hide|conceal|keep)\b.{0,40}\bfrom the user\b",
        r"<\s*/?\s*(?:important|system|secret|instructions?|admin|critical|hidden)\b[^<>]{0,40}>",
        r"<\|[a-z_]{1,20}\|>|\[/?INST\]|<<SYS>>",
        r"\bsystem prompt\b",
        rf"\byou {_BOUND} {_DOING}\b",
        r"\b(?:before|prior to) (?:using|calling|running|invoking) (?:this|any|other|all|another)\b",
        r"~/\.ssh\b|\bid_(?:rsa|ed25519)\b|\.aws/credentials\b|\bmcp\.json\b|/etc/(?:passwd|shadow)\b",
    )
)
_URL = re.compile(r"https?://[^\s\"'`]{1,2000}", re.IGNORECASE)
_DATA = re.compile(r"\{[^{}]{0,60}\}|%\([^()]{1,40}\)s|%s|<[\w -]{1,40}>|\[[\w -]{1,40}\]|=\$\w")
_WORD = re.compile(r"[A-Za-z0-9_.-]{2,128}")
_RATHER = re.compile(
    r"\b(?:instead of|in place of|rather than|replace[sd]?|supersede[sd]?|deprecated|prior to"
    r"|(?:before|after|when|stop|avoid) (?:using|calling|running|invoking)"
    r"|(?:do not|don['\u2019]?t|never|always|must|should) (?:use|call|run|invoke))\b",
    re.IGNORECASE,
)
_NEAR = 60
_AROUND = 40


def suspicions(
    definition: Definition, others: AbstractSet[Skeleton] = frozenset()
) -> tuple[Suspicion, ...]:
    """Every sign in a definition: at most one of each kind in one string, where it is first seen.

    All strings of the parts are looked at, keys, defaults, examples and enums of schemas included,
    because a model is shown all of them.

    Args:
        definition: the tool.
        others: the `skeleton` of every name in the catalog, as servers list it and as callers use
            it; the definition's own listed name in it is passed over.
    """
    own = skeleton(definition.name)
    found = []
    for path, _, value, is_key in walk(definition.parts()):
        if not isinstance(value, str) or path == (None, "name"):
            continue
        place = ""
        for sign, excerpt in (*_signs(value, others, own), *_long(value, path, is_key=is_key)):
            place = place or pointer(path)
            found.append(Suspicion(sign=sign, place=place, excerpt=excerpt))
    return tuple(found)


def _signs(text: str, others: AbstractSet[Skeleton], own: Skeleton) -> Iterator[tuple[Sign, str]]:
    yield from _hidden(text)
    plain = _plain(text)
    for pattern in _INSTRUCTIONS:
        match = pattern.search(plain)
        if match:
            yield Sign.INSTRUCTION, _excerpt(plain, match.start(), match.end())
            break
    for match in _RATHER.finditer(plain):
        near = plain[max(0, match.start() - _NEAR) : match.end() + _NEAR]
        named = {skeleton(word.strip(".-")) for word in _WORD.findall(near)} - {own}
        if any(name in others for name in named):
            yield Sign.OTHER_TOOL, _excerpt(plain, match.start(), match.end(), _NEAR)
            break
    for match in _URL.finditer(plain):
        if _DATA.search(match[0]):
            yield Sign.URL, _excerpt(plain, match.start(), match.end(), 0)
            break


def _plain(text: str) -> str:
    """What a model may read: without what is hidden, compatible letters as one, spaces as one."""
    if _CLEAN.fullmatch(text):
        return " ".join(text.split())
    seen = "".join(char for char in text if char.isspace() or visible(char) == char)
    return " ".join(unicodedata.normalize("NFKC", seen).split())


def _hidden(text: str) -> Iterator[tuple[Sign, str]]:
    if _CLEAN.fullmatch(text):
        return
    told = set()
    for at, char in enumerate(text):
        if char in _LINES or visible(char) == char:
            continue
        sign = _kind(char)
        if sign in told or (sign is Sign.VARIATION and _emoji(text, at)):
            continue
        told.add(sign)
        yield sign, _excerpt(text, at, at + 1)


def _kind(char: str) -> Sign:
    if char in _BIDI:
        return Sign.BIDI
    if char in _ZERO_WIDTH:
        return Sign.ZERO_WIDTH
    if "\U000e0000" <= char <= "\U000e007f":
        return Sign.TAG
    if "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return Sign.VARIATION
    return Sign.CONTROL if unicodedata.category(char) == "Cc" else Sign.HIDDEN


def _emoji(text: str, at: int) -> bool:
    """Whether this is the one selector that shows the symbol before it as an emoji."""
    return text[at] == "\ufe0f" and at > 0 and unicodedata.category(text[at - 1])[0] == "S"


def _long(text: str, path: Path, *, is_key: bool) -> Iterator[tuple[Sign, str]]:
    if path is None or is_key or path[1] not in LONG:
        return
    limit = LONG[path[1]] if path[0] is None else LONG[path[1]] // 4
    if len(text) > limit:
        yield Sign.LONG, f"{len(text)} characters: {quoted(text, 120)}"


def _excerpt(text: str, start: int, end: int, around: int = _AROUND) -> str:
    return quoted(text[max(0, start - around) : end + around])
