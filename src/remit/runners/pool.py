"""Which slots to keep waiting: numbers and times alone, without a process, a clock or a task.

A slot is a sandbox made ahead of need, for one class of runs. It is taken once or thrown away.
How many wait is bounded by number and by memory; how fast they are made is bounded by one bucket
of tokens over all of them, without any delay after a claim or a failure: a refill that waits
drains the pool just when it is needed. A class whose slots fail time after time is tried again
once a second, and holds nobody else up.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MIB = 1024 * 1024
COST = {"shell": 3 * MIB, "python": 12 * MIB}
"""What a slot of each kind is taken to need before one was measured."""

AT_ONCE = 2
"""Slots that are being made at a time: as much as a machine of two cores has to spare."""

BURST = 8.0
STUBBORN = 10
"""Failures in a row after which a class is tried once a second."""

_PATIENCE_S = 1.0
_FORGET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotClass:
    """What a slot is made for, all of which is known before any run: nothing of a caller.

    Args:
        kind: `shell` or `python`.
        prefix: the interpreter and its flags, for `python`.
        out: it is made with a way out, not open yet.
    """

    profile: str
    kind: str
    tmp_mb: int
    open_files: int
    prefix: tuple[str, ...] = ()
    out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A slot that waits, and until when it may be taken, in seconds of the caller's clock."""

    id: str
    of: SlotClass
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How many slots of a profile are kept: of each kind, how long, and in how much memory."""

    sizes: Mapping[str, int]
    max_age_s: float = 300.0
    memory_bytes: int = 256 * MIB


@dataclass(slots=True)
class _Stock:
    """One class: what waits, what is being made, and how much it is asked for."""

    waiting: deque[Waiting] = field(default_factory=deque)
    pending: int = 0
    asked: float = 0.0
    failed: int = 0
    not_before: float = 0.0

    @property
    def count(self) -> int:
        return len(self.waiting) + self.pending


class Pool:
    """The stock of slots. Every method is told the time; none waits.

    Args:
        keeps: by profile; a profile that is not in it keeps none.
        classes: all that slots are ever made for.
        refill_per_s: slots made a second at most, of all profiles together.
        now: the time it is, in seconds that never go back.
    """

    def __init__(
        self,
        keeps: Mapping[str, Keep],
        classes: Sequence[SlotClass],
        *,
        refill_per_s: float,
        now: float,
    ) -> None:
        self._keeps = keeps
        self._stock = {
            each: _Stock()
            for each in classes
            if each.profile in keeps and keeps[each.profile].sizes.get(each.kind, 0) > 0
        }
        self._rate = refill_per_s
        self._tokens, self._filled = BURST, now
        self._faded = now
        self._cost = dict(COST)
        self._where: dict[str, SlotClass] = {}

    @property
    def most(self) -> int:
        """Slots that there can be at once."""
        groups = {(each.profile, each.kind) for each in self._stock}
        return sum(self._keeps[profile].sizes[kind] for profile, kind in groups)

    def waiting(self, kind: str) -> int:
        return sum(len(s.waiting) for each, s in self._stock.items() if each.kind == kind)

    # ------------------------------------------------------------------------------ taking

    def take(self, of: SlotClass, now: float) -> Waiting | None:
        """The oldest slot of this class that is not too old; it is nobody else's from here on."""
        if (stock := self._stock.get(of)) is None:
            return None
        stock.asked += 1
        for slot in stock.waiting:
            if slot.until > now:
                self.lost(slot.id)
                return slot
        return None

    def keeps(self, of: SlotClass) -> bool:
        """Whether slots of this class are made at all."""
        return of in self._stock

    def lost(self, slot_id: str) -> None:
        """A slot waits no more, for whatever reason; one that is not known is no error."""
        if (of := self._where.pop(slot_id, None)) is not None:
            stock = self._stock[of]
            stock.waiting = deque(each for each in stock.waiting if each.id != slot_id)

    def old(self, now: float) -> list[Waiting]:
        """Take out what waited too long."""
        found = [s for stock in self._stock.values() for s in stock.waiting if s.until <= now]
        for slot in found:
            self.lost(slot.id)
        return found

    def out(self, ids: Sequence[str]) -> list[Waiting]:
        """Take out those of these names."""
        named = frozenset(ids)
        found = [s for stock in self._stock.values() for s in stock.waiting if s.id in named]
        for slot in found:
            self.lost(slot.id)
        return found

    def drain(self) -> list[Waiting]:
        """Take out everything. What is being made meanwhile is for whoever called to tell apart."""
        return self.out(list(self._where))

    # ----------------------------------------------------------------------------- filling

    def next(self, now: float) -> SlotClass | None:
        """What to make a slot of now, if anything; whoever is told tells `made` or `failed`."""
        self._tick(now)
        if self._tokens < 1 or sum(s.pending for s in self._stock.values()) >= AT_ONCE:
            return None
        wanted = [
            (lacks, of)
            for of, lacks in self._lacking().items()
            if lacks > 0 and self._stock[of].not_before <= now
        ]
        if not wanted:
            return None
        _, of = max(wanted, key=lambda each: each[0])
        self._tokens -= 1
        self._stock[of].pending += 1
        return of

    def made(self, slot: Waiting, *, memory_bytes: int | None = None) -> None:
        """A slot stands and waits.

        Args:
            memory_bytes: what it was seen to take; later ones are counted with the most seen.
        """
        stock = self._stock[slot.of]
        stock.pending -= 1
        stock.failed = 0
        stock.waiting.append(slot)
        self._where[slot.id] = slot.of
        if memory_bytes is not None:
            self._cost[slot.of.kind] = max(self._cost[slot.of.kind], memory_bytes)

    def failed(self, of: SlotClass, now: float) -> None:
        """A slot could not be made, or is not wanted any more. The others know nothing of it."""
        stock = self._stock[of]
        stock.pending -= 1
        stock.failed += 1
        if stock.failed >= STUBBORN:
            stock.not_before = now + _PATIENCE_S

    def dropped(self, of: SlotClass) -> None:
        """A slot was made for nothing, through no fault of its class."""
        self._stock[of].pending -= 1

    def wake_s(self, now: float) -> float | None:
        """Seconds until there is something to do again, if nobody takes a slot before."""
        self._tick(now)
        whens = [slot.until - now for stock in self._stock.values() for slot in stock.waiting]
        lacking = [of for of, lacks in self._lacking().items() if lacks > 0]
        if lacking and sum(s.pending for s in self._stock.values()) < AT_ONCE:
            token = max(0.0, (1 - self._tokens) / self._rate)
            patient = min(self._stock[of].not_before - now for of in lacking)
            whens.append(max(token, patient))
        return max(0.0, min(whens)) if whens else None

    def _lacking(self) -> dict[SlotClass, int]:
        """How many more of each class are wanted, within number and memory."""
        lacking: dict[SlotClass, int] = {}
        groups: dict[tuple[str, str], list[SlotClass]] = defaultdict(list)
        for of in self._stock:
            groups[of.profile, of.kind].append(of)
        for (profile, kind), members in groups.items():
            size = self._keeps[profile].sizes[kind]
            room = min(size - self._count(members), self._room(profile, kind))
            shares = apportion(size, {of: 1 + self._stock[of].asked for of in members})
            for of in members:
                lacking[of] = min(room, shares[of] - self._stock[of].count)
        return lacking

    def _count(self, members: Sequence[SlotClass]) -> int:
        return sum(self._stock[of].count for of in members)

    def _room(self, profile: str, kind: str) -> int:
        """How many more of this kind fit into the profile's memory."""
        used = sum(
            stock.count * self._cost[of.kind]
            for of, stock in self._stock.items()
            if of.profile == profile
        )
        return (self._keeps[profile].memory_bytes - used) // self._cost[kind]

    def _tick(self, now: float) -> None:
        self._tokens = min(BURST, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if now - self._faded >= _FORGET_S:
            self._faded = now
            for stock in self._stock.values():
                stock.asked /= 2


def apportion(size: int, weights: Mapping[SlotClass, float]) -> dict[SlotClass, int]:
    """So many slots over classes by how much each is asked for, by largest remainder.

    The parts add up to the size; where classes are more than slots, those asked for most get one.
    """
    total = sum(weights.values())
    exact = {of: size * weight / total for of, weight in weights.items()}
    parts = Counter({of: int(part) for of, part in exact.items()})
    left = size - parts.total()
    for of in sorted(exact, key=lambda each: exact[each] - int(exact[each]), reverse=True)[:left]:
        parts[of] += 1
    return {of: parts[of] for of in weights}
