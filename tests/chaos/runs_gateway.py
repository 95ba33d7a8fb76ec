"""A gateway whose calls and kills are asked for on standard input: one JSON message a line.

    {"call": [tool, number]}        answered by {"reply": number, "tool", "code", "said"}
    {"arm": {victim, port, ...}}    answered by {"struck": victim, "pid"} once it has struck
    {"spring": true}                strikes now, if what was armed did not

Run as a program: `python -m tests.chaos.runs_gateway CONFIG SEED`. Says {"ready": pid} first, and
closes as gateways do when its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from remit.app import open_gateway
from remit.backends import Backends
from remit.config import load
from remit.gateway import Gateway
from remit.model import Call
from remit.telemetry import configure_logs
from remit.testing.tripwire import When
from tests.chaos.ambush import STEPS, Ambush, Kill, Victim
from tests.chaos.victim import CALLER, Deaf


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def call(gateway: Gateway, tool: str, number: int) -> None:
    made = Call(
        id=gateway.new_call_id(),
        caller=CALLER,
        tool_name=tool,
        arguments={"number": number},
        received_ms=0,
    )
    reply = await gateway.call(made, Deaf())
    said = "".join(block.get("text", "") for block in reply.content.value())
    say(reply=number, tool=tool, code=reply.decision.get("code"), said=said)


async def live(config: Path, seed: int) -> None:
    settings = load(config, environ={})
    ambush = Ambush(settings.data_dir, seed, lambda victim, pid: say(struck=victim, pid=pid))

    def watched(backends: Backends) -> Backends:
        ports: dict[str, Any] = {
            port: ambush.watch(port, getattr(backends, port)) for port, _ in STEPS
        }
        return replace(backends, **ports)

    async with open_gateway(settings, rearrange=watched) as gateway, asyncio.TaskGroup() as calls:
        say(ready=os.getpid())
        async for message in messages():
            if (wanted := message.get("call")) is not None:
                calls.create_task(call(gateway, *wanted))
            elif (armed := message.get("arm")) is not None:
                ambush.arm(_kill(armed))
            else:
                ambush.spring()


def _kill(facts: dict[str, Any]) -> Kill:
    return Kill(**{**facts, "victim": Victim(facts["victim"]), "when": When(facts["when"])})


async def messages() -> Any:
    """Those of standard input, until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        pipe.close()


if __name__ == "__main__":
    configure_logs("json", "error")
    asyncio.run(live(Path(sys.argv[1]), int(sys.argv[2])))
