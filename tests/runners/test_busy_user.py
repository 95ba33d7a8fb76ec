"""A user who has more processes than a run may have, as on any desktop."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.runners.test_unprivileged import USER, as_user, pytestmark, source

__all__ = ["pytestmark", "source"]


@pytest.mark.threat("T-17")
def test_limit_on_processes_counts_from_those_the_user_has_already(source: Path) -> None:
    others = [
        subprocess.Popen(["sleep", "60"], user=USER, group=USER, extra_groups=[]) for _ in range(60)
    ]
    try:
        said = as_user(source, [], unsafe=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert (said["tier"], said["code"]) == ("degraded", 4)
