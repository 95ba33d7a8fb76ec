"""The names under which tools of several servers are offered, and which of them would be confused.

Only ASCII can be in a name, so what can look alike is upper and lower case, and `-`, `_` and `.`.
Digits that resemble letters (0 and O, 1 and l) are not looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from remit.upstreams.definitions import Definition

_ALIKE = str.maketrans("-.", "__")

Skeleton = NewType("Skeleton", str)
"""A name without case and kind of separator: the same for names that look alike."""


class Confusion(StrEnum):
    SAME = "same"
    """One name for several tools: which of them would be called cannot be told."""
    ALIKE = "alike"
    """Names that differ, and that a reader or a model takes for each other."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Offered:
    """A tool of a server under the name that callers would use."""

    name: str
    server: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collision:
    """Two or more tools whose names would be confused, sorted."""

    confusion: Confusion
    offered: tuple[Offered, ...]


def offered_name(prefix: str, tool: str) -> str:
    """`tool` behind its server's prefix; that the result is no longer than a name may
    be is not checked."""
    return f"{prefix}_{tool}" if prefix else tool


def skeleton(name: str) -> Skeleton:
    """What is left of a name when case and kind of separator are not looked at."""
    return Skeleton(name.lower().translate(_ALIKE))


def collisions(
    definitions: Iterable[Definition], prefixes: Mapping[str, str]
) -> tuple[Collision, ...]:
    """Every group of tools, of one server or of several, whose offered names would be confused.

    Tools of one name and names that are alike are told apart, so a tool can be in a group of each.
    A name that one server lists twice is not told here but by `pins.judge`.

    Args:
        definitions: all tools that would be offered together.
        prefixes: by server; a server that is not in it has none.
    """
    groups: dict[Skeleton, dict[str, set[Offered]]] = defaultdict(lambda: defaultdict(set))
    for definition in definitions:
        name = offered_name(prefixes.get(definition.server, ""), definition.name)
        offered = Offered(name=name, server=definition.server, tool=definition.name)
        groups[skeleton(name)][name].add(offered)
    found = []
    for _, names in sorted(groups.items()):
        for _, same in sorted(names.items()):
            if len(same) > 1:
                found.append(Collision(confusion=Confusion.SAME, offered=tuple(sorted(same))))
        if len(names) > 1:
            alike = tuple(sorted(set().union(*names.values())))
            found.append(Collision(confusion=Confusion.ALIKE, offered=alike))
    return tuple(found)
