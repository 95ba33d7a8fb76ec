"""The starter policy does what its comments say, and its own tests would notice if it did not."""

from __future__ import annotations

import re

import jsonschema
import pytest

from remit.document import list_document
from remit.errors import PolicyFault
from remit.model import Allow, RequireApproval
from remit.policy.bundle import PolicyBundle, bundle_of, load_bundle
from remit.policy.process import run_once, try_frame
from remit.policy.suite import run_tests
from tests.policy.world import CALLER, NOW, RESTART, STARTER, asking, code_of, question, schema

BUNDLE = load_bundle(STARTER)
SOURCE = BUNDLE.modules["remit.rego"]


def _with(source: str) -> PolicyBundle:
    return bundle_of({"remit.rego": source}, BUNDLE.data, BUNDLE.tests)


def test_own_tests_pass() -> None:
    results = run_tests(BUNDLE)
    assert len(results) > 25
    assert [result for result in results if not result.passed] == []


def _noticed(source: str) -> bool:
    """Whether the policy's own tests, or its compilation, fail with this in its place."""
    try:
        return any(not result.passed for result in run_tests(_with(source)))
    except PolicyFault:
        return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("count(denials) > 0", "count(denials) > 1"),
        ('"denies": true', '"denies": false'),
        ('"*" in granted_in', "false"),
        ('{"preview", "call"}', '{"preview", "call", "result"}'),
        ('"min_tier": "sandbox"', '"min_tier": "degraded"'),
        ('{"write", "destructive"}', '{"write"}'),
        ('{"write", "destructive"}', '{"destructive"}'),
        ("isolation := {} if {\n\telsewhere\n} else := ", "isolation := "),
        ("	elsewhere\n", ""),
        ('profile == "http"', 'profile == "https"'),
        ("	not environment.approvals.write\n", ""),
        ("environment.replicas_at_once", "10"),
        ("environment.restartable", "data.environments.staging.restartable"),
        ("[isolation, bounds, reach, tighter]", "[isolation, bounds, reach]"),
        ("[isolation, bounds, reach, tighter]", "[isolation, bounds, tighter]"),
        ("[isolation, bounds, reach, tighter]", "[isolation, bounds, tighter, reach]"),
    ],
)
def test_small_change_is_noticed_by_a_test_of_the_policy(right: str, wrong: str) -> None:
    assert right in SOURCE
    assert _noticed(SOURCE.replace(right, wrong))


def test_every_rule_says_what_it_is_for() -> None:
    above = ""
    bare = []
    for block in re.split(r"\n{2,}", SOURCE):
        name = re.match(r"(?:default )?([a-z_]+)", block)
        # A second case of a rule stands right below the first.
        if name and not block.startswith(("package", "import")) and name[1] not in above:
            bare.append(block.splitlines()[0])
        above = block
    assert bare == []


CHECK = jsonschema.Draft202012Validator(schema("remit.decision-1"))


@pytest.mark.anyio
async def test_real_documents_get_the_answers_the_demo_needs() -> None:
    async with asking(BUNDLE) as point:
        allowed = await point.decide(question(), decision_id="dec_1")
        assert isinstance(allowed, Allow)
        assert allowed.constraints.bounds["replicas"].maximum == 10
        other = {"service": "ledger-db", "environment": "staging", "replicas": 1}
        denied = await point.decide(question(other), decision_id="dec_2")
        assert code_of(denied) == "policy_denied"
        assert [reason.audience for reason in denied.reasons] == ["user"]
        production = {"service": "web", "environment": "production", "replicas": 1}
        asked = await point.decide(question(production, purpose="rollout"), decision_id="dec_3")
        assert isinstance(asked, RequireApproval)
        listed = list_document(caller=CALLER, tools=[RESTART], now_ms=NOW)
        assert await point.visible(listed, [RESTART.name]) == frozenset({RESTART.name})


def test_each_answer_to_a_real_document_fits_the_schema() -> None:
    import json

    for arguments in (
        {"service": "web", "environment": "staging", "replicas": 1},
        {"service": "web", "environment": "production", "replicas": 1},
        {"service": "none", "environment": "staging"},
    ):
        frame = try_frame(BUNDLE.modules, BUNDLE.data, ["data.remit.decision"], question(arguments))
        ((kind, text),) = json.loads(run_once(frame))
        assert kind == "R"
        CHECK.validate(json.loads(text))
