"""Processes that are spoken with: what they are told to be, and which era of MCP they are of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from remit.errors import Code, UpstreamFault
from remit.model import RunSpec
from remit.upstreams.revisions import NEWEST_FIRST, Revision

KNOWN = 1_000
"""Most servers of which it is remembered how they opened."""

_SHAKEN = tuple(each for each in NEWEST_FIRST if not each.modern)


def processed(spec: RunSpec) -> RunSpec:
    """The process of a server: spoken with, and told nothing of any call."""
    return replace(spec, dialogue=True, upstream=None)


class Era:
    """One opening: which revisions are tried, and what became of it."""

    def __init__(self, revisions: Sequence[Revision]) -> None:
        self.revisions = revisions
        self.found: Revision | None = None

    def agreed(self, revision: Revision) -> None:
        """They agreed on this one."""
        self.found = revision


class Eras:
    """Remembers which servers only shake hands.

    Such a server may leave the first question unanswered, or end at it; the next process of the
    same command is then asked to shake hands at once. What is remembered decides nothing else, and
    is forgotten when it no longer opens a conversation.
    """

    def __init__(self) -> None:
        self._shaken: OrderedDict[tuple[str, tuple[str, ...]], None] = OrderedDict()

    @contextmanager
    def of(self, spec: RunSpec, server: str) -> Iterator[Era]:
        """The opening of one process."""
        name = (server, spec.argv)
        era = Era(_SHAKEN if name in self._shaken else NEWEST_FIRST)
        try:
            yield era
        except UpstreamFault as fault:
            if era.revisions is _SHAKEN:
                self._shaken.pop(name, None)
            elif fault.code is Code.UPSTREAM_GONE:
                self._learn(name)
            raise
        if era.found is not None and not era.found.modern:
            self._learn(name)

    def _learn(self, name: tuple[str, tuple[str, ...]]) -> None:
        self._shaken[name] = None
        while len(self._shaken) > KNOWN:
            self._shaken.popitem(last=False)
