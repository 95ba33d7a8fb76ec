"""How a run comes to its sandbox: a slot that waits is taken over, or one is made for it; then its
way out is opened. Every run goes through here, probe jobs too."""

from __future__ import annotations

from typing import Protocol

from remit.model import Lease, RunSpec
from remit.profile import Profile
from remit.runners import keeping, orders
from remit.runners.attempt import Attempt
from remit.runners.attempts import Attempts
from remit.runners.channel import Channel
from remit.runners.faults import ASK_DOCTOR, unavailable
from remit.runners.wayout import WayOut, check_within


class Shelf(Protocol):
    """Where slots wait."""

    async def take(self, channel: Channel, attempt: Attempt, profile: Profile) -> bool:
        """Have the run take over a slot that fits it; whether it did."""


class Builder:
    """Makes the sandboxes of runs.

    Args:
        out: gives runs their ways out; None where none has one.
    """

    def __init__(self, attempts: Attempts, out: WayOut | None) -> None:
        self._attempts = attempts
        self._out = out
        self.shelf: Shelf | None = None

    async def make(
        self, lease: Lease, spec: RunSpec, profile: Profile, *, out: bool, kept: bool = False
    ) -> None:
        """Have a run's sandbox made, once for a lease, its command held.

        Args:
            out: it gets a way out, by the rules of its spec.
            kept: its way out is opened for one run at a time (`keeping`), and for itself never.

        Raises:
            RunnerFault: it was not made, and nothing of it is left.
        """
        check_within(spec.egress, profile)

        async def build(channel: Channel, attempt: Attempt) -> None:
            attempt.out, attempt.kept = out, kept
            shelf = None if kept else self.shelf
            if shelf is None or not await shelf.take(channel, attempt, profile):
                await self._cold(channel, attempt, profile)
            if out and kept:
                keeping.prepare(attempt.listener)
            elif out:
                await self._let_out(attempt)

        await self._attempts.make(lease, spec, build)

    async def _cold(self, channel: Channel, attempt: Attempt, profile: Profile) -> None:
        trust = await self.prepare(attempt, profile)
        self._attempts.write(attempt)
        await orders.provision(channel, attempt, profile, trust)
        orders.accept(await attempt.provisioned.wait())
        if attempt.dialogue is not None and not attempt.dialogue.connected:
            raise unavailable("the sandbox stands without its pipes")

    async def prepare(self, attempt: Attempt, profile: Profile) -> bytes:
        """What has to be there before a sandbox with a way out is made; gives its trust file.

        Raises:
            RunnerFault: there is no way out here.
        """
        if not attempt.out:
            return b""
        if self._out is None:
            raise unavailable("runs have no way out here", hint=ASK_DOCTOR)
        attempt.way, trust = await self._out.prepare(attempt.lease.id, profile)
        return trust

    async def _let_out(self, attempt: Attempt) -> None:
        if attempt.way is None or attempt.listener < 0:
            raise unavailable("the sandbox stands without its way out")
        try:
            await attempt.way.open(attempt.lease, attempt.spec, attempt.listener)
        finally:
            attempt.close_listener()
