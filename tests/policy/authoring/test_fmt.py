"""`remit policy fmt` with a real opa, and without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.machine import opa_binary
from tests.policy.authoring.terminal import WHOLE, run, written


@pytest.mark.needs("opa")
def test_modules_are_formatted_by_opa(tmp_path: Path) -> None:
    opa = opa_binary()
    assert opa is not None
    folder = written(tmp_path / "p")
    text = WHOLE.replace("import future.keywords.not\n", "")  # it has no `not`
    (folder / "policy.rego").write_text(text)
    assert run("fmt", folder, "--check", "--opa", opa).exit_code == 0
    (folder / "policy.rego").write_text(text.replace("\t", "      "))
    wrong = run("fmt", folder, "--check", "--opa", opa)
    assert wrong.exit_code == 1
    assert wrong.stdout == f"{folder}/policy.rego\n"
    done = run("fmt", folder, "--opa", opa)
    assert done.exit_code == 0
    assert done.stderr == "1 formatted\n"
    assert (folder / "policy.rego").read_text() == text
    assert run("check", folder).exit_code == 0
    (folder / "policy.rego").write_text("package remit\nx :=\n")
    broken = run("fmt", folder, "--opa", opa)
    assert broken.exit_code == 1
    assert "policy.rego:3" in broken.stderr


@pytest.mark.needs("opa")
def test_one_module_is_formatted_and_a_bundle_is_refused(tmp_path: Path) -> None:
    opa = opa_binary()
    assert opa is not None
    folder = written(tmp_path / "p")
    module = folder / "policy.rego"
    module.write_text(module.read_text().replace("import future.keywords.not\n", ""))
    assert run("fmt", module, "--check", "--opa", opa).exit_code == 0
    bundle = tmp_path / "p.tar.gz"
    assert run("build", folder, "-o", bundle).exit_code == 0
    done = run("fmt", bundle, "--opa", opa)
    assert done.exit_code == 2
    assert "name the directory that a bundle is built from" in done.stderr


def test_without_an_opa_the_command_that_installs_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("fmt", written(tmp_path / "p"))
    assert done.exit_code == 3
    assert "go install github.com/open-policy-agent/opa@" in done.stderr
    assert run("fmt", tmp_path / "none").exit_code == 2


def test_what_is_no_opa_means_it_could_not_be_found_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    no_program = tmp_path / "opa"
    no_program.write_text("not a program")
    no_program.chmod(0o755)
    done = run("fmt", folder, "--opa", no_program)
    assert done.exit_code == 3
    assert "opa cannot be run" in done.stderr
