"""`remit policy check`: what a person did wrong is told with its place, what it is, and the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.policy.archive import write_archive
from remit.policy.bundle import read_bundle
from tests.plugins.machine import opa_binary
from tests.policy.authoring.terminal import IMPORTS, WHOLE, run, written
from tests.policy.world import STARTER

pytestmark = pytest.mark.slow


def test_right_policy_is_nothing_to_speak_of_and_ends_0(tmp_path: Path) -> None:
    done = run("check", written(tmp_path / "p"))
    assert done.exit_code == 0
    assert done.stdout.startswith("1 modules, revision sha256:")
    assert done.stdout.endswith(": 0 errors, 0 warnings\n")
    assert done.stderr == ""


def test_archive_of_a_policy_is_checked_as_its_directory(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", x_rego=f"package remit.x\n{IMPORTS}y := time.now_ns()\n")
    archive = tmp_path / "p.tar.gz"
    archive.write_bytes(write_archive(read_bundle(folder)))
    assert run("check", archive).stdout == run("check", folder).stdout
    assert run("check", archive).exit_code == 1


def test_what_is_refused_has_place_and_mend_and_ends_1(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", x_rego=f"package remit.x\n{IMPORTS}y := time.now_ns()\n")
    done = run("check", folder)
    assert done.exit_code == 1
    assert "x.rego:4: error: the builtin time.now_ns is refused\n  use input.context" in done.stdout
    machine = json.loads(run("check", folder, "-o", "json").stdout)
    assert machine["ok"] is False
    assert machine["findings"][0]["place"] == "x.rego:4"
    assert machine["findings"][0]["severity"] == "error"


def test_warning_fails_only_with_strict(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", x_rego=f"package remit.x\n{IMPORTS}y if input.callr.subject\n")
    done = run("check", folder)
    assert done.exit_code == 0
    assert "x.rego:4: warning: the input has no field input.callr\n  did you mean caller?" in (
        done.stdout
    )
    assert run("check", folder, "--strict").exit_code == 1


def test_findings_come_by_file_and_line(tmp_path: Path) -> None:
    lines = "".join(f"y{number} := time.now_ns()\n" for number in range(12))
    folder = written(
        tmp_path / "p", b_rego=f"package remit.b\n{IMPORTS}{lines}", a_rego="package a\n"
    )
    found = json.loads(run("check", folder, "-o", "json").stdout)["findings"]
    places = [each["place"] for each in found]
    assert places[0].startswith("a.rego")
    assert places[-12:] == [f"b.rego:{number}" for number in range(4, 16)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.rego", b"package remit.x\nimport rego.v1\ny := $\"a {1}\"\n", "use concat or sprintf"),
        ("x.rego", b"package remit.x\nimport rego.v1\ny if { 1 == 1 or 2 == 2 }\n", "several rules"),
        ("x.rego", b"package remit.x\nimport rego.v1\ny if { not { 1 == 2; true } }\n", "rule of its own"),
        ("x.rego", b"package remit.x\nimport rego.v1\ny { true }\n", "put `if` before"),
        ("x.rego", b"package remit.x\nimport rego.v1\ny := \n", "there or just before"),
        ("x.rego", b"package remit.x\nimport rego.v1\ny if { nobody }\n", "correct its spelling"),
        ("x.rego", b"", "this is not a text of Rego"),
        ("x.rego", b"a\0b", "this is not a text of Rego"),
        ("x.rego", b"\xff\xfe\0\1", "remove it, or save it as text"),
        ("x.rego", b"#" * (256 * 1024 + 1), "split it"),
        ("x.rego", b"package wrong\nimport rego.v1\n", "write `package remit`"),
        ("data.json", b'{"groups": [}', "data.json"),
        ("data.more.json", b'{"groups": []}', "keep each key in one file"),
    ],
)  # fmt: skip
def test_each_wrong_file_is_told_with_what_to_do(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "p")
    (folder / name).write_bytes(content)
    done = run("check", folder)
    assert done.exit_code == 1
    told = done.stdout + done.stderr
    assert name in told
    assert said in told


def test_no_policy_at_all_is_a_wrong_use(tmp_path: Path) -> None:
    missing = run("check", tmp_path / "none")
    assert missing.exit_code == 2
    assert "remit init" in missing.stderr
    module = run("check", written(tmp_path / "p") / "policy.rego")
    assert module.exit_code == 2
    assert f"name the directory it is in: {tmp_path / 'p'}" in module.stderr
    (tmp_path / "empty").mkdir()
    empty = run("check", tmp_path / "empty")
    assert empty.exit_code == 1
    assert "there is no .rego file" in empty.stderr


def test_policy_without_default_or_visible_is_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    (folder / "policy.rego").write_text(WHOLE.replace("default decision", "default verdict"))
    assert "there is no default for the rule `decision`" in run("check", folder).stdout
    (folder / "policy.rego").write_text(WHOLE.replace("visible := {}", ""))
    assert "there is no rule `visible`" in run("check", folder).stdout
    (folder / "policy.rego").write_text(WHOLE.replace("visible := {}", 'visible contains "a"'))
    assert "`visible` is a set" in run("check", folder).stdout


def test_opa_that_is_none_means_it_could_not_be_found_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    none = run("check", folder, "--opa", tmp_path / "opa")
    assert none.exit_code == 3
    assert "go install" in none.stderr
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho no\nexit 1\n")
    other.chmod(0o755)
    done = run("check", folder, "--opa", other)
    assert done.exit_code == 3
    assert "said nothing that can be read" in done.stderr


@pytest.mark.needs("opa")
def test_opa_has_its_say_about_types_and_unused_names(tmp_path: Path) -> None:
    opa = opa_binary()
    assert opa is not None
    text = f"package remit.x\n{IMPORTS}y if {{\n\tunused := 1\n\ttrue\n}}\n"
    folder = written(tmp_path / "p", x_rego=text)
    assert run("check", folder).exit_code == 0
    done = run("check", folder, "--opa", opa)
    assert done.exit_code == 1
    assert "x.rego:5: error: opa: assigned var unused unused" in done.stdout
    assert run("check", STARTER, "--opa", opa, "--strict").exit_code == 0
