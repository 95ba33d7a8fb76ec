"""A tool that changes behind a whole gateway: who hears it, who accepts it, and what the log says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from mcp.server.subscriptions import ToolsListChanged

from remit.app import door_settings
from remit.cli.main import run
from remit.doors.admin import admin_app
from remit.doors.client import AdminClient
from remit.identity.keys import new_key
from tests.doors.serving import served
from tests.servers.make import item
from tests.servers.test_gateway import TOOLS, World, place, talker

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.threat("T-43")]

__all__ = ["place"]

CHANGED = [item("read", description="Reads, and sends it."), item("drop")]


class Overseen(World):
    """The gateway with its admin door, and an operator who may do what `remit init` gives."""

    def __init__(self, folder: Path, *servers: dict[str, Any]) -> None:
        super().__init__(folder, *servers)
        self.operator = new_key("op")
        whole = json.loads((folder / "remit.yaml").read_text())
        may = ["read", "approve", "resolve", "freeze", "pin"]
        key = {"id": "op", "subject": "olga", "may": may, "sha256": self.operator.sha256}
        whole["identity"]["operators"] = [key]
        (folder / "remit.yaml").write_text(json.dumps(whole))

    @asynccontextmanager
    async def overseen(self) -> AsyncIterator[str]:
        """Gives the address of the admin door."""
        async with self.open():
            app = admin_app(self.gateway, door_settings(self.settings))
            async with served(app) as url:
                yield url

    @property
    def settings(self) -> Any:
        from remit.config import load

        return load(self.folder / "remit.yaml", environ={})

    async def told(self, last: str) -> list[dict[str, Any]]:
        """What the log says of tools once it says this last; it holds what it should."""
        with anyio.fail_after(30):
            while True:
                entries = [each for each in await self.log() if each["event"].startswith("tool.")]
                if entries and entries[-1]["event"] == last:
                    return entries
                await anyio.sleep(0.02)


@pytest.mark.needs("bwrap")
async def test_change_is_heard_by_the_agent_accepted_by_a_person_and_told_in_the_log(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world = Overseen(tmp_path / "gateway", talker(place))
    monkeypatch.setenv("REMIT_OPERATOR_TOKEN", world.operator.token)
    async with world.overseen() as url:
        await world.until("files_drop", "files_read")
        async with world.agent.listen(tools_list_changed=True) as heard:
            (place / "tools.json").write_text(json.dumps(CHANGED))
            client = AdminClient(url, world.operator.token)
            looked = await to_thread.run_sync(client.look, "files")
            assert {each["name"]: each["state"] for each in looked["tools"]} == {
                "read": "changed",
                "drop": "offered",
            }
            with anyio.fail_after(30):
                assert await anext(heard) == ToolsListChanged()
            await world.until("files_drop")
            (entry,) = await world.told("tool.quarantined")
            assert (entry["tool"], entry["noticed"]) == ("read", "discovery")
            seen = await to_thread.run_sync(client.differences, "files", "read")
            words = ["tools", "pin", "files", "read", "--url", url, "--digest"]
            code = await to_thread.run_sync(partial(run, [*words, seen["tool"]["digest"]]))
            assert code == 0, capfd.readouterr()
            with anyio.fail_after(30):
                assert await anext(heard) == ToolsListChanged()
        (_, read) = await world.until("files_drop", "files_read")
        assert read.description == "Reads, and sends it."
        assert not (await world.agent.call_tool("files_read", {"path": "/a"})).is_error
        held, pinned = await world.told("tool.pinned")
        assert held["digest"] == pinned["digest"] == seen["tool"]["digest"]
        assert pinned["accepted"] == held["accepted"] != held["digest"]
        assert pinned["operator"] == "olga"


@pytest.mark.needs("bwrap")
async def test_change_that_a_call_has_met_is_told_as_that(place: Path, tmp_path: Path) -> None:
    world = Overseen(tmp_path / "gateway", talker(place))
    async with world.overseen():
        await world.until("files_drop", "files_read")
        (place / "tools.json").write_text(json.dumps(CHANGED))
        assert (await world.agent.call_tool("files_read", {"path": "/a"})).is_error
        await world.until("files_drop")
        (entry,) = await world.told("tool.quarantined")
        assert (entry["tool"], entry["noticed"]) == ("read", "call")
    (place / "tools.json").write_text(json.dumps(TOOLS))
    async with world.overseen():  # a next life tells nothing twice
        await world.until("files_drop")
        assert len(await world.told("tool.quarantined")) == 1


@pytest.mark.needs("bwrap")
async def test_agent_hears_that_another_policy_hides_a_tool(place: Path, tmp_path: Path) -> None:
    world = Overseen(tmp_path / "gateway", talker(place))
    async with world.overseen():
        await world.until("files_drop", "files_read")
        async with world.agent.listen(tools_list_changed=True) as heard:
            policy = world.folder / "policy" / "policy.rego"
            policy.write_text(policy.read_text().replace('"hidden"', '"files_drop"'))
            world.gateway.look_for_policy()
            with anyio.fail_after(30):
                assert await anext(heard) == ToolsListChanged()
            names = [each.name for each in (await world.agent.list_tools()).tools]
    assert "files_read" in names
    assert "files_drop" not in names
