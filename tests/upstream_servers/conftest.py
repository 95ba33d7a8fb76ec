"""A directory that servers are given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """It holds a git repository of one commit."""
    made = tmp_path / "files"
    repository = made / "repository"
    repository.mkdir(parents=True)
    (repository / "README").write_text("A repository of one commit.\n")
    who = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    for words in (
        ("init", "--quiet"),
        ("add", "README"),
        (*who, "commit", "--quiet", "--no-gpg-sign", "--message=The first one"),
    ):
        subprocess.run(["git", "-C", str(repository), *words], check=True)
    return made
