"""`remit policy test`: what failed, where and why; coverage; reports for programs; exit codes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from remit.policy.bundle import read_bundle
from remit.policy.coverage import FileCoverage, joined, percent_of, ranges
from remit.policy.suite import run_suite
from tests.policy.authoring.terminal import IMPORTS, run, written
from tests.policy.world import STARTER

TESTS = f"""package remit

{IMPORTS}
question := {{"caller": {{"groups": ["ops"]}}, "arguments": {{"replicas": 3}}}}

test_allowed if {{
	decision.decision == "allow" with input as question
}}

test_nothing_is_visible if visible == {{}}

test_wrong if {{
	print("about", question.caller.groups)
	answer := decision with input as question
	answer.decision == "deny"
}}

todo_test_later if false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "p", policy_test_rego=TESTS)


def test_failing_test_shows_condition_values_and_prints(folder: Path) -> None:
    done = run("test", folder)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "policy_test.rego:14: remit.test_wrong is not true",
        '  policy_test.rego:17: does not hold: answer.decision == "deny"',
        '    left: "allow"',
        '    right: "deny"',
        '  print policy_test.rego:15: about ["ops"]',
        "2 passed, 1 failed, 1 skipped",
    ]


def test_only_named_tests_are_run(folder: Path) -> None:
    assert run("test", folder, "--run", "test_allowed$").stdout == "1 passed, 0 failed\n"
    assert run("test", folder, "--run", "remit.test_").stdout.endswith("2 passed, 1 failed\n")
    none = run("test", folder, "--run", "nowhere")
    assert none.exit_code == 0
    assert "there is no test of that name" in none.stderr
    wrong = run("test", folder, "--run", "(")
    assert wrong.exit_code == 2
    assert "is not a regular expression" in wrong.stderr


def test_coverage_names_the_lines_that_no_test_reaches(folder: Path) -> None:
    rules = f"package remit.more\n{IMPORTS}x if {{\n\tinput.a\n\tinput.b\n}}\ny := 1\n"
    (folder / "more.rego").write_text(rules, "utf-8")
    (folder / "policy_test.rego").write_text(TESTS.replace('"deny"', '"allow"'), "utf-8")
    done = run("test", folder, "--coverage")
    assert done.exit_code == 0
    assert "more.rego: 0.0 % of lines, not reached: 5-6, 8" in done.stdout
    assert "policy.rego: 100.0 % of lines" in done.stdout
    assert "policy_test.rego" not in done.stdout
    machine = json.loads(run("test", folder, "--coverage", "-o", "json").stdout)["coverage"]
    assert machine["files"][0] == {"name": "more.rego", "percent": 0.0, "not_covered": [5, 6, 8]}
    assert 0 < machine["percent"] < 100


def test_too_little_coverage_fails(folder: Path) -> None:
    (folder / "policy_test.rego").write_text(TESTS.replace('"deny"', '"allow"'), "utf-8")
    assert run("test", folder, "--min-coverage", "100").exit_code == 0
    (folder / "more.rego").write_text(f"package remit.more\n{IMPORTS}x if input.a\n", "utf-8")
    done = run("test", folder, "--min-coverage", "100")
    assert done.exit_code == 1
    assert "the tests reach less than 100 % of the lines" in done.stderr
    assert run("test", folder, "--min-coverage", "101").exit_code == 2


def test_starter_policy_is_reached_whole_by_its_tests() -> None:
    assert run("test", STARTER, "--min-coverage", "100").exit_code == 0


def test_json_report_has_conditions_and_what_was_skipped(folder: Path) -> None:
    machine = json.loads(run("test", folder, "-o", "json").stdout)
    assert machine["passed"] == 2
    assert machine["skipped"] == ["remit.todo_test_later"]
    (failed,) = machine["failed"]
    assert failed["conditions"][0]["values"] == [["allow"], ["deny"]]
    assert failed["prints"] == ['policy_test.rego:15: about ["ops"]']
    assert "coverage" not in machine


def test_junit_report_is_xml_that_ci_servers_read(folder: Path) -> None:
    done = run("test", folder, "-o", "junit")
    assert done.exit_code == 1
    suite = ElementTree.fromstring(done.stdout)
    assert suite.tag == "testsuite"
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    cases = {case.get("name"): case for case in suite}
    assert len(cases["test_allowed"]) == 0
    (failure,) = cases["test_wrong"]
    assert 'left: "allow"' in failure.get("message", "")
    assert cases["test_wrong"].get("line") == "14"
    assert cases["todo_test_later"][0].tag == "skipped"


def test_report_holds_what_xml_cannot(folder: Path) -> None:
    text = f"package remit\n{IMPORTS}" + 'test_x if {\n\tprint("\\u0001<&\\u202e")\n\tfalse\n}\n'
    (folder / "odd_test.rego").write_text(text, "utf-8")
    suite = ElementTree.fromstring(run("test", folder, "-o", "junit", "--run", "test_x").stdout)
    assert "<&" in suite[0][0].get("message", "")


def test_tests_that_do_not_compile_are_told_with_their_line(folder: Path) -> None:
    (folder / "bad_test.rego").write_text(f"package remit\n{IMPORTS}test_x if nobody\n", "utf-8")
    done = run("test", folder)
    assert done.exit_code == 1
    assert "bad_test.rego:4:11: use of undefined variable `nobody` is unsafe" in done.stdout
    suite = ElementTree.fromstring(run("test", folder, "-o", "junit").stdout)
    assert suite.get("failures") == "1"


def test_tests_of_library_policies_are_run_by_name(folder: Path) -> None:
    (folder / "policy_test.rego").write_text(TESTS.replace('"deny"', '"allow"'), "utf-8")
    done = run("test", folder, "--use", "read_only")
    assert done.exit_code == 0, done.stdout
    own = int(run("test", folder).stdout.split()[0])
    assert int(done.stdout.split()[0]) > own
    assert run("test", folder, "--use", "no_such").exit_code == 1


def test_policy_without_tests_says_so(tmp_path: Path) -> None:
    done = run("test", written(tmp_path / "p"))
    assert done.exit_code == 0
    assert done.stdout == "0 passed, 0 failed\n"
    assert "there is no test" in done.stderr


def test_results_come_by_file_and_line_with_what_they_reached(folder: Path) -> None:
    found = run_suite(read_bundle(folder))
    assert [each.rule for each in found.results] == [
        "remit.test_allowed",
        "remit.test_nothing_is_visible",
        "remit.test_wrong",
        "remit.todo_test_later",
    ]
    assert [each.name for each in found.coverage] == ["policy.rego"]


def test_coverage_of_several_runs_is_joined() -> None:
    one = FileCoverage("a", (1, 2), (3, 4))
    other = FileCoverage("a", (3,), (1, 2, 4))
    (both,) = joined([[one], [other]])
    assert both == FileCoverage("a", (1, 2, 3), (4,))
    assert both.percent == 75.0
    assert percent_of([]) == 100.0
    assert ranges((1, 2, 3, 5, 8, 9)) == "1-3, 5, 8-9"
    assert ranges(()) == ""
