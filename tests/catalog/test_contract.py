"""Each catalog keeps the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from remit.catalog.store import CommandCatalog
from remit.model import Tool
from remit.ports import Catalog
from remit.testing.catalog import CatalogContract, MemoryCatalog


class TestCommandCatalog(CatalogContract):
    @pytest.fixture
    def build(self) -> Callable[[Sequence[Tool]], Catalog]:
        return CommandCatalog


class TestMemoryCatalog(CatalogContract):
    @pytest.fixture
    def build(self) -> Callable[[Sequence[Tool]], Catalog]:
        return MemoryCatalog
