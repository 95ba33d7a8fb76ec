"""API keys: tokens that Remit made, known to it only by their hash.

A token is `remit_<id>_<secret>`, where the secret is 32 random bytes in base64url. What is stored
is SHA-256 of the whole token: with 256 random bits there is nothing to guess, so no slow hash is
needed. Callers' keys and operators' keys are two separate tables; a token is looked for in one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from remit.errors import Code, ConfigError, Refused
from remit.model import Caller, Operator
from remit.ports import Identity, Now

PREFIX = "remit_"
_TOKEN = re.compile(r"remit_([a-z0-9][a-z0-9-]{0,39})_[A-Za-z0-9_-]{43}")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerKey:
    """A caller's key as stored; `caller` is who holds it."""

    id: str
    sha256: str
    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorKey:
    """An operator's key as stored; `operator` is who holds it."""

    id: str
    sha256: str
    operator: Operator


Key = TypeVar("Key", CallerKey, OperatorKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made; `token` is to be shown once and never stored by Remit."""

    id: str
    token: str
    sha256: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r}, token='***')"


def new_key(key_id: str) -> NewKey:
    """Make a key from 32 bytes of the operating system's randomness.

    Args:
        key_id: its public name: 1-40 of a-z, 0-9 and -, not beginning with -.

    Raises:
        ConfigError: `config_invalid` if the id is not such a name.
    """
    if not _ID.fullmatch(key_id):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "a key's id must be 1-40 of a-z, 0-9 and -",
            hint="for example ci-bot-2",
        )
    token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    return NewKey(id=key_id, token=token, sha256=token_hash(token))


def token_hash(token: str) -> str:
    """What is stored of a token: SHA-256 as 64 hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()


class KeyIdentity:
    """Callers and operators by API key; implements `ports.Identity`.

    A refusal is the same for a token that is malformed, unknown, expired or of the other table,
    and takes the same work. Does not limit attempts: the authenticate stage does.

    Args:
        callers: the callers' keys.
        operators: the operators' keys.
        now: the time, for `key_ids`.

    Raises:
        ConfigError: `config_invalid` if two keys share an id or a hash.
    """

    def __init__(
        self, callers: Iterable[CallerKey], operators: Iterable[OperatorKey], *, now: Now
    ) -> None:
        self._callers = _table(callers)
        self._operators = _table(operators)
        self._now = now
        keys: list[CallerKey | OperatorKey] = [*self._callers.values(), *self._operators.values()]
        for what, values in (("id", [k.id for k in keys]), ("hash", [k.sha256 for k in keys])):
            if len(set(values)) < len(values):
                raise _shared(what)

    async def caller(self, bearer: str, now_ms: int) -> Caller:
        key = _find(self._callers, bearer)
        if key is None or not _valid(key.caller.expires_ms, now_ms):
            raise _unauthenticated()
        return replace(key.caller, key_id=key.id)

    async def operator(self, bearer: str, now_ms: int) -> Operator:
        key = _find(self._operators, bearer)
        if key is None or not _valid(key.operator.expires_ms, now_ms):
            raise _unauthenticated()
        return replace(key.operator, key_id=key.id)

    def key_ids(self) -> frozenset[str]:
        now_ms = self._now()
        callers = {k.id for k in self._callers.values() if _valid(k.caller.expires_ms, now_ms)}
        operators = {
            k.id for k in self._operators.values() if _valid(k.operator.expires_ms, now_ms)
        }
        return frozenset(callers | operators)

    def known(self, subject: str) -> Sequence[Caller]:
        return [
            replace(key.caller, key_id=key.id)
            for key in self._callers.values()
            if key.caller.subject == subject
        ]


def _table(keys: Iterable[Key]) -> dict[str, Key]:
    table: dict[str, Key] = {}
    for key in keys:
        if key.id in table:
            raise _shared("id")
        table[key.id] = key
    return table


def _find(table: dict[str, Key], bearer: str) -> Key | None:
    match = _TOKEN.fullmatch(bearer) if len(bearer) <= 128 else None
    key = table.get(match.group(1)) if match else None
    found = hmac.compare_digest(
        token_hash(bearer) if match else _NO_HASH, key.sha256 if key else "-" * 64
    )
    return key if found else None


def _valid(expires_ms: int | None, now_ms: int) -> bool:
    return expires_ms is None or now_ms < expires_ms


def _shared(what: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"two keys have the same {what}",
        place="identity",
        hint="make one for each with `remit config new-key`",
    )


def _unauthenticated() -> Refused:
    return Refused(
        Code.UNAUTHENTICATED,
        "a valid key is required",
        hint="send the header `Authorization: Bearer remit_…`",
    )


_: type[Identity] = KeyIdentity
