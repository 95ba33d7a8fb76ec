"""An evaluation that fails leaves nothing behind for the next one, which may be another caller's."""

from __future__ import annotations

import json

import pytest

from remit import canonical
from remit.errors import Code, PolicyFault
from remit.policy.embedded import EmbeddedEngine
from remit.policy.process import cover_frame, run_once, try_frame
from tests.policy.world import HEAD, policy

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-12")]

DENIALS = """
denials contains "too large" if {
    walk(input.arguments, [_, value])
    is_string(value)
    to_number(value) > 100
}
decision := answer("allow", {}) if count(denials) == 0
decision := answer("deny", {}) if count(denials) > 0
"""
FAILS, DENIED = {"arguments": {"size": "many"}}, {"arguments": {"size": "101"}}


async def test_denial_is_not_lost_after_another_callers_question_failed() -> None:
    engine = await EmbeddedEngine.start(policy(DENIALS), deadline_ms=10_000)
    try:
        for _ in range(3):
            with pytest.raises(PolicyFault) as caught:
                await engine.evaluate(("remit.decision",), canonical.encode(FAILS))
            assert caught.value.code is Code.POLICY_ERROR
            answer = await engine.evaluate(("remit.decision",), canonical.encode(DENIED))
            assert json.loads(answer.values[0])["decision"] == "deny"
    finally:
        await engine.aclose()


TESTS = f"""
test_a_fails if count(denials) == 0 with input as {json.dumps(FAILS)}
test_b_denied if count(denials) == 1 with input as {json.dumps(DENIED)}
"""
QUERIES = ["data.remit.test_a_fails", "data.remit.test_b_denied"]


@pytest.mark.parametrize("covered", [False, True])
def test_a_policys_test_means_the_same_after_one_that_failed(covered: bool) -> None:
    frame = cover_frame if covered else try_frame
    found = json.loads(run_once(frame({"policy.rego": HEAD + DENIALS + TESTS}, {}, QUERIES, {})))
    kinds = [each[0] for each in (found["answers"] if covered else found)]
    assert kinds == ["F", "R"]
