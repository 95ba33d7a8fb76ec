"""Names on the gateway's side: the prefix under which the tools of a server are offered."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

from remit.upstreams.secretlike import sign_of

MAX_PREFIX = 32
_FILLER = re.compile(
    r"^(?:mcp-server|server|mcp)-(?=[a-z])|(?<=[a-z0-9])-(?:mcp-server|mcp|server)$"
)


def propose_prefixes(names: Iterable[str], taken: Collection[str] = ()) -> tuple[str, ...]:
    """A prefix for each name, in their order, each different from all others and from `taken`.

    A prefix is 1 to 32 of `a-z`, `0-9` and `-`, begins with a letter, and has no `_` and no `.`:
    a prefix and a tool joined by one of these two can be taken apart in one way only. A name in
    another script, or one that looks like a secret, gives `server`. A proposal depends on the
    names before it, so keep what was proposed once.
    """
    used = {prefix.lower() for prefix in taken}
    proposed = []
    for name in names:
        stem = _stem(name)
        prefix, number = stem, 2
        while prefix in used:
            tail = f"-{number}"
            prefix = stem[: MAX_PREFIX - len(tail)].rstrip("-") + tail
            number += 1
        used.add(prefix)
        proposed.append(prefix)
    return tuple(proposed)


def _stem(name: str) -> str:
    last = name[:1000].rstrip("/").rpartition("/")[2]
    if sign_of(last) is not None:
        return "server"
    ascii_only = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-")
    words = _FILLER.sub("", words)
    if words and not words[0].isalpha():
        words = f"s-{words}"
    return words[:MAX_PREFIX].rstrip("-") or "server"
