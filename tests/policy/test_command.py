"""`remit policy test` and `remit policy eval`, as a person at a terminal meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from remit.cli.policy import policy
from remit.policy.bundle import read_bundle
from remit.policy.suite import run_tests
from tests.policy.world import HEAD, STARTER, question

IMPORTS = "import rego.v1\nimport future.keywords.not\n"
HANG = "count([1 | some a in numbers.range(1, 9999); some b in numbers.range(1, 9999); a + b < 0]) == 1"


def _run(*words: str, given: Any = None) -> Result:
    text = None if given is None else json.dumps(given)
    return CliRunner().invoke(policy, list(words), input=text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(STARTER, tmp_path / "policy")
    return tmp_path / "policy"


def test_starter_policy_passes_its_tests() -> None:
    done = _run("test", str(STARTER))
    assert done.exit_code == 0
    assert done.stdout.endswith(" passed, 0 failed\n")


def test_failing_test_is_named_with_its_file_and_line_and_ends_1(folder: Path) -> None:
    text = f"""package remit.mine
{IMPORTS}
test_true if true
test_false if false
test_undefined if input.absent
test_error if to_number("abc") == 1
test_with if {{ data.remit.decision.decision == "allow" with input as {{}} }}
helper if true
"""
    (folder / "mine_test.rego").write_text(text)
    done = _run("test", str(folder))
    assert done.exit_code == 1
    assert "mine_test.rego:6: remit.mine.test_false is not true" in done.stdout
    assert "mine_test.rego:7: remit.mine.test_undefined is not true" in done.stdout
    assert "mine_test.rego:8: remit.mine.test_error could not parse string as number" in done.stdout
    assert "mine_test.rego:9: remit.mine.test_with is not true" in done.stdout
    assert done.stdout.endswith(" passed, 4 failed\n")
    machine = json.loads(_run("test", str(folder), "-o", "json").stdout)
    assert machine["passed"] == len(run_tests(read_bundle(STARTER))) + 1
    assert machine["failed"][0]["rule"] == "remit.mine.test_false"


def test_test_that_hangs_fails_alone(folder: Path) -> None:
    (folder / "remit_test.rego").unlink()
    text = f"package remit\n{IMPORTS}test_hang if {HANG}\ntest_fine if true\n"
    (folder / "slow_test.rego").write_text(text)
    import remit.policy.suite as suite

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "SUITE_TIMEOUT_S", 0.5)
        patch.setattr(suite, "TEST_TIMEOUT_S", 0.5)
        done = _run("test", str(folder))
    assert done.exit_code == 1
    assert "test_hang the policy worker did not answer in time" in done.stdout
    assert "1 passed, 1 failed" in done.stdout


def test_what_the_profile_refuses_fails_the_tests_with_its_mend(folder: Path) -> None:
    (folder / "clock.rego").write_text(f"package remit.clock\n{IMPORTS}x := time.now_ns()\n")
    done = _run("test", str(folder))
    assert done.exit_code == 1
    assert (
        "clock.rego:4: the builtin time.now_ns is refused\n  use input.context.time" in done.stdout
    )
    machine = json.loads(_run("test", str(folder), "-o", "json").stdout)
    assert machine["findings"][0]["place"] == "clock.rego:4"


def test_directory_that_is_no_policy_is_told_on_stderr(tmp_path: Path) -> None:
    done = _run("test", str(tmp_path))
    assert done.exit_code == 1
    assert "no .rego file" in done.stderr
    assert "remit init" in done.stderr
    assert done.stdout == ""
    assert _run("test", str(tmp_path / "none")).exit_code == 2


def test_eval_prints_the_decision_as_remit_reads_it() -> None:
    done = _run("eval", str(STARTER), "--input", "-", "-o", "json", given=question())
    assert done.exit_code == 0
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert facts["decision"] == "allow"
    assert facts["constraints"]["bounds"] == {"replicas": {"minimum": 1, "maximum": 10}}
    assert facts["engine"].startswith("gordon-to-regorus")
    text = _run("eval", str(STARTER), "--input", "-", given=question()).stdout
    assert text.startswith("allow\n")


def test_eval_ends_as_the_decision_says() -> None:
    production = {"service": "web", "environment": "production", "replicas": 1}
    denied = _run("eval", str(STARTER), "--input", "-", given=question(production))
    assert denied.exit_code == 1
    assert denied.stdout.startswith("deny (policy_denied)\n  user   purpose: State a purpose")
    asked = question(production, purpose="rollout")
    waits = _run("eval", str(STARTER), "--input", "-", given=asked)
    assert waits.exit_code == 4
    assert '"required": 1' in waits.stdout


def test_eval_of_a_faulty_policy_shows_the_code_and_ends_3(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(HEAD + "visible := {}\ndecision := 1 if input.request_id\n")
    done = _run("eval", str(tmp_path), "--input", "-", given=question())
    assert done.exit_code == 3
    assert done.stdout.startswith("deny (policy_bad_decision)")


def test_eval_says_where_the_input_is_not_what_the_gateway_would_ask() -> None:
    given = question() | {"surprise": 1}
    del given["plan"]
    done = _run("eval", str(STARTER), "--input", "-", given=given)
    assert "surprise" in done.stderr
    assert "the input at / lacks plan\n" in done.stderr
    assert done.stdout.startswith("allow")


def test_eval_says_only_the_first_faults_of_an_input_that_is_something_else() -> None:
    given: dict[str, Any] = {
        name: {} for name in ("caller", "claims", "context", "usage", "history", "plann")
    }
    done = _run("eval", str(STARTER), "--input", "-", given=given)
    said = done.stderr.splitlines()
    assert done.stderr.count("warning: the input at") == 5
    assert "'plann' was unexpected" in said[0]  # before the many that are missing
    assert "the input at / lacks schema, request_id, phase, " in done.stderr
    assert "docs/policy-input.md" in said[5]


def test_eval_of_the_visible_rule_prints_names() -> None:
    given = {
        "caller": {"groups": ["agents"]},
        "tools": [
            {"name": "read_status", "environments": ["staging"]},
            {"name": "rotate_root_key", "environments": ["production"]},
        ],
    }
    done = _run("eval", str(STARTER), "--input", "-", "--entry", "visible", given=given)
    assert done.exit_code == 0
    assert done.stdout == "read_status\n"


def test_eval_of_input_that_is_no_object_is_refused() -> None:
    assert _run("eval", str(STARTER), "--input", "-", given=[1]).exit_code == 2
    done = CliRunner().invoke(policy, ["eval", str(STARTER), "--input", "-"], input='{"a":1,"a":2}')
    assert done.exit_code == 2
    assert "same key twice" in done.stderr


def test_eval_of_a_policy_that_does_not_load_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package remit\nx := \n")
    done = _run("eval", str(tmp_path), "--input", "-", given=question())
    assert done.exit_code == 3
    assert "p.rego:3:1" in done.stderr
