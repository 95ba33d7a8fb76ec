"""The wheel needs no compiler and holds everything the package reads at run time."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.source import SRC, name, tracked
from tests.plugins.machine import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "CC": "/bin/false", "PIP_NO_INDEX": "1"},
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_is_pure_python(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    ours = {name(path).removeprefix("src/") for path in tracked() if path.is_relative_to(SRC)}
    assert ours - held == set()


@pytest.mark.parametrize("wanted", ["py.typed", "/schemas/", ".rego", "/migrations/"])
def test_wheel_holds_what_is_read_at_run_time(wheel: Path, wanted: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(wanted in entry for entry in archive.namelist())
