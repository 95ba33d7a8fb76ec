"""Every way in which the real engine can fail to give a usable answer ends in a denial."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from remit import canonical
from remit.document import MAX_BYTES
from remit.model import Allow, Deny, RequireApproval
from remit.policy.bundle import bundle_of
from remit.policy.point import PolicyPoint
from tests.policy.world import HEAD, ask, asking, code_of, engine_of, policy, question, when

pytestmark = pytest.mark.anyio

ROWS = {
    # undefined, in each spelling
    "says_undefined": ("policy_undefined", '"<undefined>"'),
    "empty_object": ("policy_undefined", "{}"),
    # not a decision
    "text": ("policy_bad_decision", '"allow"'),
    "boolean": ("policy_bad_decision", "true"),
    "null": ("policy_bad_decision", "null"),
    "list": ("policy_bad_decision", '[answer("allow", {})]'),
    "unknown_verdict": ("policy_bad_decision", 'answer("permit", {})'),
    "upper_case_verdict": ("policy_bad_decision", 'answer("ALLOW", {})'),
    "unknown_field": ("policy_bad_decision", 'answer("allow", {"allowed": true})'),
    "unknown_constraint": ("policy_bad_decision", 'answer("allow", {"constraints": {"net": 1}})'),
    "unknown_obligation": (
        "policy_bad_decision",
        'answer("allow", {"obligations": [{"id": "a", "type": "dance"}]})',
    ),
    "no_reasons": ("policy_bad_decision", 'answer("allow", {"reasons": []})'),
    "other_schema": ("policy_bad_decision", 'answer("allow", {"schema": "remit.decision/2"})'),
    "fraction": (
        "policy_bad_decision",
        'answer("allow", {"constraints": {"runner": {"wall_s": 1.5}}})',
    ),
    "number_as_text": (
        "policy_bad_decision",
        'answer("allow", {"constraints": {"runner": {"wall_s": "5"}}})',
    ),
    "huge_number": (
        "policy_bad_decision",
        'answer("allow", {"constraints": {"runner": {"wall_s": 9007199254740993}}})',
    ),
    "pointer_for_name": (
        "policy_bad_decision",
        'answer("allow", {"constraints": {"arguments": {"bounds": {"/n": {"maximum": 1}}}}})',
    ),
    "same_key_twice": (
        "policy_bad_decision",
        'answer("allow", {"obligations": [{"id": "a", "type": "log", "properties": {1: 1, "1": 2}}]})',
    ),
    # the engine fails
    "divide": ("policy_error", 'answer("allow", {"x": 1 / input.zero})'),
    "strict_builtin": ("policy_error", 'answer("allow", {"x": to_number("abc")})'),
    "unknown_builtin": ("policy_error", 'answer("allow", {"x": no.such_thing(1)})'),
    "panic": ("policy_error", 'answer("allow", {"x": time.parse_duration_ns(input.words)})'),
    # contradictions
    "denies_and_allows": (
        "policy_inconsistent",
        'answer("allow", {"reasons": [{"code": "a", "message": "a", "denies": true}]})',
    ),
    "approval_by_nobody": (
        "policy_inconsistent",
        'answer("require_approval", {"approvals": {"required": 0}})',
    ),
    "approval_null": ("policy_inconsistent", 'answer("require_approval", {"approvals": null})'),
    "approval_absent": ("policy_inconsistent", 'answer("require_approval", {})'),
    # not enforceable yet
    "budget": ("policy_unsupported", 'answer("allow", {"limits": {"budget": {"tokens": 1}}})'),
    "step_up": (
        "policy_unsupported",
        'answer("allow", {"obligations": [{"id": "a", "type": "step_up"}]})',
    ),
    # and what does work
    "denied": ("policy_denied", 'answer("deny", {})'),
    "allowed": ("none", 'answer("allow", {})'),
    "whole_number": ("none", 'answer("allow", {"constraints": {"runner": {"wall_s": 60.0}}})'),
    "smallest": (
        "none",
        'answer("allow", {"constraints": {"runner": {"wall_s": min([120, 60])}}})',
    ),
    "people": ("none", 'answer("require_approval", {"approvals": {"required": 1}})'),
}

SPINNING = (
    "count([1 | some a in numbers.range(1, 5000); some b in numbers.range(1, 5000); a + b < 0])"
)

BODY = "".join(when(case, rego) for case, (_, rego) in ROWS.items())
BODY += when("conflict", "1") + when("conflict", "2")
BODY += "deep(n) := deep(n + 1)\n" + when("recursion", "deep(1)")
BODY += when("spin", SPINNING)
BODY += when("bomb", 'concat("", [s | some a in numbers.range(1, 100000); s := input.block])')


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("case", list(ROWS))
async def test_answer_is_denied_with_its_code_or_is_a_decision(case: str) -> None:
    expected, rego = ROWS[case]
    async with asking(policy(when(case, rego))) as point:
        decision = await ask(point, case, zero=0, words="1é")
        assert code_of(decision) == expected
        if expected == "none":
            assert isinstance(decision, Allow | RequireApproval)
        else:
            assert isinstance(decision, Deny)
            assert decision.reasons[0].message
            assert not decision.retriable
        # The point goes on answering, whatever that was.
        assert code_of(await ask(point, "other")) == "policy_denied"


@pytest.mark.threat("T-12")
async def test_rule_that_gives_two_answers_is_denied() -> None:
    async with asking(policy(when("twice", "1") + when("twice", "2"))) as point:
        assert code_of(await ask(point, "twice")) == "policy_error"


@pytest.mark.threat("T-12")
@pytest.mark.parametrize("rule", ["", "decision := input.absent\n", "decision if input.absent\n"])
async def test_rule_without_a_value_is_denied(rule: str) -> None:
    text = HEAD.replace("default decision", "default verdict") + rule
    async with asking(bundle_of({"policy.rego": text}, {})) as point:
        assert code_of(await ask(point, "any")) == "policy_undefined"


@pytest.mark.threat("T-12")
async def test_point_without_a_policy_denies_as_not_ready() -> None:
    point = PolicyPoint()
    decision = await ask(point, "any")
    assert code_of(decision) == "policy_not_ready"
    assert point.revision == "none"
    assert await point.ready() is not None
    await point.aclose()


@pytest.mark.threat("T-12")
async def test_closed_point_denies() -> None:
    async with asking(policy(when("allowed", 'answer("allow", {})'))) as point:
        assert code_of(await ask(point, "allowed")) == "none"
        await point.aclose()
        assert code_of(await ask(point, "allowed")) == "policy_not_ready"
        assert await point.ready() is not None


@pytest.mark.threat("T-12")
async def test_input_too_large_is_denied_and_never_reaches_the_engine() -> None:
    async with asking(policy(when("large", 'answer("allow", {})'))) as point:
        base = len(canonical.encode({"request_id": "large", "arguments": {"body": ""}}))
        fits = {"body": "x" * (MAX_BYTES - base)}
        assert code_of(await ask(point, "large", arguments=fits)) == "none"
        fits["body"] += "x"
        assert code_of(await ask(point, "large", arguments=fits)) == "policy_error"


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    "value",
    [2**53, float("nan"), "\ud800", {1: 2}, object()],
    ids=lambda value: type(value).__name__,
)
async def test_input_without_a_canonical_form_is_denied(value: Any) -> None:
    async with asking(policy(when("odd", 'answer("allow", {})'))) as point:
        assert code_of(await ask(point, "odd", arguments={"a": value})) == "policy_error"


@pytest.mark.threat("T-12")
async def test_input_nested_deeper_than_the_engine_reads_is_denied() -> None:
    value: Any = 1
    for _ in range(150):
        value = [value]
    async with asking(policy(when("deep", 'answer("allow", {})'))) as point:
        assert code_of(await ask(point, "deep", arguments={"a": value})) == "policy_error"


@pytest.mark.threat("T-27")
async def test_runaway_is_killed_at_the_deadline_while_others_are_answered() -> None:
    async with asking(policy(BODY), deadline_ms=1_000) as point:
        before = engine_of(point).pids
        runaway = asyncio.create_task(ask(point, "spin"))
        await asyncio.sleep(0)  # it is with the worker now
        others = await asyncio.gather(*(ask(point, "allowed") for _ in range(20)))
        assert [code_of(other) for other in others] == ["none"] * 20
        assert not runaway.done()
        decision = await runaway
        assert code_of(decision) == "policy_unavailable"
        assert isinstance(decision, Deny)
        assert decision.retriable
        assert before[0] not in engine_of(point).pids
        assert code_of(await ask(point, "allowed")) == "none"


@pytest.mark.threat("T-27")
async def test_every_runaway_of_many_ends_by_its_deadline() -> None:
    async with asking(policy(BODY), deadline_ms=300) as point:
        async with asyncio.timeout(5):
            many = await asyncio.gather(*(ask(point, "spin") for _ in range(6)))
        assert {code_of(each) for each in many} == {"policy_unavailable"}
        await _answers_again(point)


@pytest.mark.threat("T-27")
async def test_memory_bomb_kills_only_its_worker() -> None:
    async with asking(policy(BODY), memory_mb=192, deadline_ms=10_000) as point:
        decision = await ask(point, "bomb", block="x" * 20_000)
        assert code_of(decision) == "policy_error"
        assert code_of(await ask(point, "allowed")) == "none"


@pytest.mark.threat("T-27")
async def test_endless_recursion_crashes_only_its_worker() -> None:
    async with asking(policy(BODY)) as point:
        assert code_of(await ask(point, "recursion")) == "policy_error"
        assert code_of(await ask(point, "allowed")) == "none"


@pytest.mark.threat("T-27")
async def test_panic_ends_the_worker_and_shows_no_backtrace() -> None:
    async with asking(policy(BODY)) as point:
        before = engine_of(point).pids[0]
        decision = await ask(point, "panic", words="1é")
        assert code_of(decision) == "policy_error"
        assert "backtrace" not in str(decision.reasons)
        assert code_of(await ask(point, "allowed")) == "none"
        assert before not in engine_of(point).pids


@pytest.mark.threat("T-27")
async def test_worker_killed_in_the_middle_of_a_call_denies_that_call_only() -> None:
    async with asking(policy(BODY), deadline_ms=30_000) as point:
        call = asyncio.create_task(ask(point, "spin"))
        await asyncio.sleep(0)
        os.kill(engine_of(point).pids[0], signal.SIGKILL)
        decision = await call
        assert code_of(decision) == "policy_unavailable"
        assert isinstance(decision, Deny)
        assert decision.retriable
        assert code_of(await ask(point, "allowed")) == "none"


@pytest.mark.threat("T-27")
async def test_all_workers_killed_are_replaced() -> None:
    async with asking(policy(BODY)) as point:
        for pid in engine_of(point).pids:
            os.kill(pid, signal.SIGKILL)
        await _answers_again(point)


@pytest.mark.threat("T-26")
async def test_engine_error_does_not_carry_a_value_of_the_input() -> None:
    body = when("merge", '{k: v | some k in ["a"]; some v in input.secrets}')
    async with asking(policy(body)) as point:
        decision = await ask(point, "merge", secrets=["hunter2", "hunter3"])
        assert code_of(decision) == "policy_error"
        assert "hunter" not in str(decision.reasons)


async def test_evaluation_says_what_was_decided_by_what() -> None:
    async with asking(policy(when("call_1", 'answer("allow", {})'))) as point:
        asked = question()
        told = (await point.decide(asked, decision_id="dec_7")).evaluation
        assert told.decision_id == "dec_7"
        assert told.revision == point.revision
        assert told.engine == "gordon-to-regorus 0.13.0"
        assert told.input.value() == asked
        assert told.input_digest == canonical.digest("remit.input/1", canonical.encode(asked))
        assert told.duration_us > 0


async def _answers_again(point: PolicyPoint) -> None:
    async with asyncio.timeout(20):
        while code_of(await ask(point, "allowed")) != "none":
            pass
