"""Workers: who steps in, how long a call may wait, and how one policy follows another."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from remit.errors import PolicyFault
from remit.policy.bundle import bundle_of
from remit.policy.point import PolicyPoint
from tests.policy.test_fail_closed import SPINNING
from tests.policy.world import HEAD, ask, asking, code_of, engine_of, policy, replace, when

pytestmark = pytest.mark.anyio

ALLOWS = when("allowed", 'answer("allow", {})')
BODY = ALLOWS + when("spin", SPINNING)


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_spare_steps_in_at_once_and_a_new_spare_is_made() -> None:
    async with asking(policy(BODY)) as point:
        active, spare = engine_of(point).pids
        os.kill(active, signal.SIGKILL)
        async with asyncio.timeout(10):
            while len(engine_of(point).pids) < 2 or active in engine_of(point).pids:
                await asyncio.sleep(0.01)
        assert engine_of(point).pids[0] == spare
        assert code_of(await ask(point, "allowed")) == "none"


async def test_dead_spare_is_replaced() -> None:
    async with asking(policy(BODY)) as point:
        active, spare = engine_of(point).pids
        os.kill(spare, signal.SIGKILL)
        async with asyncio.timeout(10):
            while len(engine_of(point).pids) < 2 or spare in engine_of(point).pids:
                await asyncio.sleep(0.01)
        assert engine_of(point).pids[0] == active


@pytest.mark.threat("T-27")
async def test_time_in_the_queue_counts_against_the_deadline() -> None:
    async with asking(policy(BODY), deadline_ms=400) as point:
        loop = asyncio.get_running_loop()
        spins = [asyncio.create_task(ask(point, "spin")) for _ in range(8)]
        await asyncio.sleep(0)
        began = loop.time()
        await asyncio.gather(*spins)
        # One deadline for all of them, not one after another.
        assert loop.time() - began < 2 * 0.4 + 1.0


async def test_abandoned_call_does_not_hold_up_the_next() -> None:
    async with asking(policy(BODY), deadline_ms=1_000) as point:
        call = asyncio.create_task(ask(point, "spin"))
        await asyncio.sleep(0)
        queued = asyncio.create_task(ask(point, "allowed"))
        await asyncio.sleep(0)
        call.cancel()
        queued.cancel()
        assert code_of(await ask(point, "allowed")) == "none"


async def test_two_workers_answer_at_once() -> None:
    async with asking(policy(BODY), workers=2, deadline_ms=1_500) as point:
        assert len(engine_of(point).pids) == 3
        spin = asyncio.create_task(ask(point, "spin"))
        await asyncio.sleep(0)
        assert code_of(await ask(point, "allowed")) == "none"
        assert not spin.done()
        await spin


@pytest.mark.threat("T-10")
async def test_replaced_policy_answers_under_its_own_revision_and_no_call_is_lost() -> None:
    first = policy(ALLOWS)
    second = policy(when("allowed", 'answer("deny", {})'))
    async with asking(first) as point:
        answers = []
        stop = asyncio.Event()

        async def keep_asking() -> None:
            while not stop.is_set():
                decision = await ask(point, "allowed")
                answers.append((decision.evaluation.revision, code_of(decision)))

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(keep_asking())
            while not answers:
                await asyncio.sleep(0.001)
            await replace(point, second)
            assert point.revision == second.revision
            while answers[-1][0] == first.revision:
                await asyncio.sleep(0.001)
            stop.set()
        assert set(answers) == {(first.revision, "none"), (second.revision, "policy_denied")}


async def test_old_workers_are_gone_after_a_replacement() -> None:
    async with asking(policy(ALLOWS)) as point:
        before = engine_of(point).pids
        await replace(point, policy(ALLOWS, {"x": 1}))
        async with asyncio.timeout(10):
            while any(map(_alive, before)):
                await asyncio.sleep(0.01)
        assert code_of(await ask(point, "allowed")) == "none"


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("text", ["package remit\nnot rego", HEAD + "x if { y }\n"])
async def test_policy_that_does_not_load_changes_nothing(text: str) -> None:
    async with asking(policy(ALLOWS)) as point:
        before = engine_of(point).pids
        with pytest.raises(PolicyFault):
            await replace(point, bundle_of({"a.rego": text}, {}))
        assert engine_of(point).pids == before
        assert code_of(await ask(point, "allowed")) == "none"


async def test_closed_engine_leaves_no_process() -> None:
    point = await PolicyPoint.start(policy(ALLOWS), workers=2)
    pids = engine_of(point).pids
    assert len(pids) == 3
    assert all(map(_alive, pids))
    await point.aclose()
    assert not any(map(_alive, pids))


@pytest.mark.threat("T-18")
async def test_worker_killed_for_being_late_is_reaped_even_if_the_engine_closes_at_once() -> None:
    for _ in range(3):
        point = await PolicyPoint.start(policy(BODY), deadline_ms=50)
        late = engine_of(point).pids[0]
        assert code_of(await ask(point, "spin")) == "policy_unavailable"
        await point.aclose()
        assert not _alive(late)


async def test_closing_lets_what_was_asked_be_answered_and_takes_nothing_new() -> None:
    async with asking(policy(BODY), deadline_ms=500) as point:
        asked = [asyncio.create_task(ask(point, case)) for case in ("allowed", "spin", "allowed")]
        await asyncio.sleep(0)
        closing = asyncio.create_task(point.aclose())
        await asyncio.sleep(0)
        assert code_of(await ask(point, "allowed")) == "policy_not_ready"
        await closing
        assert [code_of(await call) for call in asked] == ["none", "policy_unavailable", "none"]


async def test_large_questions_and_answers_pass_the_pipe_whole() -> None:
    body = when("large", 'answer("deny", {"reasons": [{"code": "a", "message": input.words}]})')
    async with asking(policy(body)) as point:
        decision = await ask(point, "large", words="é" * 1_000, filler="x" * 250_000)
        assert decision.reasons[0].message == "é" * 1_000
