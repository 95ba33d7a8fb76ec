"""What was accepted of each server's tools, kept as one JSON file a server.

`<directory>/<server>.json` holds every definition that was accepted, whole, and beside it the one
last seen where that is another. A file that is not exactly as it was written is an error and no
guess: a pin that could be lost silently would let a server say something new for the old.

The first line names a digest of all that follows. Where it is right, nothing else is looked at
twice: with thousands of definitions, reading each as if a server had just sent it, and working out
its digest, would be most of the gateway's start. Files from before there was such a line are read
so. Neither is a defence against who can write the file, which is the gateway's alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit import canonical
from remit.errors import Code, ConfigError, RemitError
from remit.model import ToolSign
from remit.servers.sighting import Sighting
from remit.upstreams.definitions import Definition, definition_of, read_definition

SCHEMA = "remit.pins/2"
"""Another one whenever definitions are read otherwise than before: what was kept under an older one
is read like something new."""
UNSEALED = "remit.pins/1"
MAX_BYTES = 256 * 1024 * 1024
FIRST_SIGHT = "first sight"
"""Who accepted a definition that nobody looked at, because nothing was odd about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """One tool of a server: what was accepted, and what was seen last where that is not it.

    `held`: it is not offered until someone accepts what was seen last.
    """

    name: str
    accepted: Sighting | None = None
    accepted_by: str = ""
    accepted_ms: int = 0
    last: Sighting | None = None
    held: bool = False

    @property
    def seen(self) -> Sighting | None:
        """What was seen last; the accepted one, unless something else was."""
        return self.last or (None if self.held else self.accepted)


class PinStore:
    """The files of all servers, in a directory of the gateway's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, server: str) -> dict[str, Pinned]:
        """What was kept of a server, by the tools' names; nothing if it was never seen.

        Raises:
            ConfigError: `catalog_invalid`: the file cannot be read, or is not as it was written.
        """
        path = self._path(server)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _damaged(path, f"cannot be read: {error.strerror}") from None
        try:
            kept = _sealed(server, text)
            found = _unsealed(server, text) if kept is None else kept
        except (RemitError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise _damaged(path, "is not as it was written") from None
        by_name = {each.name: each for each in found}
        if len(by_name) != len(found):
            raise _damaged(path, "has one tool twice")
        return by_name

    def write(self, server: str, tools: Mapping[str, Pinned]) -> None:
        """Keep this and nothing else of a server; durable on return, or as it was before.

        Raises:
            OSError: it could not be written.
        """
        facts = {"server": server, "tools": [_facts(tools[name]) for name in sorted(tools)]}
        # No indentation: in what is deeply nested it would be many times the text itself.
        body = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        text = _seal(body) + body
        put_down(self._path(server), text)

    def _path(self, server: str) -> Path:
        return self.directory / f"{server}.json"


def _seal(body: bytes) -> bytes:
    """The first line of a file with this body."""
    digest = hashlib.sha256(body).hexdigest()
    return b'{"schema":"%s","sha256":"%s"}\n' % (SCHEMA.encode(), digest.encode())


def put_down(path: Path, text: bytes) -> None:
    """Write a file whole; durable on return, or as it was before.

    Raises:
        OSError: it could not be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o600), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _facts(pinned: Pinned) -> dict[str, Any]:
    return {
        "name": pinned.name,
        "held": pinned.held,
        "accepted_by": pinned.accepted_by,
        "accepted_ms": pinned.accepted_ms,
        "accepted": _sighting_facts(pinned.accepted),
        "last": _sighting_facts(pinned.last),
    }


def _sighting_facts(sighting: Sighting | None) -> dict[str, Any] | None:
    if sighting is None:
        return None
    return {
        "digest": sighting.definition.digest,
        "fault": sighting.fault,
        "unchecked": list(sighting.unchecked),
        "signs": [[each.sign, each.place, each.excerpt] for each in sighting.signs],
        "definition": sighting.definition.texts(),
    }


# ----------------------------------------------------------------------- a file that names its digest


def _sealed(server: str, text: bytes) -> list[Pinned] | None:
    """What is in a file that is byte for byte as it was written; None if that is not known of it."""
    body = text[text.find(b"\n") + 1 :]
    if not text.startswith(_seal(body)):
        return None
    facts = json.loads(body)
    _check(facts["server"] == server)
    return [_kept(server, each) for each in facts["tools"]]


def _kept(server: str, facts: dict[str, Any]) -> Pinned:
    return Pinned(
        name=facts["name"],
        accepted=_kept_sighting(server, facts["accepted"]),
        accepted_by=facts["accepted_by"],
        accepted_ms=facts["accepted_ms"],
        last=_kept_sighting(server, facts["last"]),
        held=facts["held"],
    )


def _kept_sighting(server: str, facts: dict[str, Any] | None) -> Sighting | None:
    if facts is None:
        return None
    definition = definition_of(server, facts["definition"], facts["digest"])
    return _sighting(definition, facts)


# ----------------------------------------------------------------------------- a file from before that


def _unsealed(server: str, text: bytes) -> list[Pinned]:
    facts = canonical.parse(text, max_depth=80, max_bytes=MAX_BYTES)
    _check(facts.keys() == {"schema", "server", "tools"})
    _check(facts["schema"] == UNSEALED and facts["server"] == server)
    return [_read(server, each) for each in _typed(facts["tools"], list)]


_KEYS = frozenset({"name", "held", "accepted_by", "accepted_ms", "accepted", "last"})
_SIGHTING_KEYS = frozenset({"digest", "fault", "unchecked", "signs", "definition"})


def _read(server: str, facts: dict[str, Any]) -> Pinned:
    _check(facts.keys() == _KEYS and type(facts["held"]) is bool)
    name = _typed(facts["name"], str)
    accepted, last = (_read_sighting(server, name, facts[key]) for key in ("accepted", "last"))
    return Pinned(
        name=name,
        accepted=accepted,
        accepted_by=_typed(facts["accepted_by"], str),
        accepted_ms=_typed(facts["accepted_ms"], int),
        last=last,
        held=facts["held"],
    )


def _read_sighting(server: str, name: str, facts: Any) -> Sighting | None:
    if facts is None:
        return None
    _check(facts.keys() == _SIGHTING_KEYS)
    definition = read_definition(server, facts["definition"])
    _check(definition.name == name and definition.digest == facts["digest"])
    return _sighting(definition, facts)


def _sighting(definition: Definition, facts: dict[str, Any]) -> Sighting:
    fault = facts["fault"]
    return Sighting(
        definition=definition,
        signs=tuple(
            ToolSign(sign=_typed(sign, str), place=_typed(place, str), excerpt=_typed(text, str))
            for sign, place, text in facts["signs"]
        ),
        fault=None if fault is None else _typed(fault, str),
        unchecked=tuple(_typed(each, str) for each in facts["unchecked"]),
    )


def _typed(value: Any, kind: type) -> Any:
    _check(type(value) is kind)
    return value


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(
        Code.CATALOG_INVALID,
        f"the file of accepted tools {why}",
        place=str(path),
        hint="put it back from a backup; or move it away, and look at every tool of this server "
        "as if it were new",
    )
