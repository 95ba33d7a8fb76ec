"""A policy's own tests, run as OPA runs them: each rule `test_…` of a `*_test.rego` module.

A test passes if its rule is true. They run on the embedded engine, in a process that is thrown
away, together with the modules and the data of the policy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remit.errors import Code, PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.lint import modules_of
from remit.policy.process import run_once, try_frame

SUITE_TIMEOUT_S = 60.0
TEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class TestResult:
    """How one test ended; `problem` is None if it passed."""

    __test__ = False

    rule: str
    place: str
    problem: str | None = None

    @property
    def passed(self) -> bool:
        return self.problem is None


def run_tests(bundle: PolicyBundle) -> Sequence[TestResult]:
    """Run all tests of a bundle, in the order of their files and lines.

    Raises:
        PolicyFault: `policy_error` if the policy does not load at all.
    """
    tests = _tests(bundle)
    if not tests:
        return []
    try:
        answers = _evaluate(bundle, [rule for rule, _ in tests], SUITE_TIMEOUT_S)
    except PolicyFault as fault:
        if fault.code is not Code.POLICY_UNAVAILABLE:
            raise
        answers = [_alone(bundle, rule) for rule, _ in tests]  # one of them hangs or crashes
    return [
        TestResult(rule.removeprefix("data."), place, _problem(kind, text))
        for (rule, place), (kind, text) in zip(tests, answers, strict=True)
    ]


def _tests(bundle: PolicyBundle) -> list[tuple[str, str]]:
    """The full name and the place of each test rule."""
    modules, _ = modules_of(bundle)
    found: dict[str, str] = {}
    for module in modules:
        if module.is_test:
            for name, node in module.rules():
                if name.startswith("test_"):
                    found.setdefault(f"data.{module.package}.{name}", module.at(node))
    return list(found.items())


def _evaluate(bundle: PolicyBundle, rules: list[str], timeout_s: float) -> list[tuple[str, str]]:
    frame = try_frame({**bundle.modules, **bundle.tests}, bundle.data, rules, {})
    answers: list[tuple[str, str]] = json.loads(run_once(frame, timeout_s=timeout_s))
    return answers


def _alone(bundle: PolicyBundle, rule: str) -> tuple[str, str]:
    try:
        return _evaluate(bundle, [rule], TEST_TIMEOUT_S)[0]
    except PolicyFault as fault:
        return "F", json.dumps({"message": fault.message, "place": fault.place})


def _problem(kind: str, text: str) -> str | None:
    if kind == "R":
        return None if json.loads(text) is True else "is not true"
    if kind == "U":
        return "is not true"
    told: dict[str, Any] = json.loads(text)
    where = f" at {told['place']}" if told["place"] else ""
    return f"{told['message']}{where}"
