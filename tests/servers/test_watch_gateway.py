"""Changes of a server's resources and lists, from the server through the gateway to its clients."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
import yaml
from mcp.client.client import Client
from mcp.client.subscriptions import Subscription
from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

from remit.errors import Code
from remit.model import ToolState
from tests.cli.serving import REMIT
from tests.doors.serving import client, served
from tests.servers.watched import EVENTS, MODERN, RULES, Heard, Notes, world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.threat("T-54"),
    # The library calls old what clients of earlier revisions still do.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

REVISIONS = (MODERN, "2025-11-25", EVENTS)
WITHIN_S = 30


async def next_of(heard: Subscription) -> Any:
    with anyio.fail_after(WITHIN_S):
        return await anext(heard)


class Legacy:
    """A client of an earlier revision, and what it was told."""

    def __init__(self) -> None:
        self.client: Client
        self._send, self._told = anyio.create_memory_object_stream[str](100)

    async def take(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self._send.send_nowait(str(message.params.uri))
        elif isinstance(message, types.ServerNotification):
            self._send.send_nowait(message.method)

    async def told(self) -> str:
        with anyio.fail_after(WITHIN_S):
            return await self._told.receive()

    def close(self) -> None:
        self._send.close()
        self._told.close()


@asynccontextmanager
async def legacy(made: Heard, key: str | None = None) -> AsyncIterator[Legacy]:
    one = Legacy()
    token = made.key.token if key is None else key
    try:
        async with client(made.url, "legacy", key=token, message_handler=one.take) as one.client:
            yield one
    finally:
        one.close()


def refused(fault: pytest.ExceptionInfo[MCPError]) -> tuple[int, str]:
    return fault.value.error.code, fault.value.error.data["code"]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_change_at_a_server_of_each_revision_reaches_who_subscribed(
    tmp_path: Path, revision: str
) -> None:
    notes = Notes(revision)
    async with world(notes, tmp_path) as made:
        uris = ["note://a", "note://kept", "note://none"]
        async with made.agent.listen(resource_subscriptions=uris) as heard, legacy(made) as old:
            assert heard.honored.resource_subscriptions == ["note://a"]
            await old.client.session.subscribe_resource("note://b")
            await notes.until_subscribed("note://a", "note://b")
            await notes.update("note://a")
            await notes.update("note://b")
            assert await next_of(heard) == ResourceUpdated("note://a")
            assert await old.told() == "note://b"  # and nothing of the other's
            if revision != MODERN:  # in which a server tells of exactly what was asked about
                await notes.update("note://b/part", about="note://b")
                assert await old.told() == "note://b"
            for uri in ("note://kept", "note://none"):
                with pytest.raises(MCPError) as no:
                    await old.client.session.subscribe_resource(uri)
                code = Code.POLICY_DENIED if uri == "note://kept" else Code.UNKNOWN_TOOL
                assert refused(no)[1] == code
            await old.client.session.unsubscribe_resource("note://b")
            await notes.until_subscribed("note://a")
        entries = await made.log()
    subscribed = [each for each in entries if each["event"] == "call.outcome"]
    assert {each["state"] for each in subscribed} == {"succeeded"}
    named = {each["tool"]["name"] for each in entries if each["event"] == "call.intent"}
    assert named == {"resources/subscribe:notes"}


async def test_what_policy_no_longer_allows_is_told_no_more(tmp_path: Path) -> None:
    notes = Notes()
    async with world(notes, tmp_path) as made, legacy(made) as old:
        await old.client.session.subscribe_resource("note://a")
        await old.client.session.subscribe_resource("note://b")
        async with made.agent.listen(resource_subscriptions=["note://a"]) as heard:
            await notes.until_subscribed("note://a", "note://b")
            await made.rule(RULES.replace('"note://kept"}', '"note://kept", "note://a"}'))
            await notes.update("note://a")
            with anyio.fail_after(
                WITHIN_S
            ):  # the stream ends: its client asks again, and is refused
                assert [event async for event in heard] == []
            await notes.update("note://b")
            assert await old.told() == "note://b"
            await notes.until_subscribed("note://b")
        async with made.agent.listen(resource_subscriptions=["note://a"]) as again:
            assert again.honored.resource_subscriptions in (None, [])


async def test_whose_session_has_ended_or_key_is_not_valid_is_told_nothing(tmp_path: Path) -> None:
    notes = Notes()
    async with world(notes, tmp_path) as made:
        async with legacy(made) as old:
            await old.client.session.subscribe_resource("note://a")
            await notes.until_subscribed("note://a")
        await notes.until_subscribed()  # by DELETE of the session


async def test_lists_that_changed_are_judged_at_once_and_told_to_whom_they_concern(
    tmp_path: Path,
) -> None:
    notes = Notes()
    async with (
        world(notes, tmp_path) as made,
        made.agent.listen(prompts_list_changed=True, resources_list_changed=True) as heard,
    ):
        await notes.until_open()
        notes.uris.append("note://new")
        await notes.relisted("resources")
        assert await next_of(heard) == ResourcesListChanged()
        assert "note://new" in {each.uri for each in (await made.agent.list_resources()).resources}
        notes.about = "Greets somebody, and more."
        await notes.relisted("prompts")
        assert await next_of(heard) == PromptsListChanged()
        (stays,) = (await made.agent.list_prompts()).prompts
        assert stays.name == "notes_stays"
        assert made.state("prompts/get:greet") is ToolState.CHANGED


async def test_an_imported_server_is_heard_without_anybody_having_looked_at_it(
    tmp_path: Path,
) -> None:
    notes = Notes(tools=["find", "stays"])
    made = Heard(tmp_path / "gateway")
    config = made.folder / "remit.yaml"
    whole = json.loads(config.read_text())
    del whole["catalog"]
    config.write_text(yaml.safe_dump(whole))
    async with served(notes.app()) as url:
        server = {"mcpServers": {"notes": {"type": "http", "url": f"{url}/mcp"}}}
        (tmp_path / ".mcp.json").write_text(json.dumps(server))
        words = ["init", str(made.folder), "--import", str(tmp_path / ".mcp.json")]
        await anyio.run_process([*REMIT, *words])
        async with made.open(), made.agent.listen(tools_list_changed=True) as heard:
            await made.until("notes_find", "notes_stays")
            await notes.until_open()
            notes.does = "Finds, and sends it."
            await notes.relisted("tools")
            assert await next_of(heard) == ToolsListChanged()
            await made.until("notes_stays")
            assert made.state("find") is ToolState.CHANGED


async def test_a_server_that_went_away_is_heard_again_and_callers_are_asked_about(
    tmp_path: Path,
) -> None:
    notes = Notes()
    async with (
        world(notes, tmp_path) as made,
        made.agent.listen(resource_subscriptions=["note://a"]) as heard,
    ):
        await notes.until_subscribed("note://a")
        notes.cut()
        await notes.until_subscribed()
        await notes.until_subscribed("note://a")
        for _ in range(100):
            await notes.update("note://a")
            with anyio.move_on_after(0.3):
                assert await anext(heard) == ResourceUpdated("note://a")
                break
        else:
            pytest.fail("nothing was heard again")


async def test_nothing_is_left_of_subscriptions_in_the_next_life_of_a_gateway(
    tmp_path: Path,
) -> None:
    notes = Notes()
    async with (
        world(notes, tmp_path) as made,
        made.agent.listen(resource_subscriptions=["note://a"]) as heard,
    ):
        await notes.until_subscribed("note://a")
        made.end_streams()
        with anyio.fail_after(WITHIN_S):
            assert [event async for event in heard] == []
    assert notes.subscribed == []
    async with made.open(), legacy(made) as old:
        assert notes.subscribed == []
        resources = old.client.server_capabilities.resources
        assert resources is not None
        assert resources.subscribe is True  # without having asked the server again


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with the program of a server and its notes, which the user of runs can read."""
    with tempfile.TemporaryDirectory(prefix="remit-teller-") as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copy(Path(__file__).parent / "teller.py", place / "teller.py")
        (place / "uris.json").write_text('["note://a", "note://b"]')
        yield place


def written(place: Path, name: str, text: str) -> None:
    """A file of that text, as a whole."""
    (place / "new").write_text(text)
    (place / "new").chmod(0o644)
    (place / "new").rename(place / name)


@pytest.mark.needs("bwrap")
async def test_a_server_that_is_started_is_heard_in_its_sandbox_and_ended_after(
    place: Path, tmp_path: Path
) -> None:
    server = {
        "name": "notes",
        "command": {
            "argv": ["/usr/bin/python3", "/mnt/notes/teller.py", "/mnt/notes"],
            "mounts": [{"name": "notes", "source": str(place), "writable": True}],
        },
        "effect": "read",
        "resources": "offer",
    }
    made = Heard(tmp_path / "gateway", server)
    (tmp_path / "gateway" / "policy" / "policy.rego").write_text(RULES)
    async with made.open():
        await made.servers.look("notes")
        async with made.agent.listen(
            resources_list_changed=True, resource_subscriptions=["note://a"]
        ) as heard:
            assert heard.honored.resource_subscriptions == ["note://a"]
            leases = tmp_path / "gateway" / "data" / "runners"
            assert list(leases.rglob("look_*")) != []  # its process
            written(place, "a", "changed")
            assert await next_of(heard) == ResourceUpdated("note://a")
            written(place, "uris.json", '["note://a", "note://b", "note://c"]')
            assert await next_of(heard) == ResourcesListChanged()
        entries = await made.log()
    (intent,) = (each for each in entries if each["event"] == "call.intent")
    assert intent["tool"]["name"] == "resources/subscribe:notes"
    assert [each.name for each in leases.rglob("look_*")] == []
