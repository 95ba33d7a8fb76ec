"""Hundreds of runs of every kind, one of ten killed under way with whatever serves it.

Whoever dies, and whenever: each call is answered or its gateway is dead, each run is closed in the
log, the next runs work, and nothing is left: no process, mount, namespace, control group, directory,
socket, or credential at the system that lent it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest

from remit.model import Ending, Run, RunState
from remit.testing.tripwire import When
from tests.chaos.ambush import STEPS, Kill, Victim
from tests.chaos.leftovers import children_of
from tests.chaos.lives import Answer, Life, nothing_alive, nothing_left, recorded, verified
from tests.chaos.namespaces import descriptors
from tests.chaos.runs_world import SAYS, TOOLS, WRITES, World, world
from tests.chaos.world import adopt_orphans

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.timeout(3600),  # the rounds are many; each has a bound of its own
]

RUNS = 1_000
OF_TEN = 10
AGENTS = 10
CALLS = 100
CLEAN = {
    "processes_left": 0,
    "mounts_left": 0,
    "cgroup_removed": True,
    "directory_removed": True,
    "proxy_closed": True,
}
"""What the record says of each run that worked. What a killed keeper had lent is taken back by the
next one, after the run's own record was written."""

WRITTEN_OFF_S = 5
SPARE = 24
"""Descriptors that a process may have open beyond those after its first round: a slot that is just
being made, a connection that is kept."""

VICTIMS = (
    *(Victim.RUN, Victim.RUN, Victim.RUN, Victim.GATEWAY, Victim.GATEWAY, Victim.GATEWAY),
    *(Victim.SPAWNER, Victim.PROXY, Victim.KEEPER, Victim.SLOT),
)
"""Who dies in ten rounds."""


def kills(dice: random.Random, rounds: int) -> list[Kill]:
    """Each victim in its turn, at a step of the path or at a moment of its own."""
    found: list[Kill] = []
    turns = [dice.sample(VICTIMS, len(VICTIMS)) for _ in range(0, rounds, len(VICTIMS))]
    for victim in list(itertools.chain(*turns))[:rounds]:
        if dice.random() < 0.4:
            found.append(Kill(victim=victim, after_s=dice.uniform(0, 0.4)))
        else:
            port, method = dice.choice(STEPS)
            when, nth = dice.choice(list(When)), dice.randint(1, 3)
            found.append(Kill(victim=victim, port=port, method=method, when=when, nth=nth))
    return found


class Rounds:
    """Rounds of ten calls: four under which somebody dies, then one of each tool that must work."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._seed = seed
        self._dice = random.Random(seed)
        self._numbers = 0
        self._open: dict[int, int] = {}
        self._answered = 0
        self.worked: dict[int, str] = {}
        self.life: Life

    async def begin(self) -> None:
        self.life = await Life.begin(self._world, self._seed)

    async def go(self, kill: Kill, told: str) -> None:
        self.life.arm(kill)
        attacked = self._numbered(self._dice.choices(TOOLS, k=OF_TEN - len(TOOLS)))
        answers = await self.life.calls(attacked)
        await self.life.struck()
        self._worked(answers)
        if kill.victim is Victim.GATEWAY:
            await self.life.died()
            nothing_alive(self._world, told)
            await self.begin()
        else:
            assert self.life.alive, told
            assert None not in answers.values(), told
        await self._prove(told)
        if kill.victim is Victim.KEEPER:
            await self._written_off()
        nothing_left(self._world, told, alive=self.life.pid)
        self._same_descriptors(told)

    async def _prove(self, told: str) -> None:
        """Whatever has died: each kind of run works again."""
        answers = await self.life.calls(self._numbered(TOOLS))
        for number, answer in answers.items():
            assert answer is not None, told
            assert answer.code == "ok", (told, answer)
            assert answer.said.strip() == expected(answer.tool, number), told
        self._worked(answers)

    async def _written_off(self) -> None:
        """A token that was on its way to a keeper that died is nobody's: see `World.lost`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITTEN_OFF_S):
                while self._world.own.lent():
                    await asyncio.sleep(0.05)
        self._world.lost.update(self._world.lender.live)

    def _same_descriptors(self, told: str) -> None:
        """Processes that serve run after run keep nothing open of those that are over."""
        for pid in (self.life.pid, *children_of(self.life.pid)):
            now = len(list(descriptors(pid)))
            first = self._open.setdefault(pid, now)
            assert now <= first + SPARE, f"{told}: process {pid} had {first} open, now {now}"

    def _numbered(self, tools: Sequence[str]) -> dict[int, str]:
        first = self._numbers
        self._numbers += len(tools)
        return dict(enumerate(tools, first))

    async def fill(self, runs: int) -> None:
        """Undisturbed calls, for those that never became runs because their gateway was dead."""
        while self._answered < runs:
            answers = await self.life.calls(self._numbered(self._dice.choices(TOOLS, k=OF_TEN)))
            assert all(each is not None and each.code == "ok" for each in answers.values()), answers
            self._worked(answers)

    def _worked(self, answers: Mapping[int, Answer | None]) -> None:
        self._answered += sum(each is not None for each in answers.values())
        good = {n: each.tool for n, each in answers.items() if each and each.code == "ok"}
        self.worked.update(good)


def expected(tool: str, number: int) -> str:
    plain = {"look": f"number={number}", "mark": "", "long": "slept"}
    return (SAYS | plain)[tool]


async def closed(world: World, worked: Mapping[int, str]) -> Sequence[Run]:
    """Hold the log against what was seen; give its runs."""
    runs, entries, key = await recorded(world)
    await verified(world, key)
    assert not [run for run in runs if run.state.open]
    intended = Counter(entry["run"] for entry in entries if entry["event"] == "call.intent")
    ended = Counter(entry["run"] for entry in entries if entry["event"] == "call.outcome")
    assert intended == ended == Counter(run.id for run in runs)
    told = sum(json.dumps(entry).count("ended while it asked") for entry in entries)
    assert len(world.lost) <= told, "a token was lost of which the record says nothing"
    for entry in entries:
        if entry["event"] == "call.outcome" and entry["state"] == "succeeded":
            left = {name: entry["destruction"][name] for name in CLEAN}
            assert left == CLEAN, entry
    states = Counter(run.state for run in runs)
    assert states[RunState.SUCCEEDED] >= len(worked)
    effects = Counter(world.effects())
    assert not [number for number, times in effects.items() if times > 1], "one grant ran twice"
    assert {number for number, tool in worked.items() if tool == "mark"} <= set(effects)
    for run in runs:
        # A read whose gateway lives, but whose spawner died with it, is lost like any other run.
        known = run.state is not RunState.UNKNOWN or run.ending is Ending.LOST
        assert known or run.tool_name in WRITES, run
    print(f"{len(runs)} runs: " + ", ".join(f"{states[each]} {each.value}" for each in states))
    return runs


@pytest.mark.threat("T-14", "T-15", "T-18", "T-34", "T-36")
async def test_runs_of_which_one_in_ten_is_killed_are_closed_and_leave_nothing(
    seed: int, chaos_count: Callable[[int], int]
) -> None:
    adopt_orphans()
    with world() as made:
        rounds = Rounds(made, seed)
        await rounds.begin()
        planned = kills(random.Random(seed), chaos_count(RUNS) // OF_TEN)
        for number, kill in enumerate(planned):
            await rounds.go(kill, f"seed {seed}, round {number}: {kill}")
        await rounds.fill(chaos_count(RUNS))
        await rounds.life.close()
        nothing_left(made, f"seed {seed}: the end")
        assert len(await closed(made, rounds.worked)) >= chaos_count(RUNS)


@pytest.mark.threat("T-14", "T-15", "T-18", "T-34", "T-36")
async def test_ten_agents_whose_gateway_is_killed_midway_leave_no_orphan(
    seed: int, chaos_count: Callable[[int], int]
) -> None:
    adopt_orphans()
    calls = chaos_count(CALLS)
    dice = random.Random(seed)
    with world() as made:
        life = await Life.begin(made, seed)
        midway = AGENTS * calls * dice.uniform(0.3, 0.7)
        enough = asyncio.Event()
        life.on_answer = lambda: enough.set() if life.answered >= midway else None
        agents = [
            asyncio.ensure_future(agent(life, range(first, first + calls), dice.random()))
            for first in range(0, AGENTS * calls, calls)
        ]
        await asyncio.wait(
            [asyncio.ensure_future(enough.wait()), *agents], return_when="FIRST_COMPLETED"
        )
        await life.kill()
        before = [number for each in agents for number in await each]
        assert len(before) < AGENTS * calls
        nothing_alive(made, f"seed {seed}: killed after {life.answered} calls")
        await (life := await Life.begin(made, seed)).close()
        nothing_left(made, f"seed {seed}: recovered and closed")
        await closed(made, dict.fromkeys(before, ""))


async def agent(life: Life, numbers: range, luck: float) -> list[int]:
    """One call after another, until the gateway is dead; the numbers of those that worked."""
    dice, worked = random.Random(luck), []
    for number in numbers:
        answer = await life.call(dice.choice(TOOLS), number)
        if answer is None:
            break
        assert answer.code == "ok", answer
        worked.append(number)
    return worked
