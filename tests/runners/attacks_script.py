"""Attacks on the spawner by what it runs, as whoever starts this.

    python -m tests.runners.attacks_script STATE_DIR

Prints a JSON line with what came of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.runners.support import PYTHON
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


def main(state: str) -> None:
    with wired(Path(state)) as spawner:
        print(json.dumps({"uids": spawner.hello["uids"], "began": beginnings(spawner)}))


if __name__ == "__main__":
    main(sys.argv[1])
