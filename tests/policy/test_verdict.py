"""What a well-shaped decision becomes: contradictions and what cannot be enforced are denials."""

from __future__ import annotations

from typing import Any

import pytest

from remit.errors import PolicyFault
from remit.model import Allow, CredentialRule, Deny, EgressRule, RequireApproval
from remit.policy.verdict import denial, judge
from remit.testing.policy import allow, deny, require_approval
from tests.policy.world import EVALUATION

DENYING = [{"code": "no", "message": "no", "denies": True}]


def _code(document: Any) -> str:
    try:
        judge(document, EVALUATION)
    except PolicyFault as fault:
        return fault.code.value
    return "none"


def test_each_verdict_becomes_its_value() -> None:
    assert isinstance(judge(allow(), EVALUATION), Allow)
    assert isinstance(judge(deny(), EVALUATION), Deny)
    asked = judge(require_approval(2, groups=["sre"], ttl_s=60), EVALUATION)
    assert isinstance(asked, RequireApproval)
    assert (asked.approvals.required, asked.approvals.groups) == (2, ("sre",))
    assert asked.approvals.separation_of_duties is True


@pytest.mark.threat("T-12")
@pytest.mark.parametrize(
    "document",
    [
        allow(reasons=DENYING),
        allow(approvals={"required": 1}),
        require_approval() | {"approvals": None},
        {k: v for k, v in require_approval().items() if k != "approvals"},
        require_approval(0),
        require_approval(-1),
        require_approval() | {"reasons": DENYING},
        allow(constraints={"arguments": {"bounds": {"n": {"minimum": 2, "maximum": 1}}}}),
        allow(constraints={"arguments": {"bounds": {"n": {"maximum": 1}}, "force": {"n": 2}}}),
        allow(constraints={"arguments": {"bounds": {"n": {"one_of": [1]}}, "force": {"n": True}}}),
        allow(constraints={"arguments": {"bounds": {"n": {"minimum": 1}}, "force": {"n": "2"}}}),
    ],
    ids=str,
)
def test_contradiction_is_policy_inconsistent(document: Any) -> None:
    assert _code(document) == "policy_inconsistent"


def test_all_that_can_be_enforced_is_passed_on() -> None:
    constraints = {
        "arguments": {
            "bounds": {"n": {"minimum": 1, "one_of": [1, 2]}},
            "force": {"n": 2},
            "redact": [],
        },
        "runner": {"profile": "sandbox", "min_tier": "sandbox", "wall_s": 5, "memory_mb": 64},
        "egress": [{"host": "api.example.com", "port": 443, "methods": ["GET"]}],
        "credentials": [{"ref": "vault:ci", "scopes": ["read"]}],
        "output": {"max_bytes": 100, "redact": ["/token"], "content_types": ["text/plain"]},
    }
    log = {"id": "a", "type": "log", "properties": {"x": 1}}
    rule = {"exclude": ["max"], "reason_required": True, "on_timeout": "deny"}
    document = require_approval(5, **rule) | {
        "constraints": constraints,
        "limits": {"cache_ttl_s": 0, "budget": {}},
        "obligations": [log],
        "advice": [{"id": "b", "type": "whatever"}],
    }
    decision = judge(document, EVALUATION)
    assert isinstance(decision, RequireApproval)
    found = decision.constraints
    assert (found.wall_s, found.memory_mb, found.output_max_bytes) == (5, 64, 100)
    assert (found.profile, found.min_tier) == ("sandbox", "sandbox")
    assert found.egress == (EgressRule(host="api.example.com", port=443, methods=("GET",)),)
    assert found.credentials == (CredentialRule(ref="vault:ci", scopes=("read",)),)
    assert (found.output_redact, found.output_content_types) == (("/token",), ("text/plain",))
    assert found.bounds["n"].one_of == (1, 2)
    assert found.force["n"].value() == 2
    assert decision.obligations[0].properties.value() == {"x": 1}
    assert decision.approvals.exclude == ("max",)


def test_denial_stays_a_denial_whatever_else_it_says() -> None:
    obligations = [
        {"id": "a", "type": "log"},
        {"id": "b", "type": "step_up", "properties": {"acr": "high"}},
        {"id": "c", "type": "notify", "properties": {"channel": "oncall"}},
        {"id": "d", "type": "notify", "properties": {"channel": "oncall", "to": "everybody"}},
        {"id": "e", "type": "quarantine"},
    ]
    decision = judge(deny(obligations=obligations, constraints={"egress": []}), EVALUATION)
    assert isinstance(decision, Deny)
    assert decision.code.value == "policy_denied"
    assert [each.id for each in decision.obligations] == ["a", "c"]


@pytest.mark.threat("T-12")
def test_empty_constraints_are_no_opinion() -> None:
    decision = judge(allow(constraints={}), EVALUATION)
    assert isinstance(decision, Allow)
    assert decision.constraints.egress is None


def test_fault_becomes_a_denial_that_tells_the_caller_nothing_of_the_policy() -> None:
    with pytest.raises(PolicyFault) as caught:
        judge(allow(constraints={"runner": {"cpu_ms": 1}}), EVALUATION)
    told = denial(caught.value, EVALUATION)
    shown = [reason.message for reason in told.reasons if reason.audience == "user"]
    assert shown == ["Policy asks for something that Remit cannot enforce yet."]
    assert any("constraints.runner.cpu_ms" in reason.message for reason in told.reasons)
