"""What a server lists, held against what was accepted of it; pure, and slow enough for a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from remit.errors import InputError
from remit.model import ToolState
from remit.servers.pins import FIRST_SIGHT, Pinned
from remit.servers.sighting import Sighting, examine
from remit.upstreams.definitions import Definition, read_definition
from remit.upstreams.names import Skeleton
from remit.visible import shown

MAX_KNOWN = 20_000
"""Tools of one server that are ever known; a server that makes up more is not believed any more."""

MAX_KEPT = 64 * 1024 * 1024
"""Bytes of definitions of one server that are kept; more of them could not be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Why a tool is not offered as things are listed now; forgotten with the next list."""

    state: ToolState
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is known of a server's tools after a list of it."""

    pinned: Mapping[str, Pinned]
    """What has to be kept."""
    asides: Mapping[str, Aside] = field(default_factory=dict)
    """By name as listed, made safe to show."""
    held: tuple[str, ...] = ()
    """The tools that were put into quarantine by this list."""
    fresh: tuple[str, ...] = ()
    """The tools that were seen for the first time."""


def judge(
    server: str,
    known: Mapping[str, Pinned],
    items: Sequence[Mapping[str, Any]],
    *,
    others: AbstractSet[Skeleton],
    now_ms: int,
    whole: bool = True,
) -> Judged:
    """Hold a whole list of a server against what is known of it.

    A definition that is not the accepted one puts the tool into quarantine for good: even if the
    server goes back to the accepted one, someone has to look. One that is seen for the first time
    is accepted by itself, unless something in it is odd or it cannot be used.

    Args:
        items: the list as the server sent it.
        others: names of tools that a description could speak of.
        whole: whether what is missing in it is gone; a server may list less for one caller than for
            another (MCP 2026-07-28), so of a list that was read with a call's credential it is not
            said.
    """
    judging = _Judging(server, known, others, now_ms)
    counted = Counter(str(item.get("name")) for item in items)
    for position, item in enumerate(items):
        name = str(item.get("name"))
        if counted[name] > 1:
            why = f"the server lists {counted[name]} tools of this name"
            judging.put_aside(name, ToolState.REPEATED, why)
        else:
            judging.take(name, item, position)
    for name in known.keys() - counted.keys() if whole else ():
        judging.put_aside(name, ToolState.GONE, "the server does not list it any more")
    return Judged(
        pinned=judging.pinned,
        asides=judging.asides,
        held=tuple(judging.held),
        fresh=tuple(judging.fresh),
    )


class _Judging:
    """One list of one server, item by item."""

    def __init__(
        self,
        server: str,
        known: Mapping[str, Pinned],
        others: AbstractSet[Skeleton],
        now_ms: int,
    ) -> None:
        self._server = server
        self._others = others
        self._now_ms = now_ms
        self.pinned = dict(known)
        self.asides: dict[str, Aside] = {}
        self.held: list[str] = []
        self.fresh: list[str] = []
        self._kept = sum(_size(one) for one in known.values())

    def put_aside(self, name: str, state: ToolState, why: str) -> None:
        self.asides[shown(name)] = Aside(state=state, why=why)

    def take(self, name: str, item: Mapping[str, Any], position: int) -> None:
        one = self.pinned.get(name)
        try:
            definition = read_definition(self._server, item, position=position)
        except InputError as fault:
            why = f"its definition cannot be read: {fault.message} ({fault.place})"
            self.put_aside(name, ToolState.UNUSABLE, why)
            if one is not None:
                self._keep(one, replace(one, held=True, last=None))
            return
        if one is not None:
            now = _again(one, definition, self._others)
            if not self._fits(one, now):
                self.put_aside(name, ToolState.UNUSABLE, _TOO_MUCH)
                now = replace(one, held=one.accepted is not None, last=None)
            self._keep(one, now)
        elif len(self.pinned) >= MAX_KNOWN:
            why = f"the server has listed more than {MAX_KNOWN} tools"
            self.put_aside(name, ToolState.UNUSABLE, why)
        else:
            first = _first(name, examine(definition, self._others), self._now_ms)
            if self._fits(None, first):
                self.fresh.append(name)
                self.pinned[name] = first
            else:
                self.put_aside(name, ToolState.UNUSABLE, _TOO_MUCH)

    def _fits(self, before: Pinned | None, now: Pinned) -> bool:
        """Whether there is room to keep it, which it then takes."""
        kept = self._kept - (0 if before is None else _size(before)) + _size(now)
        if kept > MAX_KEPT and now != before:
            return False
        self._kept = kept
        return True

    def _keep(self, before: Pinned, now: Pinned) -> None:
        self.pinned[now.name] = now
        if now.held and not before.held:
            self.held.append(now.name)


_TOO_MUCH = f"the server has listed more than {MAX_KEPT // 2**20} MiB of definitions"


def _size(one: Pinned) -> int:
    """Bytes that it takes in the file at most, but for a few."""
    return sum(_sighting_size(each) for each in (one.accepted, one.last) if each is not None)


def _sighting_size(seen: Sighting) -> int:
    definition = seen.definition
    schemas = (definition.input_schema, definition.output_schema, definition.annotations)
    written = [each.text for each in schemas if each is not None]
    said = [definition.title or "", definition.description or "", seen.fault or ""]
    said += [text for each in seen.signs for text in (each.sign, each.place, each.excerpt)]
    # A character is four bytes of UTF-8 at most, and six of an escape where it is not written yet.
    return sum(len(each) * (1 if each.isascii() else 4) for each in written) + 6 * sum(
        len(each) for each in (*said, *seen.unchecked)
    )


def _first(name: str, sighting: Sighting, now_ms: int) -> Pinned:
    if sighting.signs or sighting.fault is not None:
        return Pinned(name=name, last=sighting)
    return Pinned(name=name, accepted=sighting, accepted_by=FIRST_SIGHT, accepted_ms=now_ms)


def _again(one: Pinned, definition: Definition, others: AbstractSet[Skeleton]) -> Pinned:
    """A tool that was seen before; nothing is examined twice."""
    if one.seen is not None and one.seen.definition.digest == definition.digest:
        return one
    if one.accepted is None:
        return replace(one, last=examine(definition, others))
    if one.accepted.definition.digest != definition.digest:
        return replace(one, held=True, last=examine(definition, others))
    return replace(one, last=one.accepted)
