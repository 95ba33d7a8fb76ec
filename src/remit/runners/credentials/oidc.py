"""A token of Remit's own issuer, as it is: for workload identity federation and own services."""

from __future__ import annotations

import base64
import json

from remit.errors import Code, ConfigError
from remit.runners.credentials.broker import Advance, Held, Kit, Order


class OidcBroker:
    """Tokens for one audience, unless the plan names another.

    Raises:
        ConfigError: there is no issuer.
    """

    gives = frozenset({"token"})
    narrows = False

    def __init__(self, kit: Kit) -> None:
        if kit.issuer is None:
            raise ConfigError(
                Code.CONFIG_INVALID, "this broker needs Remit's issuer", hint="write runners.issuer"
            )
        self._issuer = kit.issuer
        self._audience = str(kit.section["audience"])
        self._now = kit.now

    async def lend(self, order: Order) -> Advance:
        """A token that ends with the order, or sooner where the issuer says so."""
        left_s = max(0, (order.ends_ms - self._now()) // 1000)
        token = self._issuer.mint(order.audience or self._audience, order, left_s)
        return Advance(
            fields={"token": token},
            secrets=(token,),
            expires_ms=_expires_ms(token),
            lease=order.loan_id,
        )

    async def revoke(self, held: Held) -> bool:
        """Who verifies a token asks nobody, so nothing can end it before its time."""
        return False

    async def aclose(self) -> None:
        """There is nothing to close."""


def _expires_ms(token: str) -> int:
    """The `exp` of a token that was minted here."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return int(claims["exp"]) * 1000
