"""The rule `result`: who has it is known without asking, and it is asked in phase `result` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit.errors import Code, PolicyFault
from remit.model import Allow, Deny, Ending, RunResult, RunState
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.explain import explain
from remit.policy.layers import Layer, Tenure, layer
from remit.policy.lint import lint
from remit.policy.opa.client import OpaEngine
from remit.policy.opa.supervisor import SupervisedOpa
from remit.policy.point import PolicyPoint
from remit.policy.reads import known_of
from remit.policy.verdict import judge_result
from remit.settings.policy import OpaSection
from remit.stages.review import MAX_TEXT, result_facts
from remit.testing.policy import allow, deny, require_approval
from tests.plugins.machine import ROOT
from tests.policy.opa.world import opa
from tests.policy.world import EVALUATION, HEAD, RESTART, asking, policy, question

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-46")]

LETS = 'result := answer("allow", {"constraints": {"output": {"redact": ["/password"]}}})\n'
DENIES = 'decision := answer("deny", {})\n'

HAVE: dict[str, str] = {
    "one rule": LETS,
    "a default alone": 'default result := {"decision": "deny"}\n',
    "conditions": 'result := answer("allow", {}) if input.result.bytes < 10\n',
    "a partial object": 'result["decision"] := "allow" if input.result.valid\n',
    "a partial object of its parts": 'result.decision := "allow"\n',
}
LACK: dict[str, str] = {
    "nothing": "",
    "another name": 'results := answer("allow", {})\n',
    "a local of that name": "x if { result := 1; result == 1 }\n",
    "what it reads": "x if input.result.valid\n",
    "a function's argument": "f(result) := result\n",
}


@pytest.mark.parametrize("name", HAVE)
async def test_policy_with_the_rule_is_known_to_have_it(name: str) -> None:
    assert known_of(policy(HAVE[name])).results == ("remit",)


@pytest.mark.parametrize("name", LACK)
async def test_policy_without_the_rule_is_known_to_have_none(name: str) -> None:
    assert known_of(policy(LACK[name])).results == ()


async def test_rule_that_another_package_defines_or_data_holds_counts() -> None:
    elsewhere = 'package remit.result\n\nimport rego.v1\n\ndecision := "deny"\n'
    assert known_of(bundle_of({"a.rego": HEAD, "b.rego": elsewhere}, {})).results == ("remit",)
    held = bundle_of({"a.rego": HEAD}, {"remit": {"result": {"decision": "deny"}}})
    assert known_of(held).results == ("remit",)


@pytest.mark.parametrize("name", HAVE)
async def test_rule_is_found_by_its_text_where_only_opa_can_read_the_policy(name: str) -> None:
    odd = policy("x := y if some strange syntax\n" + HAVE[name])
    assert known_of(odd).results == ("remit",)
    assert known_of(policy("x := y if some strange syntax\n")).results == ()


async def test_only_entries_with_the_rule_are_asked() -> None:
    other = HEAD.replace("package remit", "package team")
    bundle = bundle_of({"a.rego": HEAD + LETS, "b.rego": other}, {}, entries=("remit", "team"))
    found = known_of(bundle).results
    assert found == ("remit",)
    made = Layer(name="policy", entries=bundle.entries, tenure=None, revision="r", results=found)  # type: ignore[arg-type]
    assert made.rules["result"] == ("remit.result",)
    assert made.labels["result"] == ("policy/remit",)
    assert made.labels["decision"] == ("policy/remit", "policy/team")


def about(bundle_question: dict[str, Any] | None = None) -> dict[str, Any]:
    return (bundle_question or question()) | {"phase": "result", "result": {"bytes": 3}}


async def test_rule_is_asked_about_results_and_about_nothing_else() -> None:
    async with asking(policy(LETS + DENIES)) as point:
        assert point.judges_results
        result = await point.decide(about(), decision_id="dec_1")
        assert isinstance(result, Allow)
        assert result.constraints.output_redact == ("/password",)
        assert isinstance(await point.decide(question(), decision_id="dec_2"), Deny)


async def test_question_about_a_result_that_no_policy_has_a_rule_for_is_denied() -> None:
    async with asking(policy('decision := answer("allow", {})\n')) as point:
        assert not point.judges_results
        decision = await point.decide(about(), decision_id="dec_1")
    assert isinstance(decision, Deny)
    assert decision.code is Code.POLICY_UNDEFINED


async def test_policy_with_the_rule_passes_the_check() -> None:
    assert lint(policy('visible["a"] := true\n' + LETS)) == []


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "people": (require_approval(), "/decision"),
    "bounds": (allow(constraints={"arguments": {"bounds": {"n": {"maximum": 1}}}}), "/constraints"),
    "a profile": (allow(constraints={"runner": {"profile": "small"}}), "/constraints"),
    "no egress": (allow(constraints={"egress": []}), "/constraints"),
    "a rate": (allow(limits={"calls_per_minute": 1}), ""),
    "a step-up": (
        allow(obligations=[{"id": "s", "type": "step_up", "properties": {"acr": "x"}}]),
        "/obligations",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_answer_that_wants_more_than_less_output_is_none(name: str) -> None:
    answer, place = UNSUPPORTED[name]
    with pytest.raises(PolicyFault) as fault:
        judge_result(answer, EVALUATION)
    assert fault.value.code is Code.POLICY_UNSUPPORTED
    assert (fault.value.place or "").startswith(place)


def test_answer_may_be_recorded_narrow_the_output_or_deny() -> None:
    log = {"id": "l", "type": "log", "properties": {}}
    narrowing = {"output": {"max_bytes": 1, "redact": ["/a"], "content_types": ["text/plain"]}}
    assert isinstance(
        judge_result(allow(constraints=narrowing, obligations=[log]), EVALUATION), Allow
    )
    assert isinstance(judge_result(deny(), EVALUATION), Deny)


PAGE = (ROOT / "docs" / "policy-input.md").read_text(encoding="utf-8")
EXAMPLE = PAGE[PAGE.index("```rego\ndefault result") + 8 :].split("```")[0]


@pytest.mark.parametrize(
    ("printed", "verdict"),
    [("fine", "allow"), ("-----BEGIN PRIVATE KEY-----", "deny"), ("x" * MAX_TEXT + "x", "deny")],
)
async def test_example_of_the_page_passes_the_check_and_does_what_it_says(
    printed: str, verdict: str
) -> None:
    bundle = policy('visible["a"] := true\n' + EXAMPLE)
    assert lint(bundle) == []
    facts = result_facts(
        RESTART, RunState.SUCCEEDED, RunResult(ending=Ending.EXIT, stdout=printed.encode())
    )
    async with asking(bundle) as point:
        decision = await point.decide(question() | {"phase": "result", "result": facts},
                                      decision_id="dec_1")  # fmt: skip
    assert decision.verdict == verdict


async def test_explanation_of_an_answer_about_a_result_is_of_the_rule_that_gave_it() -> None:
    with_rule, without = policy('result := answer("deny", {})\n'), policy(DENIES)
    found = explain({"org": with_rule, "policy": without}, about())
    assert isinstance(found.decision, Deny)
    assert [each.layer for each in found.parts] == ["org"]
    assert any(hit.rule == "remit.result" for hit in found.parts[0].hits)
    nobody = explain({"policy": without}, about()).decision
    assert isinstance(nobody, Deny)
    assert nobody.code is Code.POLICY_UNDEFINED


# --------------------------------------------------------------------------------- OPA itself


async def _both(bundle: PolicyBundle, state: Path, document: dict[str, Any]) -> list[Any]:
    """What the embedded engine and a real OPA answer, as a point reads it."""
    async with asking(bundle) as point:
        found = [await point.decide(document, decision_id="dec_1")]
    engine = await SupervisedOpa.start(bundle, binary=opa(), state_dir=state, deadline_ms=10_000)
    point = PolicyPoint([layer(engine, bundle)])
    try:
        found.append(await point.decide(document, decision_id="dec_1"))
    finally:
        await point.aclose()
    return found


@pytest.mark.slow
@pytest.mark.needs("opa")
@pytest.mark.parametrize("rule", [LETS, 'result := answer("deny", {})\n',
                                  'result := answer("allow", {}) if input.phase == "list"\n',
                                  DENIES])  # fmt: skip
async def test_both_engines_answer_about_a_result_alike(tmp_path: Path, rule: str) -> None:
    embedded, real = await _both(policy(rule), tmp_path, about())
    assert embedded.verdict == real.verdict
    assert [each.code for each in embedded.reasons] == [each.code for each in real.reasons]
    assert getattr(embedded, "code", None) == getattr(real, "code", None)
    if isinstance(embedded, Allow):
        assert embedded.constraints == real.constraints


@pytest.mark.parametrize("given", [True, False])
async def test_server_of_others_is_asked_about_results_where_the_operator_says_so(
    given: bool,
) -> None:
    engine = await OpaEngine.connect("http://127.0.0.1:1")
    bundle = policy("")
    made = layer(Tenure(engine), bundle, revision="r", results=given)
    try:
        assert made.results == (("remit",) if given else ())
    finally:
        await engine.aclose()
    assert OpaSection(url="https://opa.example", results=given).results is given
