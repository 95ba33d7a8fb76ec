"""The circuit breaker against a plain account of what it promises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remit import breaker as breakers
from remit.breaker import Breaker, Gate
from tests.policy.opa.world import asking, decided, http, request_of, said
from tests.policy.world import ask, code_of

FAILURES = 3
PAUSE_S = 2.0


class BreakerLife(RuleBasedStateMachine):
    """Any order of questions, outcomes, trials and time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(lambda: self.now, failures=FAILURES, pause_s=PAUSE_S)
        self.out = 0  # questions that were let pass and have not ended
        self.in_a_row = 0
        self.opened = False
        self.trying = False
        self.not_before = 0.0

    @rule(seconds=st.floats(0, 3))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def somebody_asks(self) -> None:
        gate = self.breaker.admit()
        if not self.opened:
            assert gate is Gate.PASS
            self.out += 1
        elif self.trying or self.now < self.not_before:
            assert gate is Gate.REFUSED
        else:
            assert gate is Gate.TRIAL
            self.trying = True

    @precondition(lambda self: self.out > 0)
    @rule()
    def it_is_answered(self) -> None:
        self.out -= 1
        self.breaker.succeeded()
        self.in_a_row = 0

    @precondition(lambda self: self.out > 0)
    @rule()
    def it_fails(self) -> None:
        self.out -= 1
        self.breaker.failed()
        self.in_a_row += 1
        if self.in_a_row >= FAILURES and not self.opened:
            self.opened, self.not_before = True, self.now

    @precondition(lambda self: self.trying)
    @rule(well=st.sampled_from([True, False, None]))
    def the_trial_ends(self, well: bool | None) -> None:
        self.breaker.tried(well)
        self.trying = False
        if well:
            self.opened, self.in_a_row = False, 0
        elif well is False:
            self.not_before = self.now + PAUSE_S

    @invariant()
    def it_says_whether_it_is_open(self) -> None:
        assert self.breaker.open is self.opened


TestBreakerLife = BreakerLife.TestCase


def _opened(now: list[float]) -> Breaker:
    breaker = Breaker(lambda: now[0], failures=FAILURES, pause_s=PAUSE_S)
    for _ in range(FAILURES):
        assert breaker.admit() is Gate.PASS
        breaker.failed()
    return breaker


def test_failures_with_an_answer_between_them_do_not_open_it() -> None:
    breaker = Breaker(lambda: 0.0, failures=2)
    for _ in range(10):
        breaker.failed()
        breaker.succeeded()
    assert not breaker.open


def test_only_one_trial_is_under_way_at_a_time() -> None:
    breaker = _opened([0.0])
    assert [breaker.admit() for _ in range(3)] == [Gate.TRIAL, Gate.REFUSED, Gate.REFUSED]


def test_trial_that_failed_is_not_repeated_before_the_pause_is_over() -> None:
    now = [0.0]
    breaker = _opened(now)
    assert breaker.admit() is Gate.TRIAL
    breaker.tried(well=False)
    now[0] = PAUSE_S - 0.001
    assert breaker.admit() is Gate.REFUSED
    now[0] = PAUSE_S
    assert breaker.admit() is Gate.TRIAL


def test_trial_that_was_given_up_leaves_room_for_the_next() -> None:
    breaker = _opened([0.0])
    assert breaker.admit() is Gate.TRIAL
    breaker.tried(None)
    assert breaker.admit() is Gate.TRIAL


@pytest.mark.anyio
@pytest.mark.threat("T-12", "T-27")
async def test_questions_that_come_during_a_trial_wait_for_how_it_ends(tmp_path: Path) -> None:
    tried, come = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, body = await request_of(reader)
            if b"lost" in body:
                return
            if line.startswith("GET"):
                tried.set()
                await come.wait()
            writer.write(http(b"{}") if line.startswith("GET") else http(said(decided())))

    async with asking(handler, tmp_path) as point:
        await asyncio.gather(*(ask(point, "lost") for _ in range(breakers.FAILURES)))
        quick = [asyncio.ensure_future(ask(point, "quick")) for _ in range(20)]
        await tried.wait()
        come.set()
        assert {code_of(each) for each in await asyncio.gather(*quick)} == {"none"}


@pytest.mark.anyio
@pytest.mark.threat("T-27")
async def test_many_who_ask_whether_it_is_ready_are_one_who_asks_opa(tmp_path: Path) -> None:
    asked: list[str] = []
    go = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append((await request_of(reader))[0])
            await go.wait()
            writer.write(http(b"{}", status="500 Not Yet"))

    async with asking(handler, tmp_path) as point:
        waiting = [asyncio.ensure_future(point.ready()) for _ in range(50)]
        while not asked:
            await asyncio.sleep(0.01)
        go.set()
        told = await asyncio.gather(*waiting)
        assert all(each is not None and "not ready" in each for each in told)
        assert len(asked) == 1
        await point.ready()
        assert len(asked) == 2  # and a moment later it is asked again
