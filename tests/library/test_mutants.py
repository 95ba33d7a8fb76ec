"""Whatever one leaves out of a policy of the library, or of the starter, one of its tests fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from remit.policy import worker
from remit.policy.bundle import PolicyBundle, load_bundle
from remit.policy.library import names, with_library
from remit.policy.suite import run_tests
from tests.library.mutants import mutants
from tests.policy.world import STARTER

EQUIVALENT: Mapping[str, Mapping[str, str]] = {
    "starter": {
        "decision: condition approval": "the head of its rule has the approval, and is undefined "
        "without it",
    },
}
"""Policy to mutants that mean the same as the policy, each with the reason."""


def _bundle(name: str) -> PolicyBundle:
    return load_bundle(STARTER) if name == "starter" else with_library(None, {name: {}}, tests=True)


def _survivors(name: str) -> Sequence[str]:
    bundle = _bundle(name)
    (module,) = bundle.modules
    tests = [f"data.{result.rule}" for result in run_tests(bundle)]
    found = []
    for mutant in mutants(bundle.modules[module]):
        modules = {**bundle.modules, **bundle.tests, module: mutant.text}
        if not _noticed(modules, bundle.data, tests):
            found.append(mutant.name)
    return found


def _noticed(modules: dict[str, str], data: Mapping[str, Any], tests: list[str]) -> bool:
    """Whether a test is not true any more, or the policy does not even compile."""
    try:
        engine = worker.engine_with(modules, dict(data))
    except Exception:
        return True
    engine.set_input_json("{}")
    return any(worker.outcome(engine, rule) != ("R", "true") for rule in tests)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["starter", *names()])
def test_whatever_is_left_out_a_test_of_the_policy_fails(name: str) -> None:
    assert sorted(_survivors(name)) == sorted(EQUIVALENT.get(name, {}))


def test_mutants_cover_conditions_rules_branches_and_members() -> None:
    text = """package remit.x
import rego.v1
default a := 1
a := 2 if {
	input.x
	input.y in {3, 4}
} else := 5
"""
    made = {mutant.name for mutant in mutants(text)}
    assert made == {
        "default a: the rule default a := 1",
        "a: the rule a := 2 if { input.x input.y in {3, 4} } else := 5",
        "a: condition input.x",
        "a: condition input.y in {3, 4}",
        "a: branch else := 5",
        "a: member 0 of {3, 4}",
        "a: member 1 of {3, 4}",
    }
