"""The gateway that gets killed: real ledger, policy, spawner and sandbox, calls one after another.

Its write tool appends a line to a file of the host, so that an effect is there for all to see.
Run as a program: `python -m tests.chaos.victim CONFIG PORT METHOD WHEN NTH`; PORT `none` means
that the test kills it from outside. Prints `ready` when it begins, `done` when it was not killed.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from remit.app import open_gateway
from remit.backends import Backends
from remit.config import load
from remit.gateway import Gateway
from remit.model import Actor, Amount, Call, Caller, CallerKind
from remit.telemetry import configure_logs
from remit.testing.tripwire import Tripwire, When

CALLER = Caller(
    tenant="chaos",
    subject="bot",
    kind=CallerKind.AGENT,
    groups=("agents",),
    chain=(Actor(subject="dana", kind=CallerKind.HUMAN),),
    key_id="bot",
)
CALLS = ("mark", "look", "mark_previewed", "mark")


class Deaf:
    """Hears no progress."""

    wanted = False

    async def report(self, message: str, amount: Amount | None = None) -> None:
        return


async def call(gateway: Gateway, tool: str, number: int) -> dict[str, Any]:
    made = Call(
        id=gateway.new_call_id(),
        caller=CALLER,
        tool_name=tool,
        arguments={"number": number},
        received_ms=0,
    )
    reply = await gateway.call(made, Deaf())
    return dict(reply.decision)


async def live(config: Path, port: str, method: str, when: str, nth: int) -> None:
    def arm(backends: Backends) -> Backends:
        if port == "none":
            return backends
        armed: Any = Tripwire(getattr(backends, port), method, When(when), nth)
        return replace(backends, **{port: armed})

    async with open_gateway(load(config), rearrange=arm) as gateway:
        print("ready", flush=True)
        for number, tool in enumerate(CALLS):
            decision = await call(gateway, tool, number)
            print(tool, decision.get("code"), flush=True)
        print("done", flush=True)


if __name__ == "__main__":
    configure_logs("json", "error")
    asyncio.run(live(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
