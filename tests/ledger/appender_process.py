"""A process that writes runs as fast as it can and says on stdout what is durable.

`python -m tests.ledger.appender_process DIRECTORY`: prints `index leaf-hash-hex` for each entry
that was acknowledged, until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from remit.clock import SystemClock
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.testing import ledger_samples as sample
from remit.testing.ledger_samples import SetClock

WRITERS = 8


async def write(ledger: SqliteLedger, clock: SetClock, name: str) -> None:
    number = 0
    while True:
        number += 1
        plan, decision = sample.plan(f"{name}-{number}"), sample.allow(clock)
        run_id, starts = f"run_{name}_{number}", number % 2 == 0
        intent = sample.intent(clock, plan=plan, decision=decision, run_id=run_id, starts=starts)
        grant = await ledger.commit_intent(intent, [sample.decision_entry(plan, decision)])
        what = "started" if starts else "intent"
        await said(ledger, what, grant.run_id, grant.intent_index)
        await ledger.start(grant, clock.now_ms())
        index = await ledger.settle(sample.outcome(clock, grant), sample.outcome_entry())
        await said(ledger, "outcome", grant.run_id, index)


async def said(ledger: SqliteLedger, what: str, run: str, index: int) -> None:
    receipt = await ledger.receipt(index)
    line = f"{what} {run} {index} {receipt.leaf_hash.hex()} {receipt.checkpoint.size}\n"
    os.write(1, line.encode())


async def main(directory: Path, turn: str) -> None:
    clock = SetClock(SystemClock().now_ms())
    clock._given = int(turn) * 1_000_000  # names differ from those of the turns before
    ledger = SqliteLedger.open(
        directory / "ledger.db",
        signer=FileSigner.load(directory / "log.key"),
        gateway="gw-1",
        clock=clock,
        reserve_bytes=65_536,
    )
    await ledger.activate(sample.activation(), clock.now_ms())
    os.write(1, b"ready\n")
    await asyncio.gather(*(write(ledger, clock, f"{turn}w{n}") for n in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
