"""Slots that wait for runs: made away from the hot path, taken over once, never used again.

Nothing of a caller is in a slot before it is claimed: what it is made from is its class, which
the operator's tools give. Its lease file is written before it exists; when a run takes it over
that file says which run, before the spawner hears of it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from remit.errors import RunnerFault
from remit.model import Lease, Limits, RunSpec
from remit.profile import Profile, RunnerKind
from remit.runners import orders, parked
from remit.runners.attempt import Attempt
from remit.runners.attempts import Attempts
from remit.runners.building import Builder
from remit.runners.channel import Channel
from remit.runners.pool import AT_ONCE, MIB, Keep, Pool, SlotClass, Waiting
from remit.telemetry import SLOT_CLAIMS, SLOT_REFILLS, SLOTS_WAITING, logger

_KINDS = ("shell", "python")
_WAITING = Limits(wall_s=60, memory_mb=256, pids=32)
"""What a slot may use while it waits. A claim sets what its run may."""

_SPARE_S = 30
"""How much longer than its age the spawner keeps a slot that nobody asks for any more."""

_MOMENT_S = 0.02
"""How long a run that was let go has before its slot is made anew."""

log = logger()


def class_of(spec: RunSpec, *, out: bool, kind: str) -> SlotClass | None:
    """The class of slots of this kind that could become a run; None if none could.

    A run with mounts of its own tool is made cold: what is mounted cannot be changed later. So is
    one that is spoken with, and one that cannot be told to what waits (see `parked.script`).
    """
    form = parked.python_form(spec.argv, spec.env) if kind == "python" else None
    if spec.mounts or spec.dialogue or (kind == "python" and form is None):
        return None
    prefix = () if form is None else form.prefix
    env = orders.environment(spec, out=out)
    try:
        parked.script(kind, prefix, spec.argv, env, empty=not spec.stdin, plain=False)
    except ValueError:
        return None
    return SlotClass(
        profile=spec.profile,
        kind=kind,
        tmp_mb=spec.limits.tmp_mb,
        open_files=spec.limits.open_files,
        prefix=prefix,
        out=out,
    )


def classes_of(spec: RunSpec, profile: Profile, *, out: bool) -> tuple[SlotClass, ...]:
    """What slots a profile keeps that could become such a run, the quickest first."""
    if profile.runner is not RunnerKind.SANDBOX:
        return ()
    kept = {"python": profile.warm.python, "shell": profile.warm.shell}
    found = (class_of(spec, out=out, kind=kind) for kind, size in kept.items() if size)
    return tuple(each for each in found if each is not None)


class Slots:
    """The warm pool of one runner.

    Args:
        gateway: its id.
        profiles: those whose promises were found to hold; others keep no slots.
        classes: all that slots are made for.
    """

    def __init__(
        self,
        attempts: Attempts,
        builder: Builder,
        *,
        gateway: str,
        profiles: Mapping[str, Profile],
        classes: Sequence[SlotClass],
    ) -> None:
        self._attempts = attempts
        self._builder = builder
        self._gateway = gateway
        self._profiles = profiles
        self._pool = _pool(profiles, classes)
        self._held: dict[str, Attempt] = {}
        self._era = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many of each kind could be taken now."""
        return {kind: self._pool.waiting(kind) for kind in _KINDS}

    # ------------------------------------------------------------------------------ taking

    async def take(self, channel: Channel, attempt: Attempt, profile: Profile) -> bool:
        """Have the run take over a slot that fits it; whether it did.

        A run that no slot is kept for is not counted. One whose slot refuses is made cold.
        """
        wanted = [
            each
            for each in classes_of(attempt.spec, profile, out=attempt.out)
            if self._pool.keeps(each)
        ]
        for of in wanted:
            if (slot := self._take(of)) is None:
                continue
            if await self._attempts.claim(channel, attempt, slot):
                attempt.kind = f"warm-{of.kind}"
                SLOT_CLAIMS.labels(of.kind, "hit").inc()
                return True
            SLOT_CLAIMS.labels(of.kind, "refused").inc()
            return False
        if wanted:
            SLOT_CLAIMS.labels(wanted[0].kind, "miss").inc()
        return False

    def _take(self, of: SlotClass) -> Attempt | None:
        """A slot of this class that is as it was made; what is not, is ended."""
        while (found := self._pool.take(of, time.monotonic())) is not None:
            slot = self._held.pop(found.id)
            self._show()
            slot.on_end = _nothing
            if _sound(slot):
                return slot
            self._do(self._end(slot))
        return None

    # ----------------------------------------------------------------------------- filling

    def look(self) -> None:
        """Make what is missing and end what is old, in the background. Cheap if there is nothing.

        Called when a run is gone, or was let go and had a moment for itself: making a sandbox
        would take from its first steps what the slot saved.
        """
        if self._closing:
            return
        now = time.monotonic()
        self._retire(self._pool.old(now), "old")
        self._retire(self._unsound(), "dead")
        while (of := self._pool.next(now)) is not None:
            self._do(self._make(of))
        if self._timer is not None:
            self._timer.cancel()
        wake_s = self._pool.wake_s(now)
        loop = asyncio.get_running_loop()
        self._timer = None if wake_s is None else loop.call_later(wake_s, self.look)

    def look_soon(self) -> None:
        """Look once a run that was let go just now has had its moment."""
        asyncio.get_running_loop().call_later(_MOMENT_S, self.look)

    async def _make(self, of: SlotClass) -> None:
        era, age_s = self._era, self._profiles[of.profile].warm.max_age_s
        lease = Lease(
            id=f"slot-{secrets.token_hex(8)}",
            gateway=self._gateway,
            fence=0,
            deadline_ms=round((time.time() + age_s + _SPARE_S) * 1000),
        )
        try:
            slot = await self._parked(lease, of)
        except RunnerFault as fault:
            log.warning("slot_not_made", profile=of.profile, kind=of.kind, exc_info=fault)
            SLOT_REFILLS.labels(of.kind, "failed").inc()
            self._pool.failed(of, time.monotonic())
        except BaseException:
            self._pool.dropped(of)
            raise
        else:
            if era != self._era or self._closing:
                self._pool.dropped(of)
                await self._end(slot)
            else:
                self._keep(slot, of, age_s)
        self.look()

    async def _parked(self, lease: Lease, of: SlotClass) -> Attempt:
        profile = self._profiles[of.profile]
        limits = replace(_WAITING, tmp_mb=of.tmp_mb, open_files=of.open_files)

        async def build(channel: Channel, attempt: Attempt) -> None:
            attempt.out = of.out
            trust = await self._builder.prepare(attempt, profile)
            self._attempts.write(attempt)
            await orders.park(channel, attempt, profile, trust, kind=of.kind, prefix=of.prefix)
            orders.accept(await attempt.provisioned.wait())

        spec = RunSpec(argv=("slot",), limits=limits, profile=of.profile)
        return await self._attempts.make(lease, spec, build, takes_place=False)

    def _keep(self, slot: Attempt, of: SlotClass, age_s: float) -> None:
        until = time.monotonic() + age_s
        memory = memory_of(self._attempts.link.hello["roots"], slot.file)
        self._pool.made(Waiting(id=slot.file, of=of, until=until), memory_bytes=memory)
        self._held[slot.file] = slot
        slot.on_end = lambda: self._died(slot, of)
        SLOT_REFILLS.labels(of.kind, "made").inc()
        self._show()
        if slot.ended.done:
            self._died(slot, of)

    # ------------------------------------------------------------------------------ ending

    async def drain(self, reason: str) -> None:
        """End every slot that waits; those being made are ended once they stand. New ones follow.

        Args:
            reason: why, in a word or two, for the log: what the slots were made from has changed.
        """
        self._era += 1
        found = self._pool.drain()
        if found and not self._closing:
            log.info("slots_drained", reason=reason, count=len(found))
        await asyncio.gather(*(self._end(self._held.pop(each.id)) for each in found))
        self._show()
        self.look()

    async def aclose(self) -> None:
        """End all of them; none is made any more."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self.drain("closing")
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _died(self, slot: Attempt, of: SlotClass) -> None:
        """A slot ended by itself, or with its spawner."""
        if self._held.pop(slot.file, None) is None:
            return
        self._pool.lost(slot.file)
        SLOT_REFILLS.labels(of.kind, "died").inc()
        self._show()
        self._do(self._end(slot))
        if not self._closing:
            asyncio.get_running_loop().call_soon(self.look)

    def _unsound(self) -> list[Waiting]:
        found = [name for name, slot in self._held.items() if not _sound(slot)]
        return self._pool.out(found)

    def _retire(self, slots: Sequence[Waiting], why: str) -> None:
        for each in slots:
            SLOT_REFILLS.labels(each.of.kind, why).inc()
            self._do(self._end(self._held.pop(each.id)))
        if slots:
            self._show()

    async def _end(self, slot: Attempt) -> None:
        slot.on_end = _nothing
        await self._attempts.destroy(slot.lease, slot.spec)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("slot_lost", exc_info=fault)

    def _show(self) -> None:
        for kind in _KINDS:
            SLOTS_WAITING.labels(kind).set(self._pool.waiting(kind))


def _nothing() -> None:
    """For a slot whose end nobody waits for."""


def _sound(slot: Attempt) -> bool:
    """Whether a slot is as it was made: alive, silent, and its way out still to be opened."""
    alive = not slot.ended.done and not slot.lost and slot.capture.silent
    return alive and (slot.way is None or slot.way.usable)


def _pool(profiles: Mapping[str, Profile], classes: Sequence[SlotClass]) -> Pool:
    keeps = {
        name: Keep(
            sizes={"shell": profile.warm.shell, "python": profile.warm.python},
            max_age_s=profile.warm.max_age_s,
            memory_bytes=profile.warm.memory_mb * MIB,
        )
        for name, profile in profiles.items()
        if profile.runner is RunnerKind.SANDBOX
    }
    warm = [profiles[name].warm for name in keeps]
    rates = [each.refill_per_s for each in warm if each.shell or each.python]
    rate = min(rates, default=1)
    return Pool(keeps, classes, refill_per_s=rate, now=time.monotonic())


def most_slots(profiles: Mapping[str, Profile], classes: Sequence[SlotClass]) -> int:
    """How many slots there can be at once, those that are just ending among them."""
    most = _pool(profiles, classes).most
    return 2 * most + AT_ONCE if most else 0


def memory_of(roots: Mapping[str, str], name: str) -> int | None:
    """What a control group keeps from others, in bytes: all that is charged to it but the cache
    of files, which the kernel gives back. None if nobody says."""
    for kind, usage, cache in (
        ("memory", "memory.usage_in_bytes", "cache"),
        ("unified", "memory.current", "file"),
    ):
        if (root := roots.get(kind)) is None:
            continue
        group = Path(root, name)
        try:
            lines = (group / "memory.stat").read_text().split("\n")
            facts = dict(line.split(" ", 1) for line in lines if line)
            files = int(facts[cache]) - int(facts.get("shmem", 0))
            return int((group / usage).read_bytes()) - files
        except (OSError, ValueError, KeyError):
            continue
    return None
