"""The servers of tests keep the contract of the port, so that what is tested with them is true."""

from __future__ import annotations

import pytest

from remit.ports import Servers
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
