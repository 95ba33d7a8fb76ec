"""The lives of one gateway: started, asked for calls, killed or closed, started again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.ledger.sqlite import SqliteLedger
from remit.model import Run
from tests.chaos.ambush import Kill
from tests.chaos.leftovers import left
from tests.chaos.runs_world import World

START_S = 60
ANSWER_S = 60
"""No call may take longer, whatever was killed: it would hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a caller got."""

    tool: str
    code: str
    said: str


class Life:
    """One gateway process, from its start to its end. Make one with `begin`."""

    def __init__(self, world: World, process: asyncio.subprocess.Process) -> None:
        self._living = world.living
        self._living.add(process.pid)
        self._process = process
        self._waiting: dict[int, asyncio.Future[Answer | None]] = {}
        self._ready = asyncio.get_running_loop().create_future()
        self._struck: asyncio.Future[bool] | None = None
        self.answered = 0
        self.on_answer: Callable[[], None] = lambda: None
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def begin(cls, world: World, seed: int) -> Life:
        """Start it as operators do, and wait until it serves."""
        words = ("-m", "tests.chaos.runs_gateway", str(world.config), str(seed))
        life = cls(
            world,
            await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            ),
        )
        async with asyncio.timeout(START_S):
            assert await life._ready, "the gateway did not start"
        return life

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._reading.done()

    async def call(self, tool: str, number: int) -> Answer | None:
        """What the caller hears; None where the gateway died first."""
        waiting: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._say(call=[tool, number])
        if not self.alive:
            return None
        async with asyncio.timeout(ANSWER_S):
            return await waiting

    async def calls(self, wanted: Mapping[int, str]) -> dict[int, Answer | None]:
        """All at once, by their numbers."""
        answers = await asyncio.gather(*(self.call(tool, n) for n, tool in wanted.items()))
        return dict(zip(wanted, answers, strict=True))

    def arm(self, kill: Kill) -> None:
        self._struck = asyncio.get_running_loop().create_future()
        self._say(arm=dataclasses.asdict(kill))

    async def struck(self) -> None:
        """Until what was armed has struck; it is made to where its moment never came."""
        assert self._struck is not None
        async with asyncio.timeout(ANSWER_S):
            while not self._struck.done():
                self._say(spring=True)
                await asyncio.wait([self._struck], timeout=0.1)

    async def close(self) -> None:
        """End it as operators do."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._over(0)

    async def kill(self) -> None:
        self._process.kill()
        await self._over(-9)

    async def died(self) -> None:
        """It was killed from inside."""
        await self._over(-9)

    async def _over(self, status: int) -> None:
        async with asyncio.timeout(START_S):
            await self._reading
            self._living.discard(self._process.pid)
            assert await self._process.wait() == status

    def _say(self, **message: Any) -> None:
        assert self._process.stdin is not None
        if self.alive:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "reply" in said:
                self.answered += 1
                answer = Answer(tool=said["tool"], code=said["code"], said=said["said"])
                self._waiting.pop(said["reply"]).set_result(answer)
                self.on_answer()
            elif "struck" in said and self._struck is not None:
                self._struck.set_result(True)
            elif "ready" in said:
                self._ready.set_result(True)
        for waiting in self._waiting.values():
            waiting.set_result(None)
        for each in (self._ready, self._struck):
            if each is not None and not each.done():
                each.set_result(each is self._struck)


def nothing_left(world: World, told: str, *, alive: int | None = None) -> None:
    """Assert that nothing of any run is there, and without a gateway nothing of it either."""
    _none(left(world.own, alive=alive, slots=0 if alive is None else world.waiting), told)


def nothing_alive(world: World, told: str) -> None:
    """Assert that a killed gateway has left nothing but notes for the next."""
    _none(left(world.own, notes=False), told)


def _none(found: Sequence[str], told: str) -> None:
    assert not found, "\n".join([told, *found])


async def recorded(world: World) -> tuple[Sequence[Run], Sequence[Mapping[str, Any]], str]:
    """The runs and the entries in the ledger of a gateway that is closed, and its verifier key."""
    from remit.clock import SystemClock
    from remit.ledger.signer import FileSigner

    ledger = SqliteLedger.open(
        world.root / "data/ledger.db",
        signer=FileSigner.load(world.root / "data/keys/log.key"),
        gateway=world.own.gateway,
        clock=SystemClock(),
    )
    try:
        runs = await ledger.runs(limit=1_000_000)
        entries = [json.loads(entry.text) for entry in await ledger.entries(0, 10_000_000)]
        return runs, entries, ledger.verifier_key
    finally:
        await ledger.aclose()


async def verified(world: World, key: str) -> None:
    """Assert that the log is whole, by what anybody can run without a gateway."""
    words = ("-m", "remit", "audit", "verify", str(world.root / "data/ledger.db"), "--key", key)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
