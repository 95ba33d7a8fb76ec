"""Hostile programs, by what they are after."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile
from tests.adversarial.programs import files, ipc, kernel, network, processes, shared

PROGRAMS: tuple[Hostile, ...] = (
    *files.PROGRAMS,
    *processes.PROGRAMS,
    *kernel.PROGRAMS,
    *ipc.PROGRAMS,
    *network.PROGRAMS,
    *shared.PROGRAMS,
)
