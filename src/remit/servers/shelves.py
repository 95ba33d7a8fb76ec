"""The resources that servers listed last: data that changes, kept as it was seen and when.

What can be read is what was listed, or stands in a listed template; and only where no other server
lists it or covers it too, because of two servers nobody could say whose words it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from remit import canonical
from remit.catalog.server_spec import Beside, ServerSpec
from remit.errors import InputError, RemitError
from remit.model import Frozen, Method, ResourceLists, Tool, ToolState, ToolStatus
from remit.servers.announced import Announced
from remit.servers.beside import ServerMethods
from remit.servers.owners import Owners
from remit.servers.pins import MAX_BYTES, put_down
from remit.telemetry import logger
from remit.upstreams.lists import Words
from remit.upstreams.notices import SUBSCRIBE
from remit.upstreams.templates import MAX_URI, Template
from remit.visible import shown, visible

SCHEMA = "remit.resources/1"
MAX_RESOURCES = 10_000
MAX_TEMPLATES = 200
MAX_EXPRESSIONS = 300
"""Expressions in all templates of a server: each read is held against them, a millisecond each where
the URI is long and made for it."""
MAX_TEXT = 4_096
"""Characters of a name, title or description; an item with a longer one is left out."""
MAX_WHOSE = 4_096
"""Of how many URIs it is kept whose they are; what is subscribed to is asked about often."""
SAID = 5
"""How many URIs that are refused are named to operators."""

_TEXTS = ("name", "title", "description", "mimeType")

log = logger()


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What one server listed: items by URI or template, sorted; `left_out` counts those that no
    client could be given. `has` says whether it has resources at all."""

    seen_ms: int
    has: bool = False
    completes: bool = False
    left_out: int = 0
    resources: Mapping[str, Frozen] = field(default_factory=dict)
    templates: Mapping[str, Frozen] = field(default_factory=dict)

    @cached_property
    def patterns(self) -> Sequence[Template]:
        """The templates, to hold URIs against."""
        return [Template(each) for each in self.templates]

    def covers(self, uri: str) -> bool:
        """Whether it is listed, or one of a template's."""
        return uri in self.resources or any(each.covers(uri) for each in self.patterns)


def shelf_of(words: Words, now_ms: int) -> Shelf:
    """What of a server's lists is passed on."""
    resources = _items(words.resources or (), "uri", MAX_RESOURCES)
    templates = _items(words.templates, "uriTemplate", MAX_TEMPLATES)
    listed = len(words.resources or ()) + len(words.templates)
    return Shelf(
        seen_ms=now_ms,
        has=words.resources is not None,
        completes=words.completes,
        left_out=listed - len(resources) - len(templates),
        resources=resources,
        templates=templates,
    )


def _items(items: Iterable[Mapping[str, Any]], key: str, most: int) -> dict[str, Frozen]:
    found: dict[str, Frozen] = {}
    left = MAX_EXPRESSIONS
    for item in items:
        made = _item(item, key)
        if made is not None and len(found) < most:
            left -= Template(item[key]).expressions if key == "uriTemplate" else 0
            if left < 0:
                break
            found[item[key]] = made
    return dict(sorted(found.items()))


def _item(item: Mapping[str, Any], key: str) -> Frozen | None:
    """The item with the members that MCP gives it, icons and `_meta` aside; None if it cannot be
    passed on."""
    uri, name = item.get(key), item.get("name")
    if not isinstance(uri, str) or len(uri) > MAX_URI or visible(uri) != uri or " " in uri:
        return None
    if not isinstance(name, str):
        return None
    made: dict[str, Any] = {key: uri}
    for part in _TEXTS:
        text = item.get(part)
        if text is None:
            continue
        if not isinstance(text, str) or len(text) > MAX_TEXT or visible(text, keep="\n") != text:
            return None
        made[part] = text
    if type(item.get("size")) is int and 0 <= item["size"] < 2**53:
        made["size"] = item["size"]
    try:
        if key == "uriTemplate":
            Template(uri)
        return Frozen(canonical.encode(made))
    except InputError:
        return None


class ShelfStore:
    """The files of all servers, beside what was accepted of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, server: str) -> Shelf | None:
        """What was kept; None where nothing was, or where it is not as it was written."""
        try:
            text = self._path(server).read_bytes()
            facts = canonical.parse(text, max_depth=20, max_bytes=MAX_BYTES)
            if facts["schema"] != SCHEMA or facts["server"] != server:
                raise ValueError
            return Shelf(
                seen_ms=int(facts["seen_ms"]),
                has=facts["has"] is True,
                completes=facts["completes"] is True,
                left_out=int(facts["left_out"]),
                resources=_items(facts["resources"], "uri", MAX_RESOURCES),
                templates=_items(facts["templates"], "uriTemplate", MAX_TEMPLATES),
            )
        except FileNotFoundError:
            return None
        except (OSError, RemitError, ValueError, TypeError, KeyError, AttributeError):
            log.warning("resources_not_read", server=server, hint="the server is asked again")
            return None

    def write(self, server: str, shelf: Shelf) -> None:
        """Keep this and nothing else of a server; durable on return, or as it was before.

        Raises:
            OSError: it could not be written.
        """
        facts = {
            "schema": SCHEMA,
            "server": server,
            "seen_ms": shelf.seen_ms,
            "has": shelf.has,
            "completes": shelf.completes,
            "left_out": shelf.left_out,
            "resources": [each.value() for each in shelf.resources.values()],
            "templates": [each.value() for each in shelf.templates.values()],
        }
        put_down(self._path(server), json.dumps(facts, ensure_ascii=False).encode() + b"\n")

    def _path(self, server: str) -> Path:
        return self._directory / f"{server}.resources.json"


class Shelves:
    """The shelves of all servers that offer anything beside tools.

    Args:
        specs: what the operator says of each.
        store: what was seen before.
        announced: what each says that it tells by itself.
    """

    def __init__(
        self, specs: Iterable[ServerSpec], store: ShelfStore, announced: Announced
    ) -> None:
        self._store = store
        self._announced = announced
        self._methods = {
            spec.name: ServerMethods(spec)
            for spec in specs
            if Beside.OFFER in (spec.resources, spec.prompts)
        }
        self._held = {name: store.read(name) for name in self._methods}
        self._owners = Owners()
        for name, each in self._held.items():
            if each is not None:
                self._owners.put(name, each.resources, each.templates)
        self._arrange()

    def unseen(self, server: str) -> bool:
        """Whether its lists are wanted and were never had, or what it tells of them is not known."""
        unknown = self._held.get(server) is None or self._announced.unknown(server)
        return server in self._held and unknown

    def take(self, server: str, words: Words, now_ms: int) -> bool:
        """It listed this; kept on disk if that can be. Whether it is another than before.

        Call in a thread of its own: it looks at each of many items.
        """
        if server not in self._held:
            return False
        found = shelf_of(words, now_ms)
        try:
            self._store.write(server, found)
        except OSError as error:
            log.error("resources_not_kept", server=server, error=error.strerror)  # noqa: TRY400 - a trace says nothing
        before, self._held[server] = self._held[server], found
        self._owners.put(server, found.resources, found.templates)
        self._arrange()
        return before is None or replace(before, seen_ms=now_ms) != found

    def _arrange(self) -> None:
        """Find the URIs that two servers have."""
        self._twice = self._owners.twice()
        self._lists = self._listed()
        self._whose: dict[str, str | None] = {}

    def reader(self, uri: str) -> str | None:
        """See `ports.Servers.reader`."""
        name = self._owner(uri)
        return None if name is None else self._methods[name].offered_as(Method.RESOURCES_READ)

    def watcher(self, uri: str) -> str | None:
        """See `ports.Servers.watcher`."""
        name = self._owner(uri)
        if name is None or not self._tells(name):
            return None
        return self._methods[name].offered_as(Method.RESOURCES_SUBSCRIBE)

    def _owner(self, uri: str) -> str | None:
        """The one server that has it; found once for as long as the lists are these."""
        known = self._whose
        if uri in known:
            return known[uri]
        found = [name for name, each in self._held.items() if each and each.covers(uri)]
        owner = found[0] if len(found) == 1 else None
        if len(known) >= MAX_WHOSE:
            known.clear()
        if len(uri) <= MAX_URI:
            known[uri] = owner
        return owner

    def _tells(self, name: str) -> bool:
        """Whether a server says that it tells of changes of resources."""
        each = self._held[name]
        return each is not None and each.has and SUBSCRIBE in self._announced.of(name)

    def resources(self) -> Sequence[ResourceLists]:
        """See `ports.Servers.resources`."""
        return self._lists

    def _listed(self) -> Sequence[ResourceLists]:
        return [
            ResourceLists(
                server=name,
                reader=self._methods[name].offered_as(Method.RESOURCES_READ),
                seen_ms=each.seen_ms,
                resources=tuple(
                    (uri, item) for uri, item in each.resources.items() if uri not in self._twice
                ),
                templates=tuple(
                    (text, item) for text, item in each.templates.items() if text not in self._twice
                ),
                refused=self._refused(each),
            )
            for name, each in self._held.items()
            if each is not None and each.has
        ]

    def _refused(self, shelf: Shelf) -> tuple[str, ...]:
        every = (*shelf.resources, *shelf.templates)
        return tuple(uri for uri in every if uri in self._twice)

    def entries(self) -> list[Tool]:
        """The entries of the catalog by which all this is asked for."""
        made = []
        for name, each in self._held.items():
            if each is not None and each.has:
                made.append(self._methods[name].of(Method.RESOURCES_READ))
            if self._tells(name):
                made.append(self._methods[name].of(Method.RESOURCES_SUBSCRIBE))
            if each is not None and each.completes:
                made.append(self._methods[name].of(Method.COMPLETE))
        return made

    def status(self, server: str) -> list[ToolStatus]:
        """What operators see of it, beside the server's tools."""
        each = self._held.get(server)
        if each is None:
            return []
        methods = self._methods[server]
        told = []
        if each.has:
            told.append((Method.RESOURCES_READ, _said(each, self._refused(each))))
        if self._tells(server):
            told.append((Method.RESOURCES_SUBSCRIBE, ""))
        if each.completes:
            told.append((Method.COMPLETE, ""))
        return [
            ToolStatus(
                server=server,
                name=method.value,
                offered_as=methods.offered_as(method),
                state=ToolState.OFFERED,
                why=why or None,
            )
            for method, why in told
        ]


def _said(shelf: Shelf, refused: Sequence[str]) -> str:
    said = f"{len(shelf.resources)} resources and {len(shelf.templates)} templates"
    if shelf.left_out:
        said += f"; {shelf.left_out} left out, which no client can be given"
    if refused:
        named = ", ".join(shown(uri, 120) for uri in refused[:SAID])
        more = f" and {len(refused) - SAID} more" if len(refused) > SAID else ""
        said += f"; refused, because another server has them too: {named}{more}"
    return said
