"""What the fake lends, it lends by the ledger's word alone, as the keeper does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from remit.canonical import digest, digest_of, encode
from remit.ledger.signer import FileSigner
from remit.model import Lease, Limits, Plan, PlanKind
from remit.ports import Credentials, Ledger
from remit.testing import ledger_samples as sample
from remit.testing.credentials import CredentialsContract, MemoryCredentials, Started
from remit.testing.ledger import MemoryLedger
from remit.testing.ledger_samples import SetClock

pytestmark = pytest.mark.anyio


def plan_with(refs: Sequence[str]) -> Plan:
    """A plan that names these credentials."""
    call_digest = digest_of("remit.call/1", list(refs))
    facts = {
        "call_digest": call_digest,
        "credentials": [{"ref": ref, "scopes": []} for ref in refs],
    }
    text = encode(facts)
    return Plan(
        kind=PlanKind.MAIN,
        text=text,
        hash=digest("remit.plan/1", text),
        call_digest=call_digest,
        limits=Limits(),
    )


class TestMemory(CredentialsContract):
    @pytest.fixture
    def clock(self) -> SetClock:
        return SetClock()

    @pytest.fixture
    async def ledger(self, tmp_path: Path, clock: SetClock) -> AsyncIterator[Ledger]:
        signer = FileSigner.create(tmp_path / "log.key", "gateway.example/log")
        opened = MemoryLedger(signer=signer, gateway="gw-1", clock=clock)
        await opened.activate(sample.activation(), clock.now_ms())
        yield opened
        await opened.aclose()

    @pytest.fixture
    def credentials(self, ledger: Ledger) -> Credentials:
        return MemoryCredentials(ledger, {"contract": self.SECRET}, files={"contract": "token"})

    @pytest.fixture
    def started(self, ledger: Ledger, clock: SetClock) -> Started:
        async def start(refs: Sequence[str]) -> Lease:
            grant = await sample.granted(ledger, clock, plan=plan_with(refs))
            await ledger.start(grant, clock.now_ms())
            return Lease(
                id=grant.run_id, gateway="gw-1", fence=grant.fence, deadline_ms=grant.deadline_ms
            )

        return start
