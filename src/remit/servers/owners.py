"""Which servers have a URI: by listing it, or by a template that covers it.

Worked out for what is new alone: each list of each server is held against the others once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet

from remit.upstreams.templates import Template


class Owners:
    """The servers of each URI that one of them lists, and of the text of each template."""

    def __init__(self) -> None:
        self._listed: dict[str, Collection[str]] = {}
        self._templates: dict[str, tuple[Collection[str], list[Template]]] = {}
        self._listers: dict[str, int] = defaultdict(int)
        self._whose: dict[str, set[str]] = {}
        self._texts: dict[str, set[str]] = defaultdict(set)

    def put(self, server: str, uris: Collection[str], templates: Collection[str]) -> None:
        """This is what a server has from now on.

        Takes time for what it lists, and for what its templates and others' may cover.

        Args:
            templates: texts that `Template` understands.
        """
        self._drop(server)
        made = [Template(text) for text in templates]
        self._listed[server], self._templates[server] = uris, (templates, made)
        new = sorted(uri for uri in uris if uri not in self._whose)
        for uri in uris:
            self._listers[uri] += 1
            self._whose.setdefault(uri, set()).add(server)
        for other, (_, patterns) in self._templates.items():
            for uri in _covered(patterns, new):
                self._whose[uri].add(other)
        for uri in _covered(made, sorted(self._whose)) if made else ():
            self._whose[uri].add(server)
        for text in templates:
            self._texts[text].add(server)

    def _drop(self, server: str) -> None:
        """Forget what a server had."""
        for uri in self._listed.pop(server, ()):
            self._listers[uri] -= 1
            self._whose[uri].discard(server)
            if not self._listers[uri]:
                del self._listers[uri], self._whose[uri]
        texts, patterns = self._templates.pop(server, ((), []))
        for uri in _covered(patterns, sorted(self._whose)) if patterns else ():
            self._whose[uri].discard(server)
        for text in texts:
            self._texts[text].discard(server)
            if not self._texts[text]:
                del self._texts[text]

    def twice(self) -> AbstractSet[str]:
        """The URIs and templates that more than one server has."""
        every = (*self._whose.items(), *self._texts.items())
        return {each for each, owners in every if len(owners) > 1}


def _covered(patterns: Iterable[Template], uris: list[str]) -> Iterator[str]:
    """Those of the URIs, which are sorted, that one of these covers; one may come twice."""
    for each in patterns:
        for at in range(bisect_left(uris, each.head), len(uris)):
            if not uris[at].startswith(each.head):
                break
            if each.covers(uris[at]):
                yield uris[at]
