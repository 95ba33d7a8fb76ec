"""Tokens that serve several runs, because an operator said so: one for each thing asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MARGIN_MS = 30_000
"""A token that ends sooner than this is not lent any more."""

MOST = 256
"""Tokens kept of one section; the one that was not used for longest goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, and when it ends by itself; None if the server does not say."""

    text: str = field(repr=False)
    expires_ms: int | None


@dataclass(slots=True)
class _Place:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: Token | None = None
    until_ms: int = 0


class KeptTokens:
    """Keeps tokens for a while, in memory only.

    Args:
        keep_s: how long a token is lent to further runs after it was got.
        now: milliseconds since the epoch.
    """

    def __init__(self, keep_s: int, now: Callable[[], int]) -> None:
        self._keep_ms = 1000 * keep_s
        self._now = now
        self._places: OrderedDict[tuple[str, ...], _Place] = OrderedDict()

    async def token(self, key: tuple[str, ...], ask: Callable[[], Awaitable[Token]]) -> Token:
        """The token for this key; who asks while it is being got waits for the same one.

        Raises:
            BrokerFault: what `ask` raises; nothing is kept of that.
        """
        place = self._places.setdefault(key, _Place())
        self._places.move_to_end(key)
        while len(self._places) > MOST:
            self._places.popitem(last=False)
        async with place.lock:
            if place.token is None or place.until_ms <= self._now():
                place.token = None
                began_ms = self._now()
                token = await ask()
                ends_ms = token.expires_ms or 0
                place.until_ms = min(began_ms + self._keep_ms, ends_ms - MARGIN_MS)
                place.token = token
            return place.token
