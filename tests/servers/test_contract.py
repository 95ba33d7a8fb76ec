"""The servers of a real gateway keep the contract of the port."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from remit.ports import Servers
from remit.testing.servers import Item, ServersContract
from tests.servers.make import Told, oversight

pytestmark = pytest.mark.anyio


async def _nothing() -> None:
    """Nothing is in force."""


class TestOversight(ServersContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self._path = tmp_path
        self._stack = AsyncExitStack()

    async def make(self, *items: Item) -> Servers:
        self._told = Told(files=[dict(each) for each in items])
        made = oversight(self._path)
        # Nobody asks by itself here: what is not kept by a background is asked by the test.
        made._asks, made._activate = self._told, _nothing
        return made

    async def relist(self, servers: Servers, *items: Item) -> None:
        self._told.lists["files"] = [dict(each) for each in items]
