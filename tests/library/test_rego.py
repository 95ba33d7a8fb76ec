"""The library's own Rego tests, in the embedded engine and in OPA, whatever data is in force."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from remit.policy.bundle import PolicyBundle, load_bundle
from remit.policy.library import names, with_library
from remit.policy.lint import lint
from remit.policy.suite import run_tests
from tests.library.pages import example
from tests.plugins.machine import opa_binary
from tests.policy.world import STARTER

pytestmark = pytest.mark.slow

CASES = [(name, how) for name in names() for how in ("default", "example")]


def _bundle(name: str, how: str) -> PolicyBundle:
    data: Mapping[str, Any] = example(name) if how == "example" else {}
    return with_library(None, {name: data}, tests=True)


def _written(bundle: PolicyBundle, folder: Path) -> list[str]:
    for name, text in {**bundle.modules, **bundle.tests}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "data.json").write_text(json.dumps(bundle.data), encoding="utf-8")
    return [str(folder)]


def _opa(*arguments: str) -> subprocess.CompletedProcess[str]:
    binary = opa_binary()
    assert binary is not None
    return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_its_tests_pass_in_the_embedded_engine(name: str, how: str) -> None:
    results = run_tests(_bundle(name, how))
    assert len(results) >= 6
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize("name", names())
def test_nothing_in_it_is_refused_by_the_portable_profile(name: str) -> None:
    assert lint(_bundle(name, "example")) == []


@pytest.mark.needs("opa")
@pytest.mark.parametrize(("name", "how"), CASES)
def test_its_tests_pass_in_opa(name: str, how: str, tmp_path: Path) -> None:
    bundle = _bundle(name, how)
    done = _opa("test", "--format", "json", "--bundle", *_written(bundle, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {one["name"] for one in json.loads(done.stdout)}
    assert ran == {result.rule.rpartition(".")[2] for result in run_tests(bundle)}


@pytest.mark.needs("opa")
@pytest.mark.parametrize("name", names())
def test_opa_finds_nothing_wrong_when_it_is_strict(name: str, tmp_path: Path) -> None:
    done = _opa("check", "--strict", "--bundle", *_written(_bundle(name, "default"), tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("opa")
@pytest.mark.parametrize("name", names())
def test_it_is_written_as_opa_would_format_it(name: str, tmp_path: Path) -> None:
    bundle = _bundle(name, "default")
    _written(bundle, tmp_path)
    for file, text in {**bundle.modules, **bundle.tests}.items():
        done = _opa("fmt", str(tmp_path / file))
        # OPA takes out an import that changes nothing; the portable profile wants it always.
        assert _without_imports(done.stdout) == _without_imports(text)


def _without_imports(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("import ")]


@pytest.mark.needs("opa")
def test_all_of_them_beside_the_starter_pass_in_opa_too(tmp_path: Path) -> None:
    whole = with_library(load_bundle(STARTER), {name: {} for name in names()}, tests=True)
    folder = _written(whole, tmp_path)
    assert _opa("check", "--strict", "--bundle", *folder).returncode == 0
    done = _opa("test", "--bundle", *folder)
    assert done.returncode == 0, done.stdout
