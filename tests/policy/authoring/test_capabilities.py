"""`opa check` with the capabilities and schemas of Remit enforces what the profile does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from remit.policy import library
from remit.policy.builtins import ALLOWED, why_refused
from remit.policy.schemas import NAMES, for_opa
from tests.plugins.machine import opa_binary
from tests.policy.authoring.terminal import IMPORTS, run
from tests.policy.capabilities import COMPILED, FILE, text
from tests.policy.world import STARTER

SHIPPED = json.loads(FILE.read_text("utf-8"))
ANNOTATION = '# METADATA\n# scope: package\n# schemas:\n#   - input: schema["remit.input-1"]\n'


def opa(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [str(opa_binary()), *[str(word) for word in words]]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def checked(folder: Path, rego: str) -> subprocess.CompletedProcess[str]:
    (folder / "x.rego").write_text(rego, "utf-8")
    return opa("check", "--capabilities", FILE, folder / "x.rego")


def test_capabilities_hold_the_builtins_of_the_profile_and_the_operators() -> None:
    operators = {each["name"] for each in SHIPPED["builtins"] if "infix" in each}
    members = {each["name"] for each in SHIPPED["builtins"] if "member" in each["name"]}
    named = {each["name"] for each in SHIPPED["builtins"]}
    assert named - operators - members - COMPILED == ALLOWED
    assert SHIPPED["future_keywords"] == ["not"]
    assert SHIPPED["features"] == ["rego_v1"]


@pytest.mark.needs("opa")
def test_shipped_capabilities_are_those_of_a_real_opa() -> None:
    assert text() == FILE.read_text("utf-8")


def test_command_prints_the_capabilities_file() -> None:
    done = run("capabilities")
    assert done.exit_code == 0
    assert done.stdout == FILE.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.needs("opa")
@pytest.mark.threat("T-12")
def test_opa_refuses_each_builtin_that_the_profile_refuses(tmp_path: Path) -> None:
    told = json.loads(opa("capabilities", "--current").stdout)
    kept = {each["name"] for each in SHIPPED["builtins"]}
    refused = [each for each in told["builtins"] if each["name"] not in kept]
    assert len(refused) > 80
    calls = "".join(
        f"r{number} := {each['name']}({', '.join(['input.a'] * _arity(each))})\n"
        for number, each in enumerate(refused)
        if not each["name"].startswith("internal.")
    )
    (tmp_path / "x.rego").write_text(f"package remit\nimport rego.v1\n{calls}", "utf-8")
    done = opa("check", "--max-errors", "0", "--capabilities", FILE, tmp_path / "x.rego")
    for each in refused:
        if not each["name"].startswith("internal."):
            assert f"undefined function {each['name']}\n" in done.stderr
            assert why_refused(each["name"]) or each["name"] not in ALLOWED


def _arity(builtin: dict[str, Any]) -> int:
    return len(builtin["decl"].get("args", ()))


@pytest.mark.needs("opa")
@pytest.mark.parametrize(
    "rule",
    [
        'x := $"a {1}"',
        "x if { input.if.in == 1 }",
        "import future.keywords.and\nx if { 1 == 1 and 2 == 2 }",
        "import rego.v2\nx := 1",
    ],
)
def test_opa_refuses_syntax_that_the_profile_refuses(rule: str, tmp_path: Path) -> None:
    assert checked(tmp_path, f"package remit\nimport rego.v1\n{rule}\n").returncode != 0
    plain = f'package remit\n{IMPORTS}x if not input.a\ny := sprintf("%d", [1])\n'
    assert checked(tmp_path, plain).returncode == 0


@pytest.mark.needs("opa")
def test_opa_takes_the_starter_policy_and_all_of_the_library() -> None:
    folders = [
        STARTER,
        *(Path(library.__file__).parents[1] / "library" / n for n in library.names()),
    ]
    assert len(folders) == 12
    for folder in folders:
        modules = sorted(folder.glob("*.rego"))
        done = opa("check", "--strict", "--capabilities", FILE, *modules)
        assert done.returncode == 0, done.stderr


@pytest.mark.needs("opa")
def test_misspelt_field_of_the_input_is_found_by_opa_with_the_schemas(tmp_path: Path) -> None:
    assert run("schemas", "--output", tmp_path / "schemas").exit_code == 0
    policy = tmp_path / "policy"
    policy.mkdir()
    starter = (
        (STARTER / "remit.rego").read_text("utf-8").replace("package remit", "package remit", 1)
    )
    if "schemas:" not in starter:
        starter = starter.replace("package remit\n", f"\n{ANNOTATION}package remit\n", 1)
    (policy / "remit.rego").write_text(starter, "utf-8")
    assert opa("check", "--strict", "--schema", tmp_path / "schemas", policy).stderr == ""
    wrong = f'{ANNOTATION}package remit.x\nimport rego.v1\ny if input.callr.subject == "a"\n'
    (policy / "x.rego").write_text(wrong, "utf-8")
    done = opa("check", "--schema", tmp_path / "schemas", policy)
    assert "undefined ref: input.callr.subject" in done.stderr


def test_schemas_are_written_or_printed(tmp_path: Path) -> None:
    printed = json.loads(run("schemas").stdout)
    assert sorted(printed) == sorted(NAMES)
    assert "$ref" not in json.dumps(printed)
    assert run("schemas", "--output", tmp_path / "s").exit_code == 0
    assert json.loads((tmp_path / "s/remit.input-1.json").read_text()) == for_opa("remit.input-1")
    (tmp_path / "file").write_text("")
    assert run("schemas", "--output", tmp_path / "file" / "below").exit_code == 2
