"""What a newcomer's machine lacks is said in one line; what CI skips is not passed over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.machine import ROOT
from tests.plugins.skips import allowed

TESTS = """
import pytest
@pytest.mark.{mark}
def test_something(): pass
"""


def _preflight(python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "requirements" / "preflight"],
        env={"PATH": os.environ["PATH"], "PYTHON": python},
        capture_output=True,
        text=True,
    )


def _fake_python(folder: Path, script: str) -> str:
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    fake.chmod(0o755)
    return str(fake)


def test_this_machine_lacks_nothing() -> None:
    assert _preflight(sys.executable).returncode == 0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "apt-get install python3 python3-venv"),
        ("exit 1", "python3 3.11 or later"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt-get install python3-venv"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, script: str | None, said: str) -> None:
    done = _preflight("no-such-python" if script is None else _fake_python(tmp_path, script))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("missing: ")
    assert said in line


def _run(folder: Path, mark: str, **extra: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TESTS.format(mark=mark), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.plugins.skips", "-p", "no:cacheprovider"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **extra},
        capture_output=True,
        text=True,
    )


def test_a_skip_is_named_with_its_reason_and_passes_at_home(tmp_path: Path) -> None:
    done = _run(tmp_path, 'skip(reason="the moon is down")')
    assert done.returncode == 0
    assert "not run on this machine" in done.stdout
    assert "test_it.py::test_something\n    the moon is down" in done.stdout


def test_a_skip_that_is_not_listed_fails_in_ci(tmp_path: Path) -> None:
    done = _run(tmp_path, 'skip(reason="the moon is down")', REMIT_CI="1")
    assert done.returncode == 1
    assert "skips that CI does not allow" in done.stdout


def test_a_misspelt_need_fails_the_run(tmp_path: Path) -> None:
    done = _run(tmp_path, 'needs("bwarp")')
    assert done.returncode != 0
    assert "'bwarp'" in done.stdout + done.stderr


def test_an_allowed_skip_without_a_reason_is_an_error() -> None:
    assert allowed("# a comment\ntests/a.py::*  # why\n") == {"tests/a.py::*": "why"}
    with pytest.raises(pytest.UsageError):
        allowed("tests/a.py::*\n")
