"""What policy said of who may see what, kept for a while and within bounds.

Two caches, both for one *state of things* (policy revision, freeze epoch, catalog): single tools
that were called, and whole lists. When the state changes, both are empty.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from remit.model import Caller, Tool

MAX_ANSWERS = 20_000
"""Answers about single tools kept at once."""

MAX_LISTS = 10_000
"""Callers whose list is kept at once."""

MAX_NAMES = 1_000_000
"""Tools in all kept lists together; equal lists count once. 8 bytes each."""

Asker = tuple[Caller, str]
"""Who asks, as a class, and from which address, where that may matter."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def identity_class(caller: Caller) -> Caller:
    """The caller as policy is shown it: all of it but the key it came with and that key's expiry.

    Two callers of one class cannot be told apart by any policy.
    """
    return replace(caller, key_id="", expires_ms=None)


@dataclass(slots=True)
class View:
    """A list that some callers see: tools sorted by name. `holders` counts who it is kept for."""

    tools: tuple[Tool, ...]
    digest: bytes
    holders: int = 0


class Answers(Generic[_Key, _Value]):
    """A bounded map that forgets what was not asked for longest, and what is too old."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[_Key, tuple[int, _Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: _Key, now_ms: int, ttl_ms: int) -> _Value | None:
        """What is kept, if it was asked less than `ttl_ms` ago; a clock set back makes it old."""
        found = self._kept.get(key)
        if found is None or not 0 <= now_ms - found[0] < ttl_ms:
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: _Key, value: _Value, asked_ms: int) -> list[_Value]:
        """Keep it; gives what had to go for it."""
        gone = [self._kept.pop(key)[1]] if key in self._kept else []
        self._kept[key] = (asked_ms, value)
        while len(self._kept) > self._most:
            gone.append(self.oldest())
        return gone

    def oldest(self) -> _Value:
        """Forget, and give, what was not asked for longest."""
        return self._kept.popitem(last=False)[1][1]


class Lists:
    """Whole lists by who asks. Callers who see the same share one sequence."""

    def __init__(self, *, most: int = MAX_LISTS, names: int = MAX_NAMES) -> None:
        self._by_class: Answers[Asker, View] = Answers(most)
        self._views: dict[bytes, View] = {}
        self._most_names = names
        self.names = 0

    def __len__(self) -> int:
        return len(self._by_class)

    def get(self, who: Asker, now_ms: int, ttl_ms: int) -> tuple[Tool, ...] | None:
        found = self._by_class.get(who, now_ms, ttl_ms)
        return None if found is None else found.tools

    def put(self, who: Asker, tools: Sequence[Tool], asked_ms: int) -> tuple[Tool, ...]:
        """Keep a list; gives the sequence that stands for it."""
        view = self._shared(tools)
        view.holders += 1
        for gone in self._by_class.put(who, view, asked_ms):
            self._let_go(gone)
        while self.names > self._most_names and len(self._by_class) > 1:
            self._let_go(self._by_class.oldest())
        return view.tools

    def _shared(self, tools: Sequence[Tool]) -> View:
        names = "\n".join(f"{tool.name} {tool.digest}" for tool in tools)
        digest = hashlib.sha256(names.encode()).digest()
        view = self._views.get(digest)
        if view is None:
            view = self._views[digest] = View(tuple(tools), digest)
            self.names += len(tools)
        return view

    def _let_go(self, view: View) -> None:
        view.holders -= 1
        if not view.holders:
            del self._views[view.digest]
            self.names -= len(view.tools)
