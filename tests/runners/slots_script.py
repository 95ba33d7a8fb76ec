"""A gateway with slots, reduced to its runs: started by a test, which kills it.

    python -m tests.runners.slots_script STATE_DIR GATEWAY

Prints a JSON line with its spawner's pid, the run that took a slot, and the slots that wait.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from remit.profile import Profile, Warm
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from remit.runners.slots import classes_of
from tests.runners.support import begin, first_line, new_lease, python, shell


async def main(state: str, gateway: str) -> None:
    profile = Profile(warm=Warm(shell=2, python=1))
    classes = {
        each
        for spec in (shell("true"), python("pass"))
        for each in classes_of(spec, profile, out=False)
    }
    settings = SandboxSettings(
        state_dir=Path(state),
        gateway=gateway,
        profiles={"sandbox": profile},
        classes=tuple(classes),
    )
    runner = await SandboxRunner.open(settings)
    while dict(runner.waiting) != {"shell": 2, "python": 1}:
        await asyncio.sleep(0.01)
    lease = await begin(runner, shell("echo ready; sleep 1000"), new_lease(gateway=gateway))
    await first_line(runner, lease)
    while dict(runner.waiting) != {"shell": 2, "python": 1}:
        await asyncio.sleep(0.01)
    slots = sorted(path.name for path in Path(state, "leases").iterdir())
    print(json.dumps({"spawner": runner.spawner_pid, "run": lease.id, "slots": slots}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
