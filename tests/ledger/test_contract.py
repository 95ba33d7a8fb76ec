"""The real ledger and the one in memory both keep the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.ledger.sqlite import SqliteLedger
from remit.ports import Ledger, Signer
from remit.testing.ledger import MemoryLedger
from remit.testing.ledger_contract import LedgerContract
from remit.testing.ledger_samples import SetClock

pytestmark = pytest.mark.anyio


class TestSqliteLedger(LedgerContract):
    @pytest.fixture
    async def ledger(
        self, tmp_path: Path, signer: Signer, clock: SetClock
    ) -> AsyncIterator[Ledger]:
        opened = SqliteLedger.open(
            tmp_path / "ledger.db", signer=signer, gateway="gw-1", clock=clock, reserve_bytes=65_536
        )
        yield opened
        await opened.aclose()


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    async def ledger(self, signer: Signer, clock: SetClock) -> AsyncIterator[Ledger]:
        opened = MemoryLedger(signer=signer, gateway="gw-1", clock=clock)
        yield opened
        await opened.aclose()
