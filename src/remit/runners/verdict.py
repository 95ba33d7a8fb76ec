"""How a run ended, from what the spawner saw: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remit.model import Ending

_KILLED = 9
_SHELL_BASE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    ending: Ending
    exit_code: int | None
    signal: int | None
    limits_hit: tuple[str, ...]


def judge(end: Mapping[str, Any], *, flooded: bool = False) -> Verdict:
    """The ending of a run, and which limits it met on the way.

    Our own reason for killing it comes before what the kernel reports of the kill. bubblewrap
    gives a death by signal n as exit code 128+n, as shells do, so a command that chooses such a
    code looks the same; both numbers are given.
    """
    code, why = end["code"], end["why"]
    if flooded and why is None:  # it ended by itself before the kill came
        why = "output"
    signal = end["signal"]
    if signal is None and code is not None and code > _SHELL_BASE:
        signal = code - _SHELL_BASE
    limits = [
        name
        for name, hit in (
            ("wall", why == "wall"),
            ("output", why == "output"),
            ("memory", end["oom_kills"] > 0),
            ("pids", end["pids_refused"] > 0),
            ("cpu", end["throttled"] > 0),
            ("collect", any(found in {"too_large", "irregular"} for _, found in end["files"])),
        )
        if hit
    ]
    ending = _ending(began=end["began"], why=why, signal=signal, oom=end["oom_kills"] > 0)
    if ending is Ending.NOT_STARTED:
        code = signal = None
    return Verdict(ending=ending, exit_code=code, signal=signal, limits_hit=tuple(limits))


def _ending(*, began: bool, why: str | None, signal: int | None, oom: bool) -> Ending:
    if not began:
        return Ending.NOT_STARTED
    match why:
        case "wall":
            return Ending.TIMED_OUT
        case "output":
            return Ending.OUTPUT_LIMIT
        case "stop" | "destroy":
            return Ending.CANCELLED
        case None:
            pass
        case _:
            return Ending.LOST
    if signal == _KILLED and oom:
        return Ending.OUT_OF_MEMORY
    return Ending.EXIT if signal is None else Ending.SIGNAL
