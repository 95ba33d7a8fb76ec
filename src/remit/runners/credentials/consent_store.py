"""What people gave, as the keeper has it: one sealed record for each handle and principal.

A record says itself whose it is, and its name is made of that, so that one person's record put in
another's place is none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from remit.model import Consent, Principal
from remit.runners.credentials.broker import Sealed

_LISTS = ("scopes", "asked", "wanted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One consent with its tokens.

    `serial` is new with each consent, `bound` a digest over what of the section it was given for.
    `client` is who Remit is at that server. `wanted` are scopes that the server asked for at a call
    since; `asked` those that the person was asked for last. `got_ms` is when the access token was
    got, `forced` that the one before it had been refused. `tries_ms` are times of steps up.
    """

    ref: str
    tenant: str
    subject: str
    serial: str
    bound: str
    issuer: str | None
    token_url: str
    revocation_url: str | None
    resource: str
    client: Mapping[str, Any] = field(repr=False)
    scopes: tuple[str, ...]
    asked: tuple[str, ...]
    given_ms: int
    got_ms: int
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_ms: int | None = None
    wanted: tuple[str, ...] = ()
    forced: bool = False
    tries_ms: tuple[int, ...] = ()

    @property
    def principal(self) -> Principal:
        return Principal(tenant=self.tenant, subject=self.subject)

    @property
    def consent(self) -> Consent:
        """What of it may be told."""
        renewable = self.refresh_token is not None
        return Consent(
            ref=self.ref,
            principal=self.principal,
            scopes=self.scopes,
            given_ms=self.given_ms,
            expires_ms=None if renewable else self.expires_ms,
            renewable=renewable,
        )


class ConsentStore:
    """The records of one handle; each change is durable when it returns.

    Args:
        ref: the handle.
        sealed: where they are kept, with those of other handles.
    """

    def __init__(self, ref: str, sealed: Sealed) -> None:
        self._ref = ref
        self._sealed = sealed
        self._all: dict[Principal, Given] = {}
        for name in sealed.names():
            given = _read(sealed.read(name))
            if given is not None and given.ref == ref and name == _name(ref, given.principal):
                self._all[given.principal] = given

    def __iter__(self) -> Iterator[Given]:
        return iter(tuple(self._all.values()))

    def get(self, principal: Principal) -> Given | None:
        return self._all.get(principal)

    def put(self, given: Given) -> None:
        """Keep it in place of what was there."""
        self._sealed.write(_name(self._ref, given.principal), dataclasses.asdict(given))
        self._all[given.principal] = given

    def remove(self, principal: Principal) -> None:
        self._all.pop(principal, None)
        self._sealed.remove(_name(self._ref, principal))


def _name(ref: str, principal: Principal) -> str:
    whose = json.dumps(["consent", ref, principal.tenant, principal.subject])
    return hashlib.sha256(whose.encode()).hexdigest()


def _read(facts: Mapping[str, Any] | None) -> Given | None:
    if facts is None:
        return None
    lists = {name: tuple(map(str, facts.get(name, ()))) for name in _LISTS}
    tries = tuple(map(int, facts.get("tries_ms", ())))
    try:
        return Given(**{**facts, **lists, "tries_ms": tries})
    except TypeError:
        return None  # of another kind, or of a version that had other members
