"""Messages to the operator's channels: one POST of JSON each, taken (2xx) or not.

No redirect is followed and no proxy of the environment is used: the message goes where the
configuration says, or nowhere. An answer's body is not read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx2

from remit.model import Frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpChannel:
    """Where a channel is; `timeout_ms` bounds a whole message, `token` is sent as a bearer."""

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_ms: int = 3_000


class HttpNotifier:
    """The `Notifier` port over HTTP(S)."""

    def __init__(self, channels: Mapping[str, HttpChannel]) -> None:
        self._channels = dict(channels)
        self._client: httpx2.AsyncClient | None = None

    @property
    def channels(self) -> frozenset[str]:
        return frozenset(self._channels)

    async def notify(self, channel: str, message: Frozen) -> str | None:
        """POST the message; None once it was taken, else why not, without what was answered."""
        found = self._channels.get(channel)
        if found is None:
            return "there is no such channel"
        headers = {"content-type": "application/json"}
        if found.token is not None:
            headers["authorization"] = f"Bearer {found.token}"
        try:
            async with (
                asyncio.timeout(found.timeout_ms / 1000),
                self._opened().stream(
                    "POST", found.url, content=message.text, headers=headers
                ) as answer,
            ):
                return None if answer.is_success else f"HTTP {answer.status_code}"
        except TimeoutError:
            return "no answer in time"
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody took the message
            return type(error).__name__

    async def aclose(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()

    def _opened(self) -> httpx2.AsyncClient:
        # Made on first use: most gateways have no channel, and certificates take time to load.
        if self._client is None:
            self._client = httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                verify=ssl.create_default_context(),
                timeout=None,
                limits=httpx2.Limits(max_connections=32, max_keepalive_connections=4),
            )
        return self._client
