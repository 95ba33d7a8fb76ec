"""`python -m bench.stages`: where a call's time and CPU go, without HTTP and the MCP library.

Calls the pipeline directly, in this process: wall time by stage, and CPU by thread (the event
loop's, and the ledger's one writer). The policy worker and the spawner are processes of their own
and are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

import uvloop

from bench.gateway import make_world
from remit.app import open_gateway
from remit.config import load
from remit.gateway import Gateway
from remit.model import Amount, Call, Caller
from remit.telemetry import STAGE_TIMES, configure_logs
from remit.testing.runner import NoopRunner

ARGUMENTS = {"environment": "staging", "text": "hello"}


class Silent:
    """Asks for no progress."""

    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None:
        return


async def calls(gateway: Gateway, caller: Caller, count: int) -> None:
    for _ in range(count):
        call = Call(
            id=gateway.new_call_id(),
            caller=caller,
            tool_name="bench_true",
            arguments=ARGUMENTS,
            received_ms=0,
        )
        reply = await gateway.call(call, Silent())
        if reply.decision["code"] != "ok":
            raise RuntimeError(f"unexpected answer: {reply.decision}")


def cpu() -> tuple[float, float]:
    """CPU seconds of this thread, and of the whole process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.thread_time(), used.ru_utime + used.ru_stime


async def measure(runner: str, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        root = Path(folder)
        token = make_world(root, 0)
        instead = NoopRunner() if runner == "noop" else None
        async with open_gateway(load(root / "remit.yaml"), runner=instead) as gateway:
            caller = await gateway.authenticate(f"Bearer {token}", "bench")
            await calls(gateway, caller, 50)
            for clients in (1, 16):
                await one(gateway, caller, runner, clients, count)


async def one(gateway: Gateway, caller: Caller, runner: str, clients: int, count: int) -> None:
    STAGE_TIMES.reset()
    began, before = time.perf_counter(), cpu()
    each = count // clients
    await asyncio.gather(*(calls(gateway, caller, each) for _ in range(clients)))
    took, after = time.perf_counter() - began, cpu()
    done = each * clients
    loop, whole = (1e6 * (after[i] - before[i]) / done for i in (0, 1))
    print(f"{runner}, {clients} at a time: {1e6 * took / done:.0f} us a call, CPU {whole:.0f} us")
    print(f"  CPU: event loop {loop:.0f} us, ledger writer and kernel for it {whole - loop:.0f} us")
    sums = STAGE_TIMES.totals()
    print("  wall by stage: " + ", ".join(f"{k} {1e6 * v / done:.0f}" for k, v in sums.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1600)
    chosen = parser.parse_args()
    configure_logs("json", "warning")
    for kind in ("noop", "sandbox"):
        uvloop.run(measure(kind, chosen.calls if kind == "noop" else chosen.calls // 4))
