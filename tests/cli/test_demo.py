"""`remit demo` as a newcomer sees it: it holds, and the README shows what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.machine import ROOT

CUT = "[…]"


def _plain(text: str) -> str:
    """Text without what differs from one time to the next: ids, numbers, directories, breaks."""
    text = re.sub(r"remit-demo-\w+", "remit-demo-X", text)
    text = re.sub(r"[0-9a-f]{7,}", "H", text)
    return " ".join(re.sub(r"\d+", "N", text).split())


def _shown() -> list[str]:
    """The pieces of the transcript in the README, between the cuts."""
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"<!-- demo transcript: begin -->\n```\n(.*?)```\n", readme, re.DOTALL)
    assert found is not None
    return [_plain(piece) for piece in found.group(1).split(CUT) if piece.strip()]


@pytest.mark.slow
@pytest.mark.needs("bwrap", "userns", "cgroup", "git")
def test_demo_holds_and_prints_what_the_readme_shows(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "remit", "demo"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    printed, at = _plain(ended.stdout), 0
    for piece in _shown():
        where = printed.find(piece, at)
        assert where >= 0, piece
        at = where + len(piece)
