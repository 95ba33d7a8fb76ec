"""A secret that lives on: delivered as it is, since nothing can narrow, end or revoke it."""

from __future__ import annotations

from remit.runners.credentials.broker import Advance, Held, Kit, Order


class StaticBroker:
    """One secret, read when the keeper starts."""

    gives = frozenset({"token"})
    narrows = False

    def __init__(self, kit: Kit) -> None:
        self._secret = kit.secret("secret")

    async def lend(self, order: Order) -> Advance:
        return Advance(
            fields={"token": self._secret},
            secrets=(self._secret,),
            expires_ms=None,
            note="a static secret neither ends nor can be revoked",
        )

    async def revoke(self, held: Held) -> bool:
        return False

    async def aclose(self) -> None:
        """There is nothing to close."""
