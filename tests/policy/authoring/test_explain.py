"""`remit policy explain`: whose reasons, which lines, which layer, and the condition that failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.policy.bundle import bundle_of
from remit.policy.why import Body, why
from tests.policy.authoring.terminal import IMPORTS, QUESTION, WHOLE, run, written

pytestmark = pytest.mark.slow

RULES = f"""package remit
{IMPORTS}
a if {{
	input.x == 1 # first; really
	some g in input.groups; g == "ops"
	not input.bad
	count(input.groups) > 5
}}

a if {{ y := input.x + 1; y == 3 }} else := 7 if input.z

b contains x if {{ some x in input.groups; startswith(x, "z") }}

c if decision.v == 3 with input as {{"q": 1, "r": 2}} with data.z as 2

c if input.arguments.service in {{"web"}}

c if {{ every g in input.groups {{ g != "dev" }} }}

c if input.x.y.z

decision := {{"v": input.q}}

f(x) if x == 1

fails if to_number("a") == 1

holds if input.x == 1

visible[name] := true if {{ some t in input.tools; name := t.name; name == "q" }}
"""

DOCUMENT = {
    "x": 1,
    "groups": ["dev", "ops"],
    "arguments": {"service": "db"},
    "tools": [{"name": "a"}],
}


def bodies(rule: str) -> list[Body]:
    return why(bundle_of({"a.rego": RULES}, {}), f"remit.{rule}", DOCUMENT)


@pytest.mark.parametrize(
    ("rule", "number", "line", "condition", "sides"),
    [
        ("a", 0, 9, "count(input.groups) > 5", (("2",), ("5",))),
        ("a", 1, 12, "y == 3", (("2",), ("3",))),
        ("a", 2, 12, "input.z", ((),)),
        ("b", 0, 14, 'startswith(x, "z")', (("false",),)),
        (
            "c", 0, 16, 'decision.v == 3 with input as {"q": 1, "r": 2} with data.z as 2',
            (("1",), ("3",)),
        ),
        ("c", 1, 18, 'input.arguments.service in {"web"}', (('"db"',), ('["web"]',))),
        ("c", 2, 20, 'every g in input.groups { g != "dev" }', (('["dev", "ops"]',),)),
        ("c", 3, 22, "input.x.y.z", ((),)),
        ("visible", 0, 32, 'name == "q"', (('"a"',), ('"q"',))),
    ],
)  # fmt: skip
def test_first_condition_that_fails_is_found_with_its_values(
    rule: str, number: int, line: int, condition: str, sides: tuple[tuple[str, ...], ...]
) -> None:
    body = bodies(rule)[number]
    assert not body.holds
    assert body.failed_at == f"a.rego:{line}"
    assert body.condition == condition
    assert body.sides == sides


def test_what_holds_fails_or_cannot_be_told_is_said() -> None:
    assert bodies("holds")[0].holds
    assert "no arguments here" in (bodies("f")[0].unknown or "")
    assert "could not parse" in (bodies("fails")[0].unknown or "")
    assert bodies("nothing") == []


def test_condition_that_needs_a_later_name_is_not_guessed_at() -> None:
    """The embedded engine refuses such a body, so it is never asked; nothing is made up."""
    text = f"package remit\n{IMPORTS}a if {{ y == 3; y := input.x }}\n"
    (body,) = why(bundle_of({"a.rego": text}, {}), "remit.a", DOCUMENT)
    assert not body.holds
    assert body.condition is None
    assert body.unknown


def test_reasons_come_with_the_rules_that_gave_them(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    done = run("explain", folder, "--input", "-", given=QUESTION)
    assert done.exit_code == 0
    assert done.stdout.startswith("allow\n  granted: A group of yours may.  (policy.rego:12)\n")
    assert "policy.rego:21: remit.granted, lines 22-23" in done.stdout
    denied = run("explain", folder, "--input", "-", given={"caller": {"groups": []}})
    assert denied.exit_code == 0
    assert denied.stdout.startswith("deny\n  no_rule: ")


def test_named_rule_is_explained(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    question = {**QUESTION, "arguments": {"replicas": 7}}
    done = run("explain", folder, "--input", "-", "--rule", "decision", given=question)
    assert done.stdout.endswith(
        "rule remit.decision\n"
        "  policy.rego:18: does not hold: input.arguments.replicas < 5\n"
        "    left: 7\n    right: 5\n"
    )
    for name in ("granted", "remit.granted", "data.remit.granted"):
        found = run("explain", folder, "--input", "-", "--rule", name, given=question)
        assert found.stdout.endswith("rule remit.granted\n  policy.rego:21: holds\n")
    wrong = run("explain", folder, "--input", "-", "--rule", "grantd", given=question)
    assert wrong.exit_code == 2
    assert "did you mean remit.granted?" in wrong.stderr


def test_layer_that_decides_is_marked(tmp_path: Path) -> None:
    mine = written(tmp_path / "p")
    strict = tmp_path / "strict"
    strict.mkdir()
    (strict / "p.rego").write_text(WHOLE.replace("granted\n\tinput", "input.nothing\n\tinput"))
    words = ("explain", mine, "--layer", f"organisation={strict}", "--input", "-")
    done = run(*words, given=QUESTION)
    assert done.stdout.startswith("deny\npolicy: allow\n")
    assert "organisation: deny  <- decides" in done.stdout
    machine = json.loads(run(*words, "-o", "json", given=QUESTION).stdout)
    assert machine["decision"] == "deny"
    assert [(part["layer"], part["decides"]) for part in machine["parts"]] == [
        ("policy", False),
        ("organisation", True),
    ]
    assert machine["parts"][0]["rules"]
    assert run("explain", mine, "--layer", "wrong", "--input", "-", given={}).exit_code == 2


def test_library_policies_are_explained_beside_ones_own(tmp_path: Path) -> None:
    words = ("explain", written(tmp_path / "p"), "--use", "read_only", "--input", "-")
    done = run(*words, given=QUESTION)
    assert "policy/remit: allow" in done.stdout
    assert "policy/remit.library.read_only: deny  <- decides" in done.stdout


def test_faulty_answer_is_explained_as_the_gateway_reads_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", x_rego=f"package remit\n{IMPORTS}decision := 1 if input.x\n")
    done = run("explain", folder, "--input", "-", given={"x": 1})
    assert done.exit_code == 0
    assert done.stdout.startswith("deny (policy_bad_decision)")
    (folder / "policy.rego").write_text("package remit\nx :=\n")
    broken = run("explain", folder, "--input", "-", given={})
    assert broken.exit_code == 3
    assert "policy.rego:3" in broken.stderr


def test_prints_are_shown(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    text = WHOLE.replace("granted if {\n", 'granted if {\n\tprint("seen", input.caller.groups)\n')
    (folder / "policy.rego").write_text(text)
    done = run("explain", folder, "--input", "-", given=QUESTION)
    assert 'print policy.rego:22: seen ["ops"]' in done.stdout


def test_eval_asks_all_layers(tmp_path: Path) -> None:
    mine = written(tmp_path / "p")
    assert run("eval", mine, "--input", "-", given=QUESTION).exit_code == 0
    layered = run("eval", mine, "--use", "read_only", "--input", "-", given=QUESTION)
    assert layered.exit_code == 1
    assert "[policy/remit.library.read_only]" in layered.stdout


@pytest.mark.parametrize("command", ["eval", "explain"])
def test_library_policy_that_does_not_exist_is_wrong_usage(tmp_path: Path, command: str) -> None:
    words = (command, written(tmp_path / "p"), "--use", "read_onli", "--input", "-")
    done = run(*words, given=QUESTION)
    assert done.exit_code == 2
    assert "did you mean read_only?" in done.stderr
