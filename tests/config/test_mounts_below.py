"""A directory that a run may write to is no place to take another mount, or a base, from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config.test_runners_section import DIGEST, problems

pytestmark = pytest.mark.threat("T-37")

TOLD = "one could put a link in its place"


def tool(source: Path, *, writable: bool) -> dict[str, Any]:
    mount = {"name": "m", "source": str(source), "writable": writable}
    return {"command": {"argv": ["/bin/true"], "mounts": [mount]}}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared/deep/er").mkdir(parents=True)
    return tmp_path / "shared"


@pytest.mark.parametrize("below", ["deep", "deep/er"])
@pytest.mark.parametrize("writable", [True, False])
def test_mount_from_below_what_a_run_writes_is_refused(
    tmp_path: Path, shared: Path, below: str, writable: bool
) -> None:
    tools = (tool(shared, writable=True), tool(shared / below, writable=writable))
    (told,) = [each for each in problems(tmp_path, {}, *tools) if TOLD in each]
    assert str(shared) in told


def test_link_to_below_what_a_run_writes_is_seen_through(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(shared / "deep")
    tools = (tool(shared, writable=True), tool(tmp_path / "elsewhere/er", writable=False))
    assert any(TOLD in each for each in problems(tmp_path, {}, *tools))


def test_mounts_and_bases_of_profiles_are_looked_at_too(tmp_path: Path, shared: Path) -> None:
    base = {"kind": "directory", "path": str(shared / "deep"), "digest": DIGEST}
    profiles = {
        "written": {"mounts": [{"name": "m", "source": str(shared), "writable": True}]},
        "shown": {"mounts": [{"name": "m", "source": str(shared / "deep")}], "base": base},
    }
    found = [each for each in problems(tmp_path, {"profiles": profiles}) if TOLD in each]
    assert len(found) == 2


def test_same_directory_twice_or_one_above_is_no_danger(tmp_path: Path, shared: Path) -> None:
    tools = (
        tool(shared / "deep", writable=True),
        tool(shared / "deep", writable=False),
        tool(shared, writable=False),
    )
    assert not any(TOLD in each for each in problems(tmp_path, {}, *tools))
