"""Channels that keep what they are told, and the contract that every `Notifier` must keep."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from remit.model import Frozen
from remit.ports import Notifier


@dataclass(slots=True)
class KeptNotices:
    """A `Notifier` that keeps messages in `told`, and their bytes in `bodies`.

    `failure` is what the next messages fail with; `held`, if set, is waited for before each.
    """

    channels: frozenset[str] = frozenset({"oncall"})
    failure: str | None = None
    held: asyncio.Event | None = None
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def notify(self, channel: str, message: Frozen) -> str | None:
        if self.held is not None:
            await self.held.wait()
        if channel not in self.channels:
            return "there is no such channel"
        if self.failure is None:
            self.told.append((channel, json.loads(message.text)))
            self.bodies.append(message.text)
        return self.failure


class NotifierContract:
    """What holds of every notifier. A subclass gives `notifier`, one with a channel `oncall` that
    takes messages, and `told`, the bodies that it took."""

    @pytest.fixture
    def notifier(self) -> Notifier:
        raise NotImplementedError

    @pytest.fixture
    def told(self) -> list[bytes]:
        raise NotImplementedError

    async def test_a_message_is_taken_once_and_whole(
        self, notifier: Notifier, told: list[bytes]
    ) -> None:
        text = b'{"text":"\xc3\xa4"}'
        assert await notifier.notify("oncall", Frozen(text)) is None
        assert told == [text]

    async def test_an_unknown_channel_takes_nothing(
        self, notifier: Notifier, told: list[bytes]
    ) -> None:
        assert "elsewhere" not in notifier.channels
        assert await notifier.notify("elsewhere", Frozen(b"{}")) is not None
        assert told == []
