"""The one catalog of command tools and servers' tools, and which names are refused in it.

Whose a name is follows from what the operator wrote alone, never from which server was faster or
what a server lists: command tools first, then aliases; a name behind the prefix of a server is that
server's, and between tools that are still alike, none is offered. So no server can take another's
name, or stand in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from remit.model import PROMPT, Method, Tool
from remit.ports import Catalog
from remit.upstreams.names import Skeleton, skeleton


class Claim(IntEnum):
    """By what right a tool has its name."""

    PREFIXED = 1
    ALIAS = 2
    COMMAND = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A server's tool that could be offered, and by what right it has its name."""

    server: str
    listed: str
    """Its name at the server."""
    tool: Tool
    claim: Claim = Claim.PREFIXED

    @property
    def name(self) -> str:
        """What it would be offered as."""
        return self.tool.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A tool that is not offered as things are, and keeps its name nevertheless: another server's
    must not come to stand where people and policies know this one."""

    server: str
    listed: str
    name: str
    claim: Claim = Claim.PREFIXED


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged:
    """What is offered, sorted by name, and why each other candidate is not, by server and name."""

    tools: tuple[Tool, ...]
    refused: Mapping[tuple[str, str], str]


def arrange(
    commands: Sequence[Tool],
    candidates: Iterable[Candidate | Absent],
    prefixes: Mapping[str, str],
) -> Arranged:
    """Which candidates are offered beside the command tools.

    Args:
        commands: tools whose names are known to differ.
        candidates: tools of servers, each server's name and listed name once; and those that are
            not offered and keep their names.
        prefixes: by server; no two of them alike, but for empty ones.
    """
    owners = {f"{skeleton(prefix)}_": name for name, prefix in prefixes.items() if prefix}
    taken: dict[Skeleton, str] = {skeleton(tool.name): tool.name for tool in commands}
    refused: dict[tuple[str, str], str] = {}
    groups: dict[Skeleton, list[Candidate | Absent]] = defaultdict(list)
    for each in candidates:
        shape = skeleton(each.name)
        owner = _owner(shape, owners)
        if shape in taken:
            refused[_key(each)] = f"its name is that of the command tool {taken[shape]}, or alike"
        elif each.claim is Claim.PREFIXED and owner not in (None, each.server):
            refused[_key(each)] = f"its name stands behind the prefix of the server {owner}"
        else:
            groups[shape].append(each)
    offered = list(commands)
    for group in groups.values():
        best = max(each.claim for each in group)
        first = [each for each in group if each.claim is best]
        if len(first) == 1 and isinstance(first[0], Candidate):
            offered.append(first[0].tool)
        for each in group:
            if len(first) > 1 or each is not first[0]:
                refused[_key(each)] = _alike(each, group)
    offered.sort(key=lambda tool: tool.name)
    return Arranged(tools=tuple(offered), refused=refused)


def _owner(shape: str, owners: Mapping[str, str]) -> str | None:
    """The server with the longest prefix that a name stands behind; a prompt's as a tool's."""
    shape = Skeleton(shape.removeprefix(PROMPT))
    end = len(shape)
    while (end := shape.rfind("_", 0, end)) >= 0:
        if (owner := owners.get(shape[: end + 1])) is not None:
            return owner
    return None


def _key(candidate: Candidate | Absent) -> tuple[str, str]:
    return candidate.server, candidate.listed


def _alike(one: Candidate | Absent, group: Sequence[Candidate | Absent]) -> str:
    others = [f"{each.name} of {each.server}" for each in group if each is not one]
    more = "" if len(others) <= 3 else f" and {len(others) - 3} more"
    return f"its name is the same as, or looks like, {', '.join(sorted(others)[:3])}{more}"


class WholeCatalog:
    """Tools by exact name; implements `ports.Catalog`. What it holds is put there as one.

    Args:
        tools: sorted by name, each name once; what is no tool but asked for like one, too.
    """

    def __init__(self, tools: tuple[Tool, ...] = ()) -> None:
        self._hold(tools)

    def _hold(self, tools: tuple[Tool, ...]) -> None:
        by_name = {tool.name: tool for tool in tools}
        called = tuple(tool for tool in tools if tool.method is Method.TOOLS_CALL)
        others = tuple(tool for tool in tools if tool.method is not Method.TOOLS_CALL)
        self._every = tools
        self._held = (called, others, by_name)

    def put(self, tools: tuple[Tool, ...]) -> bool:
        """Hold these tools from now on; whether they are others than before."""
        if tools == self._every:
            return False
        self._hold(tools)
        return True

    def tool(self, name: str) -> Tool | None:
        return self._held[2].get(name)

    def tools(self) -> Sequence[Tool]:
        return self._held[0]

    def others(self) -> Sequence[Tool]:
        return self._held[1]


_: type[Catalog] = WholeCatalog
