"""Environments that are kept for several runs, and which run has one's way out at a time.

The listening socket inside stays with this process for as long as the environment does. While no
run has it, it does not listen: whatever connects is refused by the kernel, and nothing waits in a
queue for the next run. Each run is opened at the proxy as any other is, by its own name, fence and
rules, and closed there with all its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass

from remit.model import Lease, RunSpec, Traffic
from remit.profile import Profile
from remit.runners.attempt import Attempt
from remit.runners.attempts import Attempts
from remit.runners.faults import unavailable
from remit.runners.wayout import Way, check_within

_BACKLOG = 128


@dataclass(slots=True, eq=False)
class Turn:
    """One run that has a kept environment; `way` is open where the run is let out."""

    attempt: Attempt
    way: Way | None = None


class Keeping:
    """Whose turn it is, of each environment that is kept."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._turns: dict[str, Turn] = {}

    @property
    def runs(self) -> frozenset[str]:
        """The runs that have an environment now."""
        return frozenset(self._turns)

    async def attach(self, session: Lease, lease: Lease, spec: RunSpec, profile: Profile) -> None:
        """See `ports.KeepingRunner.attach`."""
        attempt = self._attempts.known(session)
        if (turn := self._turns.get(lease.id)) is not None and turn.attempt is attempt:
            return
        self._check(attempt, lease, spec)
        check_within(spec.egress, profile)
        turn = self._turns[lease.id] = attempt.turn = Turn(attempt)
        if not spec.egress:
            return
        try:
            await self._open(turn, lease, spec)
        except BaseException:
            await asyncio.shield(self.detach(lease))
            raise

    def _check(self, attempt: Attempt, lease: Lease, spec: RunSpec) -> None:
        if not attempt.kept or attempt.spec.profile != spec.profile:
            raise unavailable("this environment is not kept for such runs")
        if attempt.turn is not None:
            raise unavailable("another run has this environment now")
        if lease.id in self._turns or lease.id in self._attempts.held:
            raise unavailable("this run has an environment already")
        if not attempt.provisioned.done or attempt.lost or attempt.ended.done:
            raise unavailable("the environment does not stand")

    async def _open(self, turn: Turn, lease: Lease, spec: RunSpec) -> None:
        attempt = turn.attempt
        if attempt.way is None or attempt.listener < 0:
            raise unavailable("the environment has no way out")
        turn.way = attempt.way.turn()
        try:
            hear(attempt.listener)
        except OSError:  # something inside has taken the address meanwhile
            raise unavailable("the way out of the environment cannot be opened again") from None
        await turn.way.open(lease, spec, attempt.listener)

    async def detach(self, lease: Lease) -> Traffic | None:
        """See `ports.KeepingRunner.detach`."""
        if (turn := self._turns.get(lease.id)) is None:
            return None
        traffic = None if turn.way is None else await turn.way.close()
        if turn.attempt.turn is turn:
            deafen(turn.attempt.listener)
            turn.attempt.turn = None
        self._turns.pop(lease.id, None)
        return traffic


def prepare(listener: int) -> None:
    """Make a listening socket one that can rest: nobody may connect, until `hear`."""
    with socket.socket(fileno=os.dup(listener)) as sock:
        # Connections of an earlier run must not keep the address from being listened at again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deafen(listener)


def hear(listener: int) -> None:
    """Have it listen, with an empty queue.

    Raises:
        OSError: the address is taken.
    """
    with socket.socket(fileno=os.dup(listener)) as sock:
        sock.listen(_BACKLOG)


def deafen(listener: int) -> None:
    """Have it listen no more. Linux keeps the address and resets what waits in the queue."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listener)) as sock:
        sock.shutdown(socket.SHUT_RD)
