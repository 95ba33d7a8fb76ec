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
from remit.runners.evidence import UNSEEN, came, destruction
from remit.runners.faults import unavailable
from remit.runners.leases import Found, Leases
from remit.runners.link import Link
from remit.runners.mounts import IDENTIFIER
from remit.runners.wire import close_all

_SPENT_KEPT = 10_000

Build = Callable[[Channel, Attempt], Awaitable[None]]
"""Makes what an attempt is of: writes its lease, asks for it, waits until it stands."""


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

    @property
    def held(self) -> frozenset[str]:
        """The names of all that is held; a run in a slot goes by two."""
        return frozenset(self._held)

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

    async def make(
        self, lease: Lease, spec: RunSpec, build: Build, *, takes_place: bool = True
    ) -> Attempt:
        """Have a sandbox made, once for a lease, ever.

        Args:
            build: does it; what it raises becomes a RunnerFault.
            takes_place: whether it counts among the sandboxes at a time. Slots do not.

        Raises:
            RunnerFault: it was not made, and nothing of it is left.
        """
        if (known := self._held.get(lease.id)) is not None:
            await known.made.wait()
            orders.accept(known.made.report)
            return known
        if not IDENTIFIER.fullmatch(lease.id) or lease.id in self._spent:
            raise unavailable("this lease cannot be used, or not again")
        attempt = self._held[lease.id] = Attempt(lease, spec, self._flood)
        try:
            if takes_place:
                await self._take_place(attempt)
            await build(await self.link.connect(), attempt)
            attempt.made.set(attempt.provisioned.report)
        except BaseException as exc:
            await asyncio.shield(self._undo(attempt))
            attempt.made.set(None)
            if isinstance(exc, (SpawnerGone, OSError)):
                raise unavailable("the sandbox could not be asked for") from exc
            raise
        return attempt

    def write(self, attempt: Attempt) -> None:
        """Write the lease of what is about to be made."""
        self._leases.write(attempt.lease, self.link.hello["roots"])
        attempt.written = True

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
        attempt.close_streams()
        if attempt.claiming is not None:
            await self._settled(attempt)
        if attempt.sent:
            await self._gone(attempt)
        await _shut(attempt)
        if attempt.written:
            self._leases.remove(attempt.file)
        self._forget(attempt)

    # ------------------------------------------------------------------------------- slots

    async def claim(self, channel: Channel, attempt: Attempt, slot: Attempt) -> bool:
        """Have a run take over a slot; whether it did. If not, nothing is left of the slot.

        Raises:
            SpawnerGone, OSError: it could not be asked for; nothing is left of the slot.
        """
        try:
            self._leases.claim(slot.lease.id, attempt.lease, self.link.hello["roots"])
            attempt.claiming = slot
            await orders.claim(channel, attempt, slot.lease.id)
        except BaseException:
            attempt.claiming = None
            await asyncio.shield(self.destroy(slot.lease, slot.spec))
            raise
        return await self._settled(attempt)

    async def _settled(self, attempt: Attempt) -> bool:
        """Wait for what became of a claim that was sent: the spawner always answers, or is lost.

        A slot that refuses is ended by the spawner itself.
        """
        await attempt.claimed.wait()
        if (slot := attempt.claiming) is None:
            return True
        await slot.ended.wait()
        attempt.claiming = None
        attempt.claimed = Once()
        await self.destroy(slot.lease, slot.spec)
        return False

    # ---------------------------------------------------------------------------- messages

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
        found, _ = await asyncio.gather(self._gone(attempt), _shut(attempt))
        attempt.close_streams()
        if lease.id in self._held:
            self._forget(attempt)
        if found is not None:  # else its lease stays written, so that a sweep finds it
            self._leases.remove(attempt.file)
        return self._evidence(attempt, UNSEEN if found is None else found)

    async def _gone(self, attempt: Attempt) -> dict[str, Any] | None:
        """The spawner's evidence; the next spawner's if this one is lost on the way."""
        for _ in range(2):
            if attempt.evidence is not None:
                break
            if attempt.destroyed.done:
                attempt.destroyed = Once()
            # Another spawner than the one that made it finds it by its control group's name.
            name = attempt.file if attempt.lost else attempt.lease.id
            for each in (attempt.lease.id, attempt.file):
                self._held.setdefault(each, attempt)
            with contextlib.suppress(SpawnerGone):
                await (await self.link.connect()).send({"op": "destroy", "lease": name})
                await attempt.destroyed.wait()
        return attempt.evidence

    def _forget(self, attempt: Attempt) -> None:
        for name in {attempt.lease.id, attempt.file}:
            self._held.pop(name, None)
            self._spent[name] = None
        while len(self._spent) > _SPENT_KEPT:
            self._spent.popitem(last=False)
        if attempt.placed:
            attempt.placed = False
            self.places.release()

    def _evidence(self, attempt: Attempt, found: Mapping[str, Any]) -> Destruction:
        way = attempt.way
        return destruction(
            found,
            attempt.lease.id,
            lease_left=self._leases.exists(attempt.file),
            proxy_closed=way is None or way.closed_ms is not None,
            proxy_ms=None if way is None else way.closed_ms,
            note=_in_slot(attempt.slot),
        )

    # -------------------------------------------------------------------------------- sweep

    async def sweep(self, live: frozenset[str]) -> Sequence[Destruction]:
        """Destroy what is found and has no live lease; what this process itself holds is live."""
        await self.link.connect()
        known = live | self.held
        files = self._leases.found()
        known |= {name for name, found in files.items() if found.run in known}
        roots = {root for found in files.values() for root in found.roots}
        stale = [name for name in files if name not in known and IDENTIFIER.fullmatch(name)]
        try:
            found = await self.link.sweep(live=sorted(known), leases=stale, roots=sorted(roots))
        except SpawnerGone:
            raise unavailable("the spawner ended during a sweep") from None
        return [self._swept(came(each), files.get(each["lease"])) for each in found]

    def _swept(self, evidence: dict[str, Any], file: Found | None) -> Destruction:
        name = evidence["lease"]
        run = name if file is None else file.run
        left = not self._leases.remove(name)
        slot = None if run == name else name
        return destruction(evidence, run, lease_left=left, note=_in_slot(slot))

    # -------------------------------------------------------------------- from the spawner

    def _take(self, report: Report) -> None:
        attempt = self._held.get(str(report.message.get("lease")))
        if attempt is None:
            close_all(report.fds)
        else:
            attempt.take_claim(report)
            if attempt.slot is not None:
                self._held[attempt.slot] = attempt

    def _lose(self) -> None:
        for attempt in set(self._held.values()):
            attempt.lose()


def _in_slot(slot: str | None) -> str | None:
    return None if slot is None else f"in {slot}"


async def _shut(attempt: Attempt) -> None:
    """Close a run's way out, if it had one, and that of the run whose turn it is."""
    if attempt.turn is not None and attempt.turn.way is not None:
        await attempt.turn.way.close()
    attempt.close_listener()
    if attempt.way is not None:
        await attempt.way.close()
