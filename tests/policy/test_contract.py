"""Both policies keep the contract: the real engine's point, and the scripted one of tests."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import Code, PolicyFault
from remit.model import Deny
from remit.policy.point import PolicyPoint
from remit.ports import Policy
from remit.testing.policy import (
    PolicyContract,
    ScriptedPolicy,
    allow,
    deny,
    require_approval,
)
from tests.policy.world import policy, when

pytestmark = pytest.mark.anyio

BODY = (
    when("allow", 'answer("allow", {})')
    + when("approve", 'answer("require_approval", {"approvals": {"required": 1}})')
    + 'visible := {t.name: startswith(t.name, "seen") | some t in input.tools}\n'
)


def _script(question: Any) -> Any:
    answers = {"allow": allow(), "approve": require_approval()}
    return answers.get(question.get("request_id"), deny())


class TestPolicyPoint(PolicyContract):
    async def make(self) -> Policy:
        return await PolicyPoint.start(policy(BODY), deadline_ms=5_000)

    async def end(self, policy: Policy) -> None:
        assert isinstance(policy, PolicyPoint)
        await policy.aclose()


class TestScriptedPolicy(PolicyContract):
    async def make(self) -> Policy:
        return ScriptedPolicy(_script, visible=lambda _, name: name.startswith("seen"))


async def test_script_that_fails_denies_with_the_code_of_its_fault() -> None:
    def fail(_: Any) -> Any:
        raise PolicyFault(Code.POLICY_UNAVAILABLE, "slow")

    decision = await ScriptedPolicy(fail).decide({}, decision_id="dec_1")
    assert isinstance(decision, Deny)
    assert (decision.code, decision.retriable) == (Code.POLICY_UNAVAILABLE, True)


async def test_script_with_a_malformed_answer_denies() -> None:
    decision = await ScriptedPolicy(lambda _: {"decision": "allow"}).decide({}, decision_id="d")
    assert isinstance(decision, Deny)
    assert decision.code is Code.POLICY_BAD_DECISION
