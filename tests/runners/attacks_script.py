"""Attacks on the spawner by what it runs, as whoever starts this.

    python -m tests.runners.attacks_script STATE_DIR

Prints a JSON line with what came of each.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from remit.errors import RunnerFault
from remit.runners.sandbox import SandboxRunner, SandboxSettings
from tests.runners.support import PYTHON, begin, first_line, limited, python, run, shell
from tests.runners.wired import Wired, wired

TAKE_BACK = """
import os
held = []
for number in range(64):
    try:
        held.append(os.open(f"/proc/1/fd/{number}", os.O_RDWR | os.O_NONBLOCK))
        os.write(held[-1], b"1")
    except OSError:
        pass
"""
"""Puts a byte into every pipe of the sandbox's own PID 1: as if a release had not been read."""


def beginnings(spawner: Wired) -> dict[str, bool]:
    """Whether each kind of run is still said to have begun, after it did."""
    argv = (PYTHON, "-I", "-S", "-c", TAKE_BACK)
    found = {"cold": spawner.run(*argv)[1]["began"]}
    for kind, prefix in (("shell", ()), ("python", (PYTHON, "-I", "-S"))):
        slot, out, _ = spawner.park(kind, *prefix)
        found[kind] = spawner.become(slot, out, *argv)[1]["began"]
    return found


HOARD = """
import contextlib, os, socket, time
null, pairs = os.open("/dev/null", os.O_RDONLY), []
with contextlib.suppress(OSError):
    while True:
        pairs.append(socket.socketpair())
        pairs[-1][0].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                socket.send_fds(pairs[-1][0], [b"x"], [null] * 250)
print("hoarded", flush=True)
time.sleep(60)
"""
"""Has more descriptors wait to be received than most programs may have open."""


async def beside_a_hoard(state: Path) -> str:
    """What comes of a run while another of the same user hoards descriptors."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))  # as most programs are started
    runner = await SandboxRunner.open(SandboxSettings(state_dir=state, gateway="hoard"))
    try:
        hoard = await begin(runner, limited(python(HOARD), open_files=1500))
        if await first_line(runner, hoard) != b"hoarded":
            return "nothing was hoarded"
        result, _ = await run(runner, shell("cat >out; cat out", stdin=b"went on"))
        await runner.destroy(hoard)
        return result.stdout.decode()
    except RunnerFault as fault:
        return str(fault)
    finally:
        await runner.aclose()


def main(state: str) -> None:
    with wired(Path(state)) as spawner:
        said = {"uids": spawner.hello["uids"], "began": beginnings(spawner)}
    said["hoard"] = asyncio.run(beside_a_hoard(Path(state)))
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
