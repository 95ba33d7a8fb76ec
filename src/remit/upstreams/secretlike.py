"""Which values of a server's definition look like secrets, by their name, their form or their place.

These are signs for an importer that moves secrets out of files, not proof: a secret that looks
like a word is found only by its name, and an identifier may look like a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit


class Sign(StrEnum):
    """Why a value looks like a secret."""

    NAME = "name"
    PREFIX = "prefix"
    ENTROPY = "entropy"
    URL = "url"
    DECLARED = "declared"


_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{16,}|(?:sk|rk)_(?:live|test)_\w{10,}|whsec_\w{16,}"
    r"|xox[abeprs]-[\w-]{8,}|xapp-[\w-]{8,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|ya29\.[\w-]{16,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}|r8_[A-Za-z0-9]{16,}|SG\.[\w-]{16,}|dop_v1_\w{16,}"
    r"|shpat_\w{16,}|lin_api_\w{16,}|ntn_\w{16,}|figd_[\w-]{16,}|tvly-[\w-]{12,}"
    r"|dckr_pat_[\w-]{16,}|hvs\.[\w-]{16,}|pat[A-Za-z0-9]{14}\.[a-f0-9]{32,}"
    r"|remit_[A-Za-z0-9]+_[\w-]{20,}"
    r"|eyJ[\w-]{8,2000}\.[\w-]"
    r")|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {"token", "secret", "password", "passwd", "pwd", "passphrase", "apikey", "authorization",
     "credential", "credentials", "bearer", "cookie", "accesskey", "secretkey", "privatekey",
     "authtoken", "pat", "dsn"}
)  # fmt: skip
_LAST_WORDS = frozenset({"key", "auth", "pass"})
_ABOUT = frozenset(
    {"path", "file", "dir", "directory", "name", "id", "type", "url", "uri", "endpoint", "host",
     "port", "env", "var", "variable", "expiry", "ttl", "timeout", "limit", "length", "size",
     "count", "algorithm", "header", "mode"}
)  # fmt: skip
_SCHEME = re.compile(r"(?:Bearer|Basic|Token|ApiKey|Key)\s*", re.IGNORECASE)
_PLAIN = re.compile(r"true|false|yes|no|on|off|none|null|[0-9]{1,6}", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9+]{20,}={0,2}")
_MIXED = re.compile(r"[A-Za-z0-9_-]{32,}")
_SHA256 = re.compile(r"sha256[:-][A-Fa-f0-9]{64}")
_ASSIGNED = re.compile(r"-{0,2}([A-Za-z][\w.-]*)[=:]\s*(.+)", re.DOTALL)
_FLAG = re.compile(r"--?([A-Za-z][\w.-]*)")
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://\S+", re.IGNORECASE)


def names_a_secret(name: str) -> bool:
    """Whether a variable, header, flag or parameter of this name usually holds a secret."""
    words = [word.lower() for word in _WORD.findall(name[:256])]
    if not words or "public" in words or words[-1] in _ABOUT:
        return False
    return words[-1] in _LAST_WORDS or not _SECRET_WORDS.isdisjoint(words)


def sign_of(text: str, *, name: str = "") -> Sign | None:
    """Why a value looks like a secret, or None.

    Args:
        text: the value without the variables in it.
        name: what it is the value of; "" where it has no name.
    """
    rest = _SCHEME.sub("", text, count=1) if name else text
    rest = rest.strip()
    if not rest:
        return None
    if name and names_a_secret(name) and not _PLAIN.fullmatch(rest):
        return Sign.NAME
    if _KNOWN.search(rest):
        return Sign.PREFIX
    if any(_url_holds_one(found[0]) for found in _URL.finditer(rest)):
        return Sign.URL
    return Sign.ENTROPY if _dense(rest) else None


def sign_of_command(words: tuple[str, ...]) -> dict[int, Sign]:
    """Which words of a command line look like secrets, by what stands before and inside them."""
    signs: dict[int, Sign] = {}
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        flag = _FLAG.fullmatch(before)
        sign = None
        if flag and not word.startswith("--"):
            sign = sign_of(word, name=flag[1])
        sign = sign or _sign_inside(word)
        if sign is not None:
            signs[at] = sign
    return signs


def _sign_inside(word: str) -> Sign | None:
    """A word may be `NAME=value`, `Header: value`, or a whole command line for a shell."""
    assigned = _ASSIGNED.fullmatch(word)
    if assigned and not assigned[2].startswith("//"):
        sign = sign_of(assigned[2], name=assigned[1])
        if sign is not None:
            return sign
    parts = tuple(word.split())
    if len(parts) > 1:
        inside = sign_of_command(parts)
        if inside:
            return next(iter(inside.values()))
    return sign_of(word)


def _url_holds_one(url: str) -> bool:
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, max_num_fields=100)
    except ValueError:
        return True  # what cannot be read is not shown
    if parts.password or (parts.username and _dense(parts.username)):
        return True
    return any(names_a_secret(key) and value for key, value in pairs) or _dense(unquote(parts.path))


def _dense(text: str) -> bool:
    """Whether a run of letters and digits is as unordered as a made-up key."""
    rest = _SHA256.sub("", text)
    return any(_unordered(run, 2, 3.0) for run in _matches(_RUN, rest)) or any(
        _unordered(run, 3, 4.0) and any(c.isupper() for c in run) and any(c.islower() for c in run)
        for run in _matches(_MIXED, rest)
    )


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return (found[0] for found in pattern.finditer(text))


def _unordered(run: str, digits: int, bits: float) -> bool:
    if sum(c.isdigit() for c in run) < digits or not any(c.isalpha() for c in run):
        return False
    counts = (run.count(char) / len(run) for char in set(run))
    return -sum(share * math.log2(share) for share in counts) >= bits


def shown(text: str, limit: int = 64) -> str:
    """A name as it may be shown: `***` where it looks like a secret, and no control characters."""
    if len(text) > limit:
        return "***" if sign_of(text) else shown(text[:limit], limit) + "..."
    if sign_of(text) is not None:
        return "***"
    return "".join(char if char.isprintable() else "?" for char in text)
