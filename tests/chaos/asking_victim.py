"""The gateway that gets killed while it asks a server over HTTP: one call, in one process.

`python -m tests.chaos.asking_victim CONFIG NUMBER PORT METHOD WHEN`: the number is the call's
argument, the rest says where it dies. Prints `done` when it was not killed.
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
from remit.model import Call
from remit.telemetry import configure_logs
from remit.testing.tripwire import Tripwire, When
from tests.path.conftest import Heard
from tests.upstream_servers.behind import CALLER


async def live(config: Path, number: int, port: str, method: str, when: str) -> None:
    seen: list[Backends] = []

    def arm(backends: Backends) -> Backends:
        seen.append(backends)
        armed: Any = Tripwire(getattr(backends, port), method, When(when))
        return replace(backends, **{port: armed})

    async with open_gateway(load(config, environ={}), rearrange=arm) as gateway:
        await seen[0].servers.look("far")
        call = Call(
            id=gateway.new_call_id(),
            caller=CALLER,
            tool_name="far_mark",
            arguments={"number": number},
            received_ms=1,
        )
        reply = await gateway.call(call, Heard())
        print("done", reply.decision.get("code"), flush=True)


if __name__ == "__main__":
    configure_logs("json", "error")
    config, number, *where = sys.argv[1:]
    asyncio.run(live(Path(config), int(number), *where))
