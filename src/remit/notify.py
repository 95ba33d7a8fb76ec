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
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self._tls: ssl.SSLContext | None = None

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
                self._opened(channel).stream(
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
        for client in self._clients.values():
            await client.aclose()

    def _opened(self, channel: str) -> httpx2.AsyncClient:
        # Each channel has connections of its own: one that hangs keeps nobody from another.
        if channel not in self._clients:
            # Made on first use: most gateways have no channel, and certificates take time to load.
            self._tls = self._tls or ssl.create_default_context()
            self._clients[channel] = httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                verify=self._tls,
                timeout=None,
                limits=httpx2.Limits(max_connections=32, max_keepalive_connections=4),
            )
        return self._clients[channel]
