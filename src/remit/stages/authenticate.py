"""Step 1: a credential becomes a caller, or nothing happens.

The only place where a `Caller` or an `Operator` comes from a request: one who acts from a credential
alone, one who is only asked about from an enforcement point's word. A rate check follows at
once: first on failures by where they come from, then on the caller.
"""

from __future__ import annotations

from dataclasses import replace

from remit.errors import Code, InputError, Refused
from remit.model import Asserted, Caller, Operator
from remit.ports import Clock, Identity, Rates

BEARER = "bearer "
MAX_AUTHORIZATION = 4096
"""Longest `Authorization` header that is looked at, in characters."""


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer` header (RFC 6750 §2.1).

    Raises:
        Refused: `unauthenticated` when there is none.
    """
    if authorization is None:
        raise unauthenticated("no credential was sent")
    if len(authorization) > MAX_AUTHORIZATION or not authorization.lower().startswith(BEARER):
        raise unauthenticated("the credential is not a bearer token")
    return authorization[len(BEARER) :].strip()


def unauthenticated(message: str) -> Refused:
    return Refused(
        Code.UNAUTHENTICATED,
        message,
        hint="send `Authorization: Bearer <key>` with a key from `remit config new-key`",
    )


async def authenticate(
    identity: Identity, rates: Rates, clock: Clock, authorization: str | None, source: str
) -> Caller:
    """The caller behind an `Authorization` header.

    Args:
        source: where the request came from, for counting failures.

    Raises:
        Refused: `unauthenticated` or `rate_limited`.
    """
    try:
        caller = await identity.caller(bearer_token(authorization), clock.now_ms())
    except Refused:
        _count_failure(rates, source)
        raise
    within(rates, "caller", caller.id)
    return caller


async def authenticate_operator(
    identity: Identity, rates: Rates, clock: Clock, authorization: str | None, source: str
) -> Operator:
    """The operator behind an `Authorization` header; a caller's key is never one."""
    try:
        return await identity.operator(bearer_token(authorization), clock.now_ms())
    except Refused:
        _count_failure(rates, source)
        raise


def _count_failure(rates: Rates, source: str) -> None:
    within(rates, "authentication", source)


def within(rates: Rates, scope: str, key: str) -> None:
    """Count one hit.

    Raises:
        Refused: `rate_limited`, with the time to wait.
    """
    wait_ms = rates.hit(scope, key)
    if wait_ms is not None:
        raise Refused(
            Code.RATE_LIMITED, "too many requests", retry_after_ms=wait_ms, hint="wait, then retry"
        )


def asserted_caller(
    identity: Identity, operator: Operator, who: Asserted, *, tenant: str, now_ms: int
) -> Caller:
    """The caller that an enforcement point asks about, for a question only.

    A name that Remit knows is who Remit knows by it, whatever the point says of its kind and its
    groups. Any other is taken at the point's word, with the point as its issuer.

    Args:
        tenant: the one that is meant where the point names none.

    Raises:
        Refused: `caller_revoked`: all credentials of this name have expired.
        InputError: `invalid_arguments`: several credentials of this name differ.
    """
    tenant = tenant if who.tenant is None else who.tenant
    known = [one for one in identity.known(who.subject) if one.tenant == tenant]
    if not known:
        return Caller(
            tenant=tenant,
            subject=who.subject,
            kind=who.kind,
            groups=who.groups,
            issuer=f"authzen:{operator.subject}",
        )
    valid = [one for one in known if one.expires_ms is None or now_ms < one.expires_ms]
    if not valid:
        raise Refused(Code.CALLER_REVOKED, "no credential of this subject is valid now")
    meant = [one for one in valid if who.key_id in (None, one.key_id)]
    facts = {replace(one, key_id="", expires_ms=None) for one in meant}
    if len(facts) != 1:
        raise InputError(
            Code.INVALID_ARGUMENTS,
            "names no one of several credentials that differ",
            place="/subject/properties/key",
            hint="give the id of the key that is meant, from remit.yaml",
        )
    return meant[0]
