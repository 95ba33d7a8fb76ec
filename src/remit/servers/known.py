"""All that is known of one server, and what operators are told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.errors import ConfigError
from remit.model import Health, Noticed, PartDifference, ServerStatus, Tool, ToolState, ToolStatus
from remit.servers.asking import Listing, Silent
from remit.servers.catalog import Absent, Candidate, Claim
from remit.servers.judging import Aside, Judged
from remit.servers.pins import FIRST_SIGHT, Pinned
from remit.servers.tools import ServerTools
from remit.upstreams.pins import changes
from remit.visible import shown, visible


class Known:
    """One server: what was accepted, how it was last, and its tools as they can be offered.

    Args:
        tools: makes tools of its definitions.
        pinned: what was kept of it.
        book: the name under which it is kept; the server's where it is not said.
    """

    def __init__(
        self, tools: ServerTools, pinned: Mapping[str, Pinned], book: str | None = None
    ) -> None:
        self.tools = tools
        self.book = tools.spec.name if book is None else book
        self.pinned = pinned
        self.listed: Sequence[Mapping[str, Any]] | None = None
        """The last list that was judged, as the server sent it."""
        self._asides: Mapping[str, Aside] = {}
        self._built: dict[str, tuple[str, Tool | str]] = {}
        self._health, self._why = Health.UNSEEN, ""
        self._seen_ms: int | None = None
        self._listing = Listing(items=())
        self._noticed: dict[str, Noticed] = {}
        self._told_of: tuple[object, object, object] = (None, None, None)
        self._all_told: list[ToolStatus] = []

    # ----------------------------------------------------------------------------- what was learnt

    def answered(self, now_ms: int, listing: Listing | None = None) -> None:
        """It gave a list of its tools, of which nothing has been judged yet."""
        self._health, self._why, self._seen_ms = Health.READY, "", now_ms
        self._listing = listing or self._listing

    def silent(self, silent: Silent) -> None:
        """It gave none."""
        self._health, self._why = silent.health, silent.why

    def judged(
        self,
        items: Sequence[Mapping[str, Any]],
        judged: Judged,
        noticed: Noticed,
        *,
        whole: bool = True,
    ) -> None:
        """A list of it was judged, which came to be known by these means; `whole` as of `judge`."""
        other = [name for name, one in judged.pinned.items() if one != self.pinned.get(name)]
        other += [name for name, one in judged.asides.items() if one != self._asides.get(name)]
        self._noticed |= {shown(name): noticed for name in other}
        asides = dict(judged.asides)
        if not whole:
            listed = {shown(str(item.get("name"))) for item in items}
            asides |= {name: one for name, one in self._asides.items() if name not in listed}
        self.listed, self.pinned, self._asides = items, judged.pinned, asides

    # ------------------------------------------------------------------------------ what is offered

    def candidates(self) -> Iterator[Candidate | Absent]:
        """The tools that would be offered if there were no others; and those that keep their names
        though they are not offered: what was accepted once, what the operator gave an alias, and
        what they wrote of a server without a prefix."""
        server = self.tools.spec.name
        for name, one in self.pinned.items():
            claim = _claim(self.tools.said(name).alias)
            tool = self._tool(one) if self._kept_back(one) is None else None
            if isinstance(tool, Tool):
                yield Candidate(server=server, listed=name, tool=tool, claim=claim)
            elif self._keeps_name(one):
                offered_as = self.tools.offered_as(name)
                yield Absent(server=server, listed=name, name=offered_as, claim=claim)
        for name in (each.name for each in self.tools.spec.tools if each.name not in self.pinned):
            alias, bare = self.tools.said(name).alias, self.tools.spec.prefix == ""
            if (alias or bare) and not self.tools.hidden(name):
                claim, offered_as = _claim(alias), self.tools.offered_as(name)
                yield Absent(server=server, listed=name, name=offered_as, claim=claim)

    def _keeps_name(self, one: Pinned) -> bool:
        """Whether no other tool may be called by the name of this one, which is not offered."""
        if self.tools.hidden(one.name):
            return False
        return one.accepted is not None or bool(self.tools.said(one.name).alias)

    def _tool(self, one: Pinned) -> Tool | str:
        """The tool of an accepted definition, or why it cannot be one; made once."""
        assert one.accepted is not None
        definition = one.accepted.definition
        built = self._built.get(one.name)
        if built is None or built[0] != definition.digest:
            try:
                made: Tool | str = self.tools.tool(definition)
            except ConfigError as error:
                hint = "" if error.hint is None else f" ({error.hint})"
                made = f"it does not fit what is said of it: {error.message}{hint}"
            built = self._built[one.name] = (definition.digest, made)
        return built[1]

    def _kept_back(self, one: Pinned) -> Aside | None:
        """Why a tool that is known is not offered, whatever its name; None if it could be."""
        if self.tools.hidden(one.name):
            return Aside(state=ToolState.HIDDEN, why="the operator does not offer it")
        aside = self._asides.get(shown(one.name))
        if one.held:
            return Aside(state=ToolState.CHANGED, why=_changed(one, aside))
        if aside is not None:
            return aside
        seen = one.accepted or one.last
        if seen is not None and seen.fault is not None:
            return Aside(state=ToolState.UNUSABLE, why=seen.fault)
        if one.accepted is None:
            return Aside(state=ToolState.NEW, why="something in it is odd; nobody has accepted it")
        return None

    # ---------------------------------------------------------------------------- what people see

    def all_told(self, refused: Mapping[tuple[str, str], str]) -> list[ToolStatus]:
        """Each of its tools as operators see it; worked out anew once something else is known."""
        of = (self.pinned, self._asides, refused)
        if any(one is not other for one, other in zip(self._told_of, of, strict=True)):
            told = [self.told(one, refused) for one in self.pinned.values()]
            known = {shown(name) for name in self.pinned}
            asides = ((name, one) for name, one in self._asides.items() if name not in known)
            told += [self._status(name, aside) for name, aside in asides]
            self._told_of, self._all_told = of, told
        return list(self._all_told)

    def status(
        self, refused: Mapping[tuple[str, str], str], beside: Sequence[ToolStatus] = ()
    ) -> ServerStatus:
        """The server as operators see it.

        Args:
            refused: why candidates are not offered, by server and name.
            beside: what else it offers.
        """
        spec = self.tools.spec
        told = [*self.all_told(refused), *beside]
        return ServerStatus(
            name=spec.name,
            transport="stdio" if spec.command else "sse" if spec.sse else "http",
            address=spec.command.argv[0] if spec.command else spec.url or "",
            mode=spec.mode.value,
            session=spec.session,
            health=self._health,
            why=self._why or None,
            seen_ms=self._seen_ms,
            revision=self._listing.revision,
            claimed_name=self._listing.claimed_name,
            claimed_version=self._listing.claimed_version,
            tools=tuple(sorted(told, key=lambda each: each.name)),
        )

    def told(self, one: Pinned, refused: Mapping[tuple[str, str], str]) -> ToolStatus:
        """One tool as operators see it."""
        aside = self._kept_back(one)
        if aside is None:
            tool = self._tool(one)
            why = refused.get((self.tools.spec.name, one.name))
            if isinstance(tool, str):
                aside = Aside(state=ToolState.UNUSABLE, why=tool)
            elif why is not None:
                aside = Aside(state=ToolState.COLLIDES, why=why)
            else:
                aside = Aside(state=ToolState.OFFERED, why=_offered(one))
        return self._status(one.name, aside, one)

    def _status(self, name: str, aside: Aside, one: Pinned | None = None) -> ToolStatus:
        seen = None if one is None else one.seen
        accepted = None if one is None else one.accepted
        return ToolStatus(
            server=self.tools.spec.name,
            name=shown(name),
            offered_as=shown(self.tools.offered_as(name)),
            state=aside.state,
            digest=None if seen is None else seen.definition.digest,
            accepted=None if accepted is None else accepted.definition.digest,
            suspicions=() if seen is None else seen.signs,
            why=aside.why or None,
            noticed=self._noticed.get(shown(name)),
        )


def differences_of(one: Pinned) -> Sequence[PartDifference]:
    """See `ports.Servers.differences`."""
    old = None if one.accepted is None else one.accepted.definition
    new = None if one.seen is None else one.seen.definition
    if new is None:
        return ()
    if old is None:
        return [
            PartDifference(part=part, diff="\n".join(f"+{line}" for line in _lines(value)))
            for part, value in new.parts().items()
        ]
    return [PartDifference(part=each.part, diff=each.diff) for each in changes(old, new)]


def _lines(value: Any) -> list[str]:
    """A part of a definition as lines that are safe to look at."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return [visible(line) for line in text.splitlines()] or [""]


def _claim(alias: str | None) -> Claim:
    return Claim.PREFIXED if alias is None else Claim.ALIAS


def _changed(one: Pinned, aside: Aside | None) -> str:
    if aside is not None:
        return f"it is not what was accepted: {aside.why}"
    if one.last is not None and one.last == one.accepted:
        return "it was another for a while, and is again what was accepted"
    return "it is not what was accepted"


def _offered(one: Pinned) -> str:
    assert one.accepted is not None
    said = [] if one.accepted_by != FIRST_SIGHT else ["accepted at first sight"]
    if one.accepted.unchecked:
        said.append(f"the server alone checks {', '.join(one.accepted.unchecked[:3])}")
    return "; ".join(said)
