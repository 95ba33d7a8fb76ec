"""The credentials of one run: where they are put in, and how they are kept from coming back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from remit.addresses import authority, split_authority
from remit.runners.egress.heads import HOP_BY_HOP, like_a_variable
from remit.runners.egress.refusals import Refusal, Unwilling
from remit.runners.egress.rules import covers, path_key
from remit.runners.traces import Blanker, all_forms, blank

MAX_INJECTIONS = 64
MAX_SECRETS = 256
_MAX_HANDED = 4_096
_MIN_WORD = 6

_DOUBTFUL_LOCATION = re.compile(rb"(?i)///|https?:(?!//[^/])")

_FRAMING = HOP_BY_HOP | {b"host", b"content-length", b"expect"}

_DROPPED_WHILE_GUARDED = (b"accept-encoding", b"range", b"if-range", b"te")


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """A header for one exact destination; `header` in lower case."""

    ref: str
    host: str
    port: int
    header: bytes
    value: bytes = field(repr=False)
    path_prefix: str | None = None

    @property
    def place(self) -> tuple[str, ...]:
        """What it is for: the same for a value that is lent anew."""
        return self.ref, self.host, str(self.port), repr(self.path_prefix), self.header.decode()


def read_injection(facts: dict[str, Any]) -> tuple[Injection, tuple[str, ...]]:
    """One as the keeper sends it, and what has to be blanked because of it.

    Raises:
        Unwilling, ValueError, KeyError, TypeError: it is none.
    """
    place = split_authority(authority(str(facts["host"]), int(facts["port"])))
    value = str(facts["value"])
    prefix = facts.get("path_prefix")
    if place is None or not value.isprintable() or not value or value != value.strip():
        raise Unwilling("not an injection")
    header = str(facts["header"]).lower().encode("ascii")
    if header in _FRAMING or header.startswith(b"proxy-"):
        raise Unwilling("this header is not for credentials")
    injection = Injection(
        ref=str(facts["ref"]),
        host=place[0],
        port=place[1],
        header=header,
        value=value.encode("latin-1"),
        path_prefix=None if prefix is None else str(prefix),
    )
    secrets = [str(each) for each in facts["secrets"]]
    # `Basic` and the like: the last word is the secret in yet another spelling.
    secrets += [word for word in value.split()[-1:] if len(word) >= _MIN_WORD]
    return injection, tuple(secrets)


class Purse:
    """What one run was lent, until it is emptied."""

    def __init__(self) -> None:
        self._injections: tuple[Injection, ...] = ()
        self._secrets: tuple[str, ...] = ()
        self._handed: set[tuple[tuple[str, ...], bytes]] = set()
        self._spoiled = False
        self.forms: tuple[bytes, ...] = ()

    def add(self, lent: Iterable[tuple[Injection, Sequence[str]]]) -> None:
        """Raises Unwilling if it is more than a run can have; nothing is added then."""
        injections, secrets = list(self._injections), list(self._secrets)
        for injection, blanked in lent:
            injections.append(injection)
            secrets += blanked
        if len(injections) > MAX_INJECTIONS or len(secrets) > MAX_SECRETS:
            raise Unwilling("too many credentials")
        self._injections, self._secrets = tuple(injections), tuple(dict.fromkeys(secrets))
        self.forms = all_forms(self._secrets)

    def empty(self) -> None:
        """Forget the credentials. What was lent is still blanked, and what redirects named still
        gets nothing, for as long as the run lives."""
        self._injections = ()
        self._secrets = ()

    @property
    def guarded(self) -> bool:
        """Whether answers have to be looked through."""
        return bool(self.forms)

    def at(self, host: str, port: int) -> bool:
        """Whether anything is put in there."""
        return any(each.host == host and each.port == port for each in self._injections)

    def path_decides(self, host: str, port: int) -> bool:
        """Whether a path decides there what is put in."""
        return any(
            each.host == host and each.port == port and each.path_prefix is not None
            for each in self._injections
        )

    def fitting(self, host: str, port: int, path: str) -> tuple[Injection, ...]:
        """What is put into a request: of several for one header, that of the longest path.

        Nothing for a path that a redirect named which did not carry the same credential.
        """
        if self._spoiled:
            return ()
        key = path_key(path) if self._handed else b""
        chosen: dict[bytes, Injection] = {}
        for each in self._injections:
            if (each.host, each.port) != (host, port) or not covers(each.path_prefix, path):
                continue
            if (each.place, key) in self._handed:
                continue
            best = chosen.get(each.header)
            if best is None or len(each.path_prefix or "") > len(best.path_prefix or ""):
                chosen[each.header] = each
        return tuple(chosen.values())

    def headers(
        self, headers: Sequence[tuple[bytes, bytes]], host: str, port: int, put: Sequence[Injection]
    ) -> list[tuple[bytes, bytes]]:
        """A request's headers: the run's own credentials out, those of the plan in."""
        dropped = {b"authorization", *(each.header for each in put)}
        dropped |= {
            each.header for each in self._injections if (each.host, each.port) == (host, port)
        }
        if self.guarded:
            dropped.update(_DROPPED_WHILE_GUARDED)
        kept = [each for each in headers if like_a_variable(each[0]) not in dropped]
        if self.guarded:
            kept.append((b"accept-encoding", b"identity"))
        return kept + [(each.header, each.value) for each in put]

    def redirected(self, base: str, location: bytes, carried: Sequence[Injection]) -> None:
        """Remember what a redirect named, for all credentials that its own request did not carry.

        Args:
            base: the URL that was asked for.

        Raises:
            Refusal: `upstream`; where it leads cannot be told for sure.
        """
        if not self._injections:
            return
        target = where(base, location)
        if target is None:
            return
        host, port, path = target
        for each in self._injections:
            if (each.host, each.port) == (host, port) and each not in carried:
                self._handed.add((each.place, path_key(path)))
        if len(self._handed) > _MAX_HANDED:
            self._spoiled = True

    def blank(self, data: bytes) -> tuple[bytes, int]:
        return blank(data, self.forms) if self.forms else (data, 0)

    def blanker(self) -> Blanker:
        return Blanker(self.forms)


def where(base: str, location: bytes) -> tuple[str, int, str] | None:
    """Host, port and path that a Location leads to; None where that is not HTTP.

    Raises:
        Refusal: `upstream`; clients could understand it differently.
    """
    if any(not 0x21 <= byte <= 0x7E or byte == 0x5C for byte in location):
        raise Refusal("upstream")
    if _DOUBTFUL_LOCATION.match(location) is not None:
        raise Refusal("upstream")
    try:
        target = urlsplit(urljoin(base, location.decode("ascii")))
    except ValueError:
        raise Refusal("upstream") from None
    if target.scheme not in ("http", "https"):
        return None
    place = split_authority(target.netloc, 443 if target.scheme == "https" else 80)
    if place is None:
        raise Refusal("upstream")
    return place[0], place[1], target.path or "/"
