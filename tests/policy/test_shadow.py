"""A policy on trial is counted and logged; it never changes, delays or fails an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from remit.model import Decision
from remit.policy.bundle import PolicyBundle
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Answer
from remit.policy.layers import Layer, Tenure, layer
from remit.policy.point import PolicyPoint
from remit.policy.shadow import WAITING, Shadow, candidate_for, canonical_digest
from remit.policy.switch import stop
from remit.telemetry import REGISTRY
from tests.policy.world import ask, code_of, policy, when

pytestmark = pytest.mark.anyio

CONSTRAINED = """answer("allow", {
    "constraints": {"runner": {"wall_s": 5}, "arguments": {"bounds": {"n": {"maximum": 2}}}},
})"""
ALLOWS = policy(when("one", CONSTRAINED))
SAME = policy(when("one", CONSTRAINED), {"other": "data"})
DENIES = policy(when("other", "1"))
LOOSER = policy(when("one", CONSTRAINED.replace("5", "6")))
BROKEN = policy(when("one", '"yes"'))


def count(result: str) -> float:
    return REGISTRY.get_sample_value("remit_policy_shadow_total", {"result": result}) or 0


async def counted(result: str, before: float, more: int = 1) -> None:
    async with asyncio.timeout(20):
        while count(result) < before + more:
            await asyncio.sleep(0.005)


async def made(bundle: PolicyBundle) -> Layer:
    return layer(await EmbeddedEngine.start(bundle, deadline_ms=10_000), bundle)


async def _stays(_: Layer) -> None:
    return None


@asynccontextmanager
async def trying(
    trial: Layer, *, sample: float = 1, chance: float = 0.5
) -> AsyncIterator[PolicyPoint]:
    """A point in force, with a candidate beside it."""
    point = PolicyPoint([await made(ALLOWS)])
    shadow = Shadow(
        PolicyPoint([trial]),
        remake=_stays,
        stands_for=candidate_for(dict(point.standing.named)),
        sample=sample,
        chance=lambda: chance,
    )
    point.watch = shadow.watch
    running = asyncio.create_task(shadow.run())
    try:
        yield point
    finally:
        await stop(running)
        await shadow.aclose()
        await point.aclose()


async def test_candidate_that_denies_everything_changes_no_answer_and_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = count("mismatch")
    async with trying(await made(DENIES)) as point:
        decisions: list[Decision] = [await ask(point, "one") for _ in range(20)]
        await counted("mismatch", before, 20)
    assert {code_of(each) for each in decisions} == {"none"}
    assert {each.evaluation.revision for each in decisions} == {ALLOWS.revision}
    said = [line for line in capsys.readouterr().out.splitlines() if "policy_mismatch" in line]
    assert len(said) == 20
    assert "verdict=allow" in said[0]
    assert "trial_verdict=deny" in said[0]
    assert "decision=dec_one" in said[0]
    assert DENIES.revision in said[0]


async def test_candidate_that_says_the_same_matches() -> None:
    before = count("match")
    async with trying(await made(SAME)) as point:
        await ask(point, "one")
        await counted("match", before)


async def test_other_constraint_under_the_same_verdict_is_a_mismatch() -> None:
    before = count("mismatch")
    async with trying(await made(LOOSER)) as point:
        await ask(point, "one")
        await counted("mismatch", before)


async def test_candidate_without_a_usable_answer_is_a_fault() -> None:
    before = count("fault")
    async with trying(await made(BROKEN)) as point:
        assert code_of(await ask(point, "one")) == "none"
        await counted("fault", before)


async def test_part_of_decisions_that_is_not_in_the_sample_is_not_tried() -> None:
    mismatches, drops = count("mismatch"), count("dropped")
    async with trying(await made(DENIES), sample=0.5, chance=0.5) as point:
        await ask(point, "one")
        await asyncio.sleep(0.05)
        assert (count("mismatch"), count("dropped")) == (mismatches, drops)


class Hanging:
    """An engine that takes every question and answers none."""

    name = "hanging"
    revision = "none"

    def __init__(self) -> None:
        self.asked = 0

    async def evaluate(self, rules: Sequence[str], document: bytes) -> Answer:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def probe(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


async def test_hanging_trial_delays_nobody_and_what_it_cannot_take_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("remit.policy.shadow.LONGEST_S", 3_600)
    hanging, before = Hanging(), count("dropped")
    trial = Layer(name="policy", entries=("remit",), tenure=Tenure(hanging), revision="none")
    async with trying(trial) as point:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(WAITING + 50):
            assert code_of(await ask(point, "one")) == "none"
        assert loop.time() - began < 10  # one of an hour is waited for meanwhile
        assert hanging.asked == 1
        assert count("dropped") == before + 49


async def test_trial_that_hangs_is_given_up_and_the_next_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("remit.policy.shadow.LONGEST_S", 0.01)
    hanging, before = Hanging(), count("fault")
    trial = Layer(name="policy", entries=("remit",), tenure=Tenure(hanging), revision="none")
    async with trying(trial) as point:
        await ask(point, "one")
        await ask(point, "one")
        await counted("fault", before, 2)
        assert hanging.asked == 2


async def test_other_engine_follows_a_switch_and_compares_only_what_it_has_too() -> None:
    point = PolicyPoint([await made(ALLOWS)])
    go = asyncio.Event()

    async def remake(at: Layer) -> Layer:
        await go.wait()
        assert at.bundle is not None
        return await made(at.bundle)

    trial = PolicyPoint([await made(ALLOWS)])
    stands_for = dict(point.standing.named)
    shadow = Shadow(trial, remake=remake, stands_for=stands_for, sample=1, chance=lambda: 0)
    point.watch = shadow.watch
    running = asyncio.create_task(shadow.run())
    try:
        matches, drops = count("match"), count("dropped")
        await ask(point, "one")
        await counted("match", matches)
        switched = await made(DENIES)
        point.put(switched)
        shadow.told(switched)
        await ask(point, "one")
        await counted("dropped", drops)  # the trial has not got the new policy yet
        go.set()
        async with asyncio.timeout(20):
            while trial.revision != DENIES.revision:
                await asyncio.sleep(0.005)
        await ask(point, "one")
        await counted("match", matches, 2)
        assert count("dropped") == drops + 1
    finally:
        await stop(running)
        await shadow.aclose()
        await point.aclose()


async def test_digest_is_of_all_that_is_said_and_not_of_when_or_by_whom() -> None:
    first, second = PolicyPoint([await made(ALLOWS)]), PolicyPoint([await made(SAME)])
    third = PolicyPoint([await made(LOOSER)])
    try:
        one = canonical_digest(await ask(first, "one"))
        assert canonical_digest(await ask(second, "one", more="input")) == one
        assert canonical_digest(await ask(third, "one")) != one
    finally:
        for point in (first, second, third):
            await point.aclose()
