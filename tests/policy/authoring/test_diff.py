"""`remit policy diff`: what two policies decide differently, over given or made questions."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from remit.cli.invocation import Invocation
from remit.cli.main import cli
from remit.cli.policy.diff import diff
from remit.policy.archive import write_archive
from remit.policy.bundle import bundle_of, read_bundle
from remit.policy.samples import empty, of_tests, samples
from remit.policy.schemas import shipped
from tests.policy.authoring.terminal import IMPORTS, QUESTION, WHOLE, run, written
from tests.policy.world import STARTER

pytestmark = pytest.mark.slow

TESTS = f"""package remit
{IMPORTS}
asked(groups) := {{
	"caller": {{"groups": groups}},
	"arguments": {{"replicas": 3}},
}}

test_a if decision.decision == "allow" with input as asked(["ops"])

test_b if {{
	question := asked(["dev"])
	decision.decision == "deny" with input as question with data.groups as []
}}

test_c if {{
	decision.decision == "deny" with input as {{
		"caller": {{"groups": []}},
		"arguments": {{}},
	}}
}}
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return written(tmp_path / "old", policy_test_rego=TESTS)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    folder = written(tmp_path / "new", policy_test_rego=TESTS)
    (folder / "data.json").write_text('{"groups": ["ops", "dev"]}')
    return folder


def test_same_policy_differs_in_nothing_and_ends_0(old: Path) -> None:
    done = run("diff", old, old)
    assert done.exit_code == 0
    assert done.stdout == "0 of 500 decisions differ\n"


def test_changes_are_counted_by_verdict_with_examples_and_end_1(old: Path, new: Path) -> None:
    done = run("diff", old, new, "--examples", "1")
    assert done.exit_code == 1
    first, second, third = done.stdout.splitlines()[:3]
    assert first.endswith(" of 500 decisions differ")
    assert second.endswith("  deny -> allow")
    assert third.startswith("question 2: deny -> allow")
    assert "  - no_rule: No rule allows this." in done.stdout
    assert "  + granted: A group of yours may." in done.stdout
    machine = json.loads(run("diff", old, new, "-o", "json", "--examples", "2").stdout)
    assert machine["asked"] == 500
    assert machine["transitions"] == [{"old": "deny", "new": "allow", "count": machine["differ"]}]
    assert len(machine["examples"]) == 2
    assert machine["examples"][0]["input"]["caller"]["groups"] == ["dev"]


def test_other_reasons_with_the_same_verdict_are_a_change_too(old: Path, new: Path) -> None:
    (new / "data.json").write_text('{"groups": ["ops"]}')
    (new / "policy.rego").write_text(WHOLE.replace("A group of yours may.", "You may."))
    done = run("diff", old, new)
    assert done.exit_code == 1
    assert "allow -> allow  (other reasons or constraints)" in done.stdout


def test_recorded_questions_are_read_a_line_each(old: Path, new: Path, tmp_path: Path) -> None:
    file = tmp_path / "inputs.jsonl"
    dev = {**QUESTION, "caller": {"groups": ["dev"]}}
    file.write_text(f"{json.dumps(QUESTION)}\n\n{json.dumps(dev)}\n")
    done = run("diff", old, new, "--inputs", file)
    assert done.exit_code == 1
    assert done.stdout.startswith("1 of 2 decisions differ\n")
    for text, said in (("[1]\n", "is not a JSON object"), ("{}\n{", ":2"), ("\n", "no question")):
        file.write_text(text)
        wrong = run("diff", old, new, "--inputs", file)
        assert wrong.exit_code == 2
        assert said in wrong.stderr
    assert run("diff", old, new, "--inputs", tmp_path / "none").exit_code == 2


def test_bundles_are_compared_as_directories_are(old: Path, new: Path, tmp_path: Path) -> None:
    archive = tmp_path / "new.tar.gz"
    archive.write_bytes(write_archive(read_bundle(new)))
    assert run("diff", old, archive).exit_code == 1
    assert run("diff", new, archive).exit_code == 0


def test_policy_that_cannot_be_read_is_a_wrong_use(old: Path, tmp_path: Path) -> None:
    assert run("diff", old, tmp_path / "none").exit_code == 2
    broken = written(tmp_path / "b", x_rego="package remit.x\nimport rego.v1\nx :=\n")
    done = run("diff", old, broken)
    assert done.exit_code == 2
    assert "x.rego:4" in done.stderr


def test_seed_gives_the_same_questions_each_time() -> None:
    starter = read_bundle(STARTER)
    one, again, other = (samples([starter], count=200, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert len(one) == 200
    verdicts = {question["phase"] for question in one}
    assert {"call", "preview"} <= verdicts


def test_questions_are_those_that_tests_ask(old: Path) -> None:
    found = of_tests(read_bundle(old))
    assert [each["caller"]["groups"] for each in found] == [["ops"], ["dev"], []]
    assert found[2]["arguments"] == {}
    assert of_tests(bundle_of({"p.rego": WHOLE}, {})) == []


def test_empty_question_is_a_whole_input() -> None:
    assert (
        list(jsonschema.Draft202012Validator(shipped("remit.input-1")).iter_errors(empty())) == []
    )


def test_without_tests_and_catalog_the_questions_are_doubted(tmp_path: Path) -> None:
    done = run("diff", written(tmp_path / "a"), written(tmp_path / "b"))
    assert "better give --inputs" in done.stderr


def test_tools_of_the_catalog_are_asked_about(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    assert CliRunner().invoke(cli, ["init"]).exit_code == 0
    invocation = Invocation(home / "remit.yaml")
    name = invocation.settings().tools[0].name
    new = written(tmp_path / "new", policy_test_rego=TESTS)
    rule = f'decision := {{"decision": "x"}} if input.tool.name == "{name}"\n'
    (new / "policy.rego").write_text(WHOLE + rule)
    done = CliRunner().invoke(diff, [str(old), str(new)], obj=invocation)
    assert done.exit_code == 1
    assert f"  call {name}" in done.stdout.replace("preview", "call")
    without = CliRunner().invoke(diff, [str(old), str(new)], obj=Invocation(home / "none.yaml"))
    assert without.exit_code == 0
