"""The fake keeps the contract of consents."""

from __future__ import annotations

import pytest

from remit.model import ConsentPage
from remit.ports import Consents
from remit.testing.consents import ConsentsContract, MemoryConsents, Visit

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-51")]


class TestMemory(ConsentsContract):
    @pytest.fixture
    def consents(self) -> Consents:
        return MemoryConsents(["contract"])

    @pytest.fixture
    def visit(self) -> Visit:
        async def yes(page: ConsentPage) -> dict[str, str]:
            return {"code": "good", "state": page.state}

        return yes
