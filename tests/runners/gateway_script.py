"""A gateway reduced to its runs: started by a test, which kills it.

    python -m tests.runners.gateway_script STATE_DIR GATEWAY RUNS SECONDS

Prints a JSON line with its spawner's pid and the lease ids once all runs have begun, then waits.
The leases end after SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import begin, first_line, new_lease, shell

IMMORTAL = "trap '' TERM INT HUP; setsid sleep 1000 & sleep 1000 & echo ready; wait; sleep 1000"


async def main(state: str, gateway: str, runs: int, seconds: float) -> None:
    runner = await SandboxRunner.open(SandboxSettings(state_dir=Path(state), gateway=gateway))
    leases = []
    for _ in range(runs):
        lease = await begin(runner, shell(IMMORTAL), new_lease(gateway=gateway, seconds=seconds))
        await first_line(runner, lease)
        leases.append(lease.id)
    held = new_lease("held", gateway=gateway, seconds=seconds)
    await runner.provision(held, shell("echo never"))
    print(json.dumps({"spawner": runner.spawner_pid, "leases": [*leases, held.id]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
