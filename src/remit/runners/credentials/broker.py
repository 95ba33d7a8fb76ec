"""What a broker is: it turns an order for one run into something that the run may use.

Brokers live in the keeper and nowhere else. Each is made from one section of `runners.credentials`
and gives what that section says, for one run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from remit.model import Actor


class BrokerFault(Exception):
    """The lending system did not give or take back; `message` holds no secret and no answer of it.

    The message goes into the run's record, so it says which step failed and how (`the login was
    refused with status 403`), never what the other side wrote.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NoConsent(BrokerFault):
    """The person on whose behalf the run acts has not consented, or not to this, or not any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked of a broker, read from the ledger: for which run, for whom, and how much.

    `loan_id` names this loan alone; a broker that can label what it makes (a session name, a
    metadata field) uses it, so that a person finds it there. `chain` names those on whose behalf
    the caller acts, the one with the original authority first. Nothing given may be usable after
    `ends_ms`, where the lending system lets that be said. `shortened`: plan or section say a life
    of its own, shorter than the run's; what is kept for several runs is not lent then. `scopes` and `audience` are the plan's;
    audience None leaves it to the section.
    """

    loan_id: str
    ref: str
    scopes: tuple[str, ...]
    audience: str | None
    ends_ms: int
    run_id: str
    fence: int
    kind: str
    plan_hash: str
    call_digest: str
    tenant: str
    subject: str
    caller_kind: str
    groups: tuple[str, ...]
    chain: tuple[Actor, ...]
    tool: str
    tool_digest: str
    effect: str
    environment: str
    approval_id: str | None = None
    approvers: tuple[str, ...] = ()
    shortened: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What a broker gives for one order.

    `fields` fill the templates of the section. `secrets` are all strings that must never leak:
    they are looked for, in all their forms, in whatever comes back from the run. `expires_ms` is
    when the lending system ends it by itself; None if it never does. `lease` is the system's own
    name for it, which is logged. `key` is what `revoke` needs beside it and nobody may see, such
    as the token itself: the keeper stores it encrypted.
    """

    fields: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    expires_ms: int | None
    lease: str | None = None
    key: str | None = field(default=None, repr=False)
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is known of a loan when it has to end.

    After a crash in the middle of lending, `lease` and `key` are None: it was asked for, and
    nobody knows whether it was given. A broker whose system finds things by `loan_id` ends it by
    that; any other answers False.
    """

    loan_id: str
    run_id: str
    lease: str | None = None
    key: str | None = field(default=None, repr=False)
    expires_ms: int | None = None


class Issuer(Protocol):
    """Mints tokens that say what run they are for (see `issuer.py`)."""

    @property
    def url(self) -> str:
        """The `iss` of its tokens."""

    def mint(self, audience: str, order: Order, ttl_s: int) -> str:
        """A signed token for this audience; it lives `ttl_s` at most, less where the order ends
        or the issuer's own limit is lower."""


class Broker(Protocol):
    """One section of `runners.credentials` at work.

    `gives` are the fields of every advance, None where only the lending system knows them;
    `narrows` says whether scopes of an order make what is given smaller. Where it does not, an
    order with scopes is refused before it comes here.
    """

    gives: frozenset[str] | None
    narrows: bool

    async def lend(self, order: Order) -> Advance:
        """Get what the order asks for.

        It may be cancelled at any moment; what the lending system then made is ended by it at
        `ends_ms`, or by `revoke` where it can be found.

        Raises:
            BrokerFault: nothing was given.
        """

    async def revoke(self, held: Held) -> bool:
        """End it: True once the lending system confirmed that it is dead (or never was), False
        where this system has no way to end it before its time. Idempotent.

        Raises:
            BrokerFault: it may still live; asked again later, with back-off.
        """

    async def aclose(self) -> None:
        """Let connections go."""


class Sealed(Protocol):
    """What a broker keeps beyond the keeper's own end: JSON objects by name, sealed on disk."""

    def names(self) -> list[str]:
        """Of all that is kept, of other brokers too."""

    def read(self, name: str) -> Mapping[str, Any] | None:
        """None if there is nothing, or nothing that this keeper sealed for that name."""

    def write(self, name: str, facts: Mapping[str, Any]) -> None:
        """Durable when it returns, and never half."""

    def remove(self, name: str) -> None: ...


@runtime_checkable
class Consented(Protocol):
    """A broker whose tokens serve several runs, and that is told when a server does not take one."""

    async def unaccepted(self, loan_id: str, scopes: Sequence[str] | None) -> None:
        """See `ports.Consents.unaccepted`; of one loan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What a broker is made from.

    `section` is the section as plain JSON. `secret(name)` is what the reference in that field
    names, already read. `read_file(name)` is the file that the field names, or None if the field
    is absent. Both are to be used while the broker is made: later the keeper may have given up
    the right to read files. No connection may be opened before the first order. `sealed` is for
    brokers that keep something.
    """

    ref: str
    section: Mapping[str, Any]
    secret: Callable[[str], str]
    read_file: Callable[[str], bytes | None]
    issuer: Issuer | None
    now: Callable[[], int]
    sealed: Sealed | None = None


FACTORIES: Mapping[str, str] = {
    "static": "remit.runners.credentials.static:StaticBroker",
    "oidc": "remit.runners.credentials.oidc:OidcBroker",
    "vault": "remit.runners.credentials.vault:VaultBroker",
    "aws": "remit.runners.credentials.aws:AwsBroker",
    "github": "remit.runners.credentials.github:GithubBroker",
    "client_credentials": ("remit.runners.credentials.client_credentials:ClientCredentialsBroker"),
    "authorization_code": ("remit.runners.credentials.authorization_code:AuthorizationCodeBroker"),
    "exchange": "remit.runners.credentials.exchange:ExchangeBroker",
}
"""Which class makes each kind, imported only where a section names it: start-up stays short.

It is made of a `Kit`, and may raise `ConfigError` with a place relative to the section.
"""

KEEPS = frozenset({"authorization_code"})
"""Kinds that are given a place to keep what must outlive the keeper."""
