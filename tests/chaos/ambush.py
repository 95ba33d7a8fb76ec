"""Kills one of the processes of a living gateway, at a step of a call's path or at a moment."""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from remit.testing.tripwire import When, die


class Victim(StrEnum):
    RUN = "run"
    SLOT = "slot"
    SPAWNER = "spawner"
    PROXY = "proxy"
    KEEPER = "keeper"
    GATEWAY = "gateway"


PROGRAMS = {
    Victim.SPAWNER: b"runners/spawner.py",
    Victim.PROXY: b"egress/proxy.py",
    Victim.KEEPER: b"keeper/__main__.py",
}

STEPS = (
    ("policy", "decide"),
    ("ledger", "commit_intent"),
    ("ledger", "plan_text"),
    ("runner", "provision"),
    ("ledger", "start"),
    ("credentials", "lend"),
    ("runner", "start"),
    ("runner", "collect"),
    ("credentials", "scrub"),
    ("runner", "destroy"),
    ("credentials", "take_back"),
    ("ledger", "settle"),
    ("ledger", "receipt"),
)
"""Each port and method on the path, in the order in which a run passes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Who dies, and when: at the nth time of a step, or so long after it was armed."""

    victim: Victim
    port: str = "none"
    method: str = "-"
    when: When = When.BEFORE
    nth: int = 1
    after_s: float | None = None


class Ambush:
    """Waits within the gateway for the moment of one kill, again and again.

    Args:
        data: the gateway's data directory.
        tell: told what was struck, and which process that was.
    """

    def __init__(self, data: Path, seed: int, tell: Callable[[Victim, int], None]) -> None:
        self._data = data
        self._dice = random.Random(seed)
        self._tell = tell
        self._kill: Kill | None = None
        self._left = 0

    def arm(self, kill: Kill) -> None:
        """Strike once, as this says."""
        self._kill, self._left = kill, kill.nth
        if kill.after_s is not None:
            asyncio.get_running_loop().call_later(kill.after_s, self.spring)

    def passed(self, port: str, method: str, when: When) -> None:
        """A call is at this step."""
        kill = self._kill
        if kill is not None and (kill.port, kill.method, kill.when) == (port, method, when):
            self._left -= 1
            if self._left <= 0:
                self.spring()

    def spring(self) -> None:
        """Strike now, if it has not been done; where no run lives, a slot dies, else nothing yet."""
        if (kill := self._kill) is None:
            return
        if kill.victim is Victim.GATEWAY:
            die()
        if (pid := self._found(kill.victim)) is None:
            return
        self._kill = None
        strike(pid)
        self._tell(kill.victim, pid)

    def watch(self, port: str, backend: Any) -> Any:
        """The backend, whose steps are seen."""
        return _Watched(self, port, backend)

    def _found(self, victim: Victim) -> int | None:
        if (program := PROGRAMS.get(victim)) is not None:
            return next((pid for pid in own_children() if program in command(pid)), None)
        pids = self._pids(waiting=victim is Victim.SLOT) or self._pids(waiting=True)
        return self._dice.choice(pids) if pids else None

    def _pids(self, *, waiting: bool) -> list[int]:
        """Processes of slots that wait, or of runs: lease files say which is which."""
        found: list[int] = []
        for path in sorted((self._data / "runners" / "leases").iterdir()):
            try:
                lease = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            if str(lease["lease"]).startswith("slot-") is waiting:
                for root in lease["roots"]:
                    found += _inside(Path(root) / path.name)
        return sorted(set(found))


class _Watched:
    """A backend of which the steps are passed on; everything else goes through untouched."""

    def __init__(self, ambush: Ambush, port: str, backend: Any) -> None:
        self._ambush = ambush
        self._port = port
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if (self._port, name) not in STEPS:
            return found

        async def watched(*values: Any, **named: Any) -> Any:
            self._ambush.passed(self._port, name, When.BEFORE)
            result = await found(*values, **named)
            self._ambush.passed(self._port, name, When.AFTER)
            return result

        return watched


def strike(pid: int) -> None:
    """Kill a process and see it dead."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], 10)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def own_children() -> list[int]:
    """The processes that this one started."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # a thread that ended meanwhile
            continue
    return found


def command(pid: int) -> bytes:
    """The command line of a process; empty of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _inside(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []
