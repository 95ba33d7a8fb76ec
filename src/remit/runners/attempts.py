"""Every lease that this process holds, and the one spawner that holds their sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from remit.model import Destruction, Lease, RunSpec
from remit.runners import orders
from remit.runners.attempt import Attempt, Once
from remit.runners.channel import Channel, Report, SpawnerGone
from remit.runners.evidence import UNSEEN, destruction
from remit.runners.faults import unavailable
from remit.runners.leases import Leases
from remit.runners.link import Link
from remit.runners.mounts import IDENTIFIER
from remit.runners.wire import close_all

_SPENT_KEPT = 10_000

Ask = Callable[[Channel, Attempt], Awaitable[None]]
"""Sends the message that makes what an attempt is of."""


class Attempts:
    """What is held, by lease; where each is on its way is in the `Attempt`.

    The lease file of a sandbox is written before the spawner hears of it, and removed only after
    the spawner saw its end.

    Args:
        state_dir: lease files go to `leases` in it.
        greeting: what each spawner is told first.
        places: sandboxes at a time; more wait until their lease's deadline.
    """

    def __init__(self, state_dir: Path, greeting: dict[str, Any], places: int) -> None:
        self.link = Link(greeting, self._take, self._lose)
        self.places = asyncio.Semaphore(places)
        self._leases = Leases(state_dir)
        self._held: dict[str, Attempt] = {}
        self._spent: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, lease_id: str) -> Attempt | None:
        return self._held.get(lease_id)

    def known(self, lease: Lease) -> Attempt:
        """What is held of a lease.

        Raises:
            RunnerFault: nothing.
        """
        if (attempt := self._held.get(lease.id)) is None:
            raise unavailable("this lease has no sandbox")
        return attempt

    def unspend(self, lease_id: str) -> None:
        """Let a name be used again, which is for probe jobs alone."""
        self._spent.pop(lease_id, None)

    # ------------------------------------------------------------------------------ making

    async def make(self, lease: Lease, spec: RunSpec, ask: Ask) -> Attempt:
        """Have a sandbox made, once for a lease, ever; give what is held of it.

        Raises:
            RunnerFault: it was not made, and nothing of it is left.
        """
        if (known := self._held.get(lease.id)) is not None:
            orders.accept(await known.provisioned.wait())
            return known
        if not IDENTIFIER.fullmatch(lease.id) or lease.id in self._spent:
            raise unavailable("this lease cannot be used, or not again")
        attempt = self._held[lease.id] = Attempt(lease, spec, self._flood)
        try:
            await self._take_place(attempt)
            channel = await self.link.connect()
            self._leases.write(lease, self.link.hello["roots"])
            attempt.written = True
            await ask(channel, attempt)
            orders.accept(await attempt.provisioned.wait())
            return attempt
        except BaseException as exc:
            await asyncio.shield(self._undo(attempt))
            if isinstance(exc, (SpawnerGone, OSError)):
                raise unavailable("the sandbox could not be asked for") from exc
            raise

    async def _take_place(self, attempt: Attempt) -> None:
        left_s = attempt.lease.deadline_ms / 1000 - time.time()
        try:
            if self.places.locked():
                async with asyncio.timeout(max(0.0, left_s)):
                    await self.places.acquire()
            else:
                await self.places.acquire()
        except TimeoutError:
            raise unavailable("no place for a run became free in time") from None
        attempt.placed = True

    async def _undo(self, attempt: Attempt) -> None:
        """Nothing of a failed provision may stay: neither a process nor its place."""
        attempt.capture.finish()
        if attempt.sent:
            await self._gone(attempt)
        if attempt.written:
            self._leases.remove(attempt.lease.id)
        self._forget(attempt)

    async def tell(self, attempt: Attempt, message: Mapping[str, Any]) -> None:
        """Send a message about a lease; one that cannot arrive is about what is gone already."""
        if (channel := self.link.channel) is not None:
            with contextlib.suppress(SpawnerGone):
                await channel.send({**message, "lease": attempt.lease.id})

    def _flood(self, attempt: Attempt) -> None:
        kill = self.tell(attempt, {"op": "kill", "why": "output"})
        task = asyncio.get_running_loop().create_task(kill)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------------------- destruction

    async def destroy(self, lease: Lease, nothing: RunSpec) -> Destruction:
        """End what is there of a lease and say what was seen; for `nothing`, of an unknown one."""
        attempt = self._held.get(lease.id)
        if attempt is None:
            attempt = Attempt(lease, nothing, self._flood)
        found = await self._gone(attempt)
        attempt.capture.finish()
        if lease.id in self._held:
            self._forget(attempt)
        if found is None:
            # Its lease stays written, so that a sweep finds it; no place is held for it.
            return self._evidence(UNSEEN, lease.id)
        self._leases.remove(lease.id)
        return self._evidence(found, lease.id)

    async def _gone(self, attempt: Attempt) -> dict[str, Any] | None:
        """The spawner's evidence; the next spawner's if this one is lost on the way."""
        lease_id = attempt.lease.id
        for _ in range(2):
            if attempt.evidence is not None:
                break
            if attempt.destroyed.done:
                attempt.destroyed = Once()
            self._held.setdefault(lease_id, attempt)
            with contextlib.suppress(SpawnerGone):
                await (await self.link.connect()).send({"op": "destroy", "lease": lease_id})
                await attempt.destroyed.wait()
        return attempt.evidence

    def _forget(self, attempt: Attempt) -> None:
        attempt.close()
        self._held.pop(attempt.lease.id, None)
        self._spent[attempt.lease.id] = None
        if len(self._spent) > _SPENT_KEPT:
            self._spent.popitem(last=False)
        if attempt.placed:
            attempt.placed = False
            self.places.release()

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy what is found and has no live lease; what this process itself holds is live."""
        await self.link.connect()
        known = live | frozenset(self._held)
        files = self._leases.found()
        roots = {root for roots in files.values() for root in roots}
        stale = [name for name in files if name not in known and IDENTIFIER.fullmatch(name)]
        try:
            found = await self.link.sweep(live=sorted(known), leases=stale, roots=sorted(roots))
        except SpawnerGone:
            raise unavailable("the spawner ended during a sweep") from None
        for each in found:
            self._leases.remove(each["lease"])
        return [self._evidence(each, each["lease"]) for each in found]

    def _evidence(self, found: Mapping[str, Any], lease_id: str) -> Destruction:
        return destruction(found, lease_id, lease_left=self._leases.exists(lease_id))

    # -------------------------------------------------------------------- from the spawner

    def _take(self, report: Report) -> None:
        attempt = self._held.get(str(report.message.get("lease")))
        if attempt is None:
            close_all(report.fds)
        else:
            attempt.take(report)

    def _lose(self) -> None:
        for attempt in self._held.values():
            attempt.lose()
