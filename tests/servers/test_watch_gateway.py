"""Changes of a server's resources and lists, from the server through the gateway to its clients."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from mcp.server.subscriptions import ResourceUpdated

from tests.servers.watched import EVENTS, MODERN, Notes, world

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.threat("T-54")]

REVISIONS = (MODERN, "2025-11-25", EVENTS)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_change_at_a_server_of_each_revision_reaches_who_subscribed(
    tmp_path: Path, revision: str
) -> None:
    notes = Notes(revision)
    async with world(notes, tmp_path) as made:
        uris = ["note://a", "note://kept", "note://none"]
        async with made.agent.listen(resource_subscriptions=uris) as heard:
            assert heard.honored.resource_subscriptions == ["note://a"]
            await notes.until_subscribed("note://a")
            await notes.update("note://b", about="note://a")
            await notes.update("note://a")
            with anyio.fail_after(20):
                assert await anext(heard) == ResourceUpdated("note://a")
