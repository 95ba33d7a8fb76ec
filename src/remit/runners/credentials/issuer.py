"""Remit as an OpenID Connect issuer: a token says what run it is for, and ends with that run.

The keys are in the keeper and never leave it. Who verifies a token finds them through the
discovery document (OpenID Connect Discovery 1.0 §3), which the MCP door serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from remit.model import Actor, CallerKind
from remit.runners.credentials.broker import BrokerFault, Order
from remit.runners.credentials.keyring import KeyRing


class RunIssuer:
    """Mints tokens for runs.

    Args:
        section: `runners.issuer` as plain JSON.
        ring: its keys.
        now: milliseconds since the epoch.
    """

    def __init__(self, section: Mapping[str, Any], ring: KeyRing, now: Callable[[], int]) -> None:
        self._url = str(section["url"]).rstrip("/")
        self._ttl_s = int(section["ttl_s"])
        self._ring = ring
        self._now = now

    @property
    def url(self) -> str:
        return self._url

    @property
    def jwks(self) -> dict[str, Any]:
        """The key set as it is to be published now."""
        self._ring.turn(self._now())
        return self._ring.jwks

    def mint(self, audience: str, order: Order, ttl_s: int) -> str:
        """A token for this audience (RFC 7519), signed with the current key.

        It lives `ttl_s`, the issuer's `ttl_s` or until the order ends, whichever is first.

        Raises:
            BrokerFault: the order is over.
        """
        import jwt  # slow to import, and most gateways have no issuer

        now_ms = self._now()
        self._ring.turn(now_ms)
        issued = now_ms // 1000
        ends = min(issued + min(ttl_s, self._ttl_s), order.ends_ms // 1000)
        if ends <= issued:
            raise BrokerFault("the run ends before a token could be of use")
        key = self._ring.current
        claims = {
            "iss": self._url,
            "sub": subject(order),
            "aud": audience,
            "iat": issued,
            "nbf": issued,
            "exp": ends,
            "jti": order.loan_id,
            **claims_of(order),
        }
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.kid})


def subject(order: Order) -> str:
    """The `sub` of a run's tokens: the same for every run of a tool in an environment.

    In each part `:` is written `%3A` and `%` is `%25`, so that no name can pass for two.
    """
    parts = {"tenant": order.tenant, "environment": order.environment, "tool": order.tool}
    return ":".join(f"{name}:{_part(value)}" for name, value in parts.items())


def _part(value: str) -> str:
    return value.replace("%", "%25").replace(":", "%3A")


def claims_of(order: Order) -> dict[str, Any]:
    """What a token says of the run beside the registered claims.

    `act` is the caller and, nested, those on whose behalf it acts, the nearest first (RFC 8693
    §4.1): who had the original authority stands deepest.
    """
    claims: dict[str, Any] = {
        "run": order.run_id,
        "kind": order.kind,
        "fence": order.fence,
        "plan_hash": order.plan_hash,
        "tenant": order.tenant,
        "environment": order.environment,
        "tool": order.tool,
        "tool_digest": order.tool_digest,
        "effect": order.effect,
        "caller": {
            "subject": order.subject,
            "kind": order.caller_kind,
            "groups": list(order.groups),
        },
        "act": _act(order),
    }
    if order.approval_id is not None:
        claims |= {"approval": order.approval_id, "approvers": list(order.approvers)}
    return claims


def _act(order: Order) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    caller = Actor(subject=order.subject, kind=CallerKind(order.caller_kind))
    for actor in (*order.chain, caller):
        nested = {
            "sub": actor.subject,
            "kind": actor.kind.value,
            **({"act": nested} if nested else {}),
        }
    return nested
