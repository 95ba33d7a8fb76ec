"""All hostile programs again, by a gateway that is an ordinary user with groups of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adversarial.programs import PROGRAMS
from tests.adversarial.programs.egress import PROGRAMS as GOING_OUT
from tests.adversarial.programs.outliving import PROGRAMS as OUTLIVING
from tests.plugins.machine import CGROUPS, ROOT
from tests.runners.test_unprivileged import USER, delegated, interpreter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.needs("bwrap", "userns", "cgroup"),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="this user is unprivileged already; to run it: be root"
    ),
]

NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules", "bin", ".pytest_cache")


@pytest.fixture
def source(reachable: Path) -> Path:
    """The code and the tests, where the other user can read them, and a home for it."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, reachable / name, ignore=NOT_COPIED)
    shutil.copy(ROOT / "pyproject.toml", reachable)
    (reachable / "home").mkdir()
    os.chown(reachable / "home", USER, USER)
    return reachable


def environment(source: Path) -> str:
    """An interpreter that finds the packages of this one by itself: the egress proxy, which looks
    at no variable, has to find them too."""
    place = source / "venv"
    subprocess.run([interpreter(), "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    packages = [path for path in sys.path if path.endswith("-packages")]
    (site / "all.pth").write_text("\n".join([str(source / "src"), *packages]) + "\n")
    return str(place / "bin/python")


@pytest.mark.threat("T-16", "T-17", "T-18", "T-19", "T-20", "T-32", "T-33")
def test_an_ordinary_users_runs_are_as_contained_as_roots(source: Path) -> None:
    if not (CGROUPS / "memory/cgroup.procs").exists():
        pytest.skip("there is no version 1 hierarchy; to run it: use a hybrid host")
    python = environment(source)
    with delegated("memory", "pids", "cpu", "unified") as groups:

        def enter() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text("0")
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)

        home = str(source / "home")
        # What a program does where its wall is missing was seen by root.
        chosen = "not missing_wall and not on_the_host and not unprivileged"
        options = ["-q", "-rs", "-p", "no:cacheprovider", f"--basetemp={home}/tmp", "-k", chosen]
        done = subprocess.run(
            [python, "-m", "pytest", *options, "tests/adversarial"],
            env={
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": home,
                "TMPDIR": home,
                "REMIT_SEED": os.environ["REMIT_SEED"],
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            cwd=source,
            preexec_fn=enter,
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    counts = dict(re.findall(r"(\d+) (passed|skipped)", done.stdout.splitlines()[-1]))
    passed = sum(int(number) for number, what in counts.items() if what == "passed")
    assert passed >= len(PROGRAMS) + len(GOING_OUT) + 3 * len(OUTLIVING), done.stdout[-2000:]
    assert "skipped" not in counts.values(), done.stdout[-2000:]
