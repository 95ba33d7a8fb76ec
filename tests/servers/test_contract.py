"""The contract of `Servers`, kept by the one that operators use and by the one of tests."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from remit.catalog.server_spec import ServerSpec
from remit.clock import SystemClock
from remit.ports import Servers
from remit.servers.asking import Listing, Silent
from remit.servers.oversight import Oversight
from remit.servers.pins import PinStore
from remit.servers.tools import ServerTools
from remit.testing.servers import Item, MemoryServers, ServersContract

pytestmark = pytest.mark.anyio


class TestMemoryServers(ServersContract):
    async def make(self, *items: Item) -> Servers:
        servers = MemoryServers()
        servers.lists("files", *items)
        return servers

    async def relist(self, servers: Servers, *items: Item) -> None:
        assert isinstance(servers, MemoryServers)
        servers.lists("files", *items)


class Lists:
    """Asks nobody: the list is the test's."""

    def __init__(self, *items: Item) -> None:
        self.items = items
        self.open = False

    async def ask(self, server: ServerTools) -> Listing | Silent:
        return Listing(items=[dict(each) for each in self.items])


async def _nothing() -> None: ...


class TestOversight(ServersContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self._place = tmp_path

    async def make(self, *items: Item) -> Servers:
        spec = ServerSpec.model_validate({"name": "files", "command": {"argv": ["/bin/true"]}})
        servers = Oversight([spec], [], PinStore(self._place), SystemClock())
        self._lists = Lists(*items)
        self._stack = AsyncExitStack()
        kept: Any = servers.kept(self._lists, _nothing)
        await self._stack.enter_async_context(kept)
        return servers

    async def relist(self, servers: Servers, *items: Item) -> None:
        self._lists.items = items

    async def end(self, servers: Servers) -> None:
        await self._stack.aclose()
