"""The traces that a secret leaves in text, and how they are blanked.

A trace is the secret itself or one of its usual spellings. A spelling that is not here (reversed,
encrypted, compressed, cut into pieces with something between) is not found: blanking stops the
accident and the echo, not someone who means to get the secret past it.

Imported by the egress proxy and by the keeper: standard library only, and little of it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus

MIN_CORE = 6
"""Shortest piece of base64 or hex that is looked for: a shorter one stands in any text."""

MIN_BEGINNING = 8
"""Shortest beginning of a form that is taken for one that was cut off."""

_FILLS = b"*#~^|_"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_ALWAYS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUPS = (
    {**_ALWAYS, '"': "&quot;", "'": "&#x27;"},  # Python's html
    {**_ALWAYS, '"': "&#34;", "'": "&#39;"},  # Go's html, Jinja
    {**_ALWAYS, '"': "&#34;", "'": "&#39;", "+": "&#43;"},  # Go's html/template
    {**_ALWAYS, '"': "&quot;", "'": "&#39;"},  # Ruby, JavaScript's lodash
    {**_ALWAYS, '"': "&quot;", "'": "&#039;"},  # PHP
    {**_ALWAYS, '"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;"},  # Handlebars
)
_ESCAPES = (
    ("", False),
    ("<>&", False),  # Go, Ruby on Rails
    ("<>&", True),  # PHP
    ("<>&='", False),  # Gson
    ("<>&'\"+`", True),  # .NET
)
"""What is written `\\uXXXX` in JSON though it need not be, and whether its digits are capitals."""


def forms(secret: str) -> tuple[bytes, ...]:
    """What is looked for when `secret` must not be seen, longest first; nothing for the empty one.

    As it is; in base64, plain and URL-safe, wherever it starts within what was encoded;
    percent-encoded, what has to be and all of it; in hex; as JSON and as HTML write it.
    """
    raw = secret.encode("utf-8", "surrogateescape")
    if not raw:
        return ()
    found = {raw, *_json(secret)}
    found |= {form.replace(b"/", b"\\/") for form in found}
    found |= {
        "".join(markup.get(each, each) for each in secret).encode("utf-8", "surrogateescape")
        for markup in _MARKUPS
    }
    found |= {quote(raw).encode("ascii"), quote(raw, safe="").encode("ascii")}
    found.add(quote_plus(raw).encode("ascii"))
    found |= {re.sub(b"%..", lambda each: each[0].lower(), form) for form in found if b"%" in form}
    found |= set(_cores(raw))
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def _json(secret: str) -> Iterator[bytes]:
    """The secret as JSON's usual writers write it within a string."""
    for pure in (True, False):
        written = [json.dumps(each, ensure_ascii=pure)[1:-1] for each in secret]
        for further, capital in _ESCAPES:
            spelt = "".join(
                f"\\u{ord(each):04x}" if each in further else form
                for each, form in zip(secret, written, strict=True)
            )
            if capital:
                spelt = re.sub(r"\\u....", lambda each: "\\u" + each[0][2:].upper(), spelt)
            yield spelt.encode("utf-8", "surrogateescape")


def _cores(raw: bytes) -> Iterator[bytes]:
    """The spellings in which a short secret would be found in everything."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        # Characters that also hold bits of what stands before or after are not always the same.
        core = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(core) >= MIN_CORE:
            yield core
            yield core.translate(_URL_SAFE)
    digits = raw.hex()
    if len(digits) >= MIN_CORE:
        yield digits.encode("ascii")
        yield digits.upper().encode("ascii")
        spelt = "".join(f"%{byte:02X}" for byte in raw)
        yield spelt.encode("ascii")
        yield spelt.lower().encode("ascii")


def all_forms(secrets: Sequence[str]) -> tuple[bytes, ...]:
    """The forms of several secrets, longest first, each once."""
    found = {form for secret in secrets for form in forms(secret)}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def blank(data: bytes, forms: Sequence[bytes], *, cut: bool = False) -> tuple[bytes, int]:
    """The data with every form overwritten, in its length, and how many places that were.

    Forms that overlap are one place. What is written is a character that none of the forms has,
    as long as there is one of `*#~^|_`, so that nothing blanked is found again.

    Args:
        cut: the data may have been cut off anywhere: a beginning of a form at its end, of
            `MIN_BEGINNING` bytes or more, is overwritten too.
    """
    blanker = Blanker(forms)
    return blanker.feed(data) + blanker.finish(cut=cut), blanker.found


class Blanker:
    """Blanks data that comes in pieces: a form that is split over pieces is found as well.

    Holds back only what may be the beginning of a form. `found` counts places so far.
    """

    def __init__(self, forms: Sequence[bytes]) -> None:
        self._forms = tuple(form for form in forms if form)
        self._fill = _fill(self._forms)
        self._held = b""
        self._covered = 0
        self.found = 0

    def feed(self, data: bytes) -> bytes:
        """What of the data so far can be let go."""
        if not self._forms:
            return data
        data = self._held + data
        return self._release(data, self._safe(data))

    def finish(self, *, cut: bool = False) -> bytes:
        """The rest; with `cut`, blanked where it is long enough to be more than a coincidence."""
        held = len(self._held)
        if cut and held >= max(MIN_BEGINNING, self._covered + 1):
            self.found += 1
            return self._fill * held
        return self._release(self._held, held)

    def _release(self, data: bytes, end: int) -> bytes:
        """Blank and give what is before `end`; hold the rest as it is.

        A form that begins before `end` also ends within the data, because what may be the
        beginning of a longer form is never let go. Its last part may be held: `_covered` bytes of
        what is held are to be blanked whatever follows.
        """
        out, covered = bytearray(data), self._covered
        out[:covered] = self._fill * covered
        for start, stop in sorted(self._places(data)):
            if start >= end:
                break
            self.found += start >= covered
            if stop > covered:
                first = max(start, covered)
                out[first:stop] = self._fill * (stop - first)
                covered = stop
        self._held, self._covered = data[end:], max(0, covered - end)
        return bytes(out[:end])

    def _places(self, data: bytes) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = data.find(form, at + 1)

    def _safe(self, data: bytes) -> int:
        """Where the first piece begins that goes to the end and is the beginning of a form."""
        least = len(data)
        for form in self._forms:
            at = data.find(form[:1], max(0, len(data) - len(form) + 1))
            while 0 <= at < least:
                if form.startswith(data[at:]):
                    least = at
                    break
                at = data.find(form[:1], at + 1)
        return least


def _fill(forms: Sequence[bytes]) -> bytes:
    for each in _FILLS:
        if not any(each in form for form in forms):
            return bytes((each,))
    return _FILLS[:1]
