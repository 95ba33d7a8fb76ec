"""The names of all tools, as their servers list them and as callers use them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from remit.model import Tool
from remit.servers.known import Known
from remit.upstreams.names import Skeleton, skeleton


class Names:
    """Every name that was ever known, by what it looks like. Grows only, as what is known does.

    Args:
        commands: the tools that are no server's.
    """

    def __init__(self, commands: Iterable[Tool]) -> None:
        self._every = {skeleton(tool.name) for tool in commands}

    def add(self, known: Known, names: Iterable[str]) -> bool:
        """Take in tools that a server lists under these names.

        Gives whether one of them would be offered under a name that is taken, or looks like it.
        """
        taken = False
        for name in names:
            offered = skeleton(known.tools.offered_as(name))
            taken = taken or offered in self._every
            self._every |= {offered, skeleton(name)}
        return taken

    def but(self, known: Known, listed: Iterable[str]) -> AbstractSet[Skeleton]:
        """The names of tools that are not this server's, which knows some and lists these."""
        own = {*listed, *known.pinned}
        offered = {skeleton(known.tools.offered_as(name)) for name in own}
        return _But(self._every, offered | {skeleton(name) for name in own})


class _But(AbstractSet[Skeleton]):
    """A set without what is in another; nothing is copied, whatever their sizes."""

    def __init__(self, every: AbstractSet[Skeleton], without: AbstractSet[Skeleton]) -> None:
        self._every = every
        self._without = without

    def __contains__(self, name: object) -> bool:
        return name in self._every and name not in self._without

    def __iter__(self) -> Iterator[Skeleton]:
        return (name for name in self._every if name not in self._without)

    def __len__(self) -> int:
        return sum(1 for _ in self)
