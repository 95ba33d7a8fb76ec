"""A policy's own tests, run as OPA runs them: each rule `test_…` of a `*_test.rego` module.

A test passes if its rule is true; one called `todo_test_…` is skipped. They run on the embedded
engine, in a process that is thrown away, together with the modules and the data of the policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remit.errors import Code, PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.coverage import FileCoverage, Outcome, covered, joined, without_tests
from remit.policy.lint import modules_of
from remit.policy.syntax import Module

SUITE_TIMEOUT_S = 60.0
TEST_TIMEOUT_S = 5.0
_TEST = "test_"
_TODO = "todo_test_"


@dataclass(frozen=True, slots=True)
class TestResult:
    """How one test ended; `problem` is None if it passed or was skipped."""

    __test__ = False

    rule: str
    place: str
    problem: str | None = None
    skipped: bool = False
    prints: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.problem is None and not self.skipped

    @property
    def failed(self) -> bool:
        return self.problem is not None


@dataclass(frozen=True, slots=True)
class Run:
    """All results in the order of their files and lines, and what the tests reached."""

    results: tuple[TestResult, ...]
    coverage: tuple[FileCoverage, ...] = ()

    @property
    def failed(self) -> list[TestResult]:
        return [result for result in self.results if result.failed]

    @property
    def passed(self) -> list[TestResult]:
        return [result for result in self.results if result.passed]

    @property
    def skipped(self) -> list[TestResult]:
        return [result for result in self.results if result.skipped]


def run_tests(bundle: PolicyBundle) -> Sequence[TestResult]:
    """Run all tests of a bundle, in the order of their files and lines.

    Raises:
        PolicyFault: `policy_error` if the policy does not load at all.
    """
    return run_suite(bundle).results


def run_suite(bundle: PolicyBundle, *, only: re.Pattern[str] | None = None) -> Run:
    """Run the tests of a bundle, or those whose full name holds the pattern.

    Raises:
        PolicyFault: `policy_error` if the policy does not load at all.
    """
    tests = [
        (rule, place) for rule, place in tests_of(bundle) if only is None or only.search(rule[5:])
    ]
    wanted = [rule for rule, _ in tests if not _is_todo(rule)]
    outcomes, files = _evaluated(bundle, wanted) if wanted else ([], [])
    told = dict(zip(wanted, outcomes, strict=True))
    results = tuple(_result(rule, place, told.get(rule)) for rule, place in tests)
    return Run(results, tuple(joined([without_tests(files), _untouched(bundle, files)])))


def _untouched(bundle: PolicyBundle, files: Sequence[FileCoverage]) -> list[FileCoverage]:
    """The modules that the engine's report leaves out, because nothing in them was asked."""
    told = {each.name for each in files}
    return [
        FileCoverage(module.name, (), lines)
        for module in modules_of(bundle)[0]
        if not module.is_test and module.name not in told and (lines := _lines(module))
    ]


def _lines(module: Module) -> tuple[int, ...]:
    """The lines with a condition, or with the value of a rule that has none."""
    found: set[int] = set()
    for _, rule in module.rules():
        if not rule["bodies"]:
            found.add(rule["span"]["line"])
        for body in rule["bodies"]:
            found |= {statement["span"]["line"] for statement in body["query"]["stmts"]}
    return tuple(sorted(found))


def tests_of(bundle: PolicyBundle) -> list[tuple[str, str]]:
    """The full name (`data.remit.test_x`) and the place of each test rule, those to do too."""
    modules, _ = modules_of(bundle)
    found: dict[str, str] = {}
    for module in modules:
        if module.is_test:
            for name, node in module.rules():
                if name.startswith((_TEST, _TODO)):
                    found.setdefault(f"data.{module.package}.{name}", module.at(node))
    return list(found.items())


def _is_todo(rule: str) -> bool:
    return rule.rpartition(".")[2].startswith(_TODO)


def _evaluated(
    bundle: PolicyBundle, rules: list[str]
) -> tuple[list[Outcome], Sequence[FileCoverage]]:
    try:
        return _together(bundle, rules, SUITE_TIMEOUT_S)
    except PolicyFault as fault:
        if fault.code is not Code.POLICY_UNAVAILABLE:
            raise
    alone = [_alone(bundle, rule) for rule in rules]  # one of them hangs or crashes
    return [outcome for outcome, _ in alone], joined(files for _, files in alone)


def _together(
    bundle: PolicyBundle, rules: list[str], timeout_s: float
) -> tuple[list[Outcome], list[FileCoverage]]:
    modules = {**bundle.modules, **bundle.tests}
    return covered(modules, bundle.data, rules, {}, timeout_s=timeout_s)


def _alone(bundle: PolicyBundle, rule: str) -> tuple[Outcome, list[FileCoverage]]:
    try:
        outcomes, files = _together(bundle, [rule], TEST_TIMEOUT_S)
    except PolicyFault as fault:
        told = json.dumps({"message": fault.message, "place": fault.place})
        return Outcome("F", told), []
    return outcomes[0], files


def _result(rule: str, place: str, outcome: Outcome | None) -> TestResult:
    name = rule.removeprefix("data.")
    if outcome is None:
        return TestResult(name, place, skipped=True)
    return TestResult(name, place, _problem(outcome), prints=outcome.prints)


def _problem(outcome: Outcome) -> str | None:
    if outcome.kind == "U":
        return "is not true"
    if outcome.kind == "R":
        return None if outcome.value is True else "is not true"
    told: dict[str, Any] = json.loads(outcome.text)
    where = f" at {told['place']}" if told["place"] else ""
    return f"{told['message']}{where}"
