"""Directories that servers are given."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.upstream_servers.real import MOUNTS


@pytest.fixture
def files() -> Iterator[Path]:
    """One that every user may reach and change; it holds a git repository of one commit."""
    with tempfile.TemporaryDirectory(prefix="remit-files-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = folder / "files"
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
        # A server that is only asked what it lists may write nothing: one that makes its database
        # as it starts has to find it there.
        (made / "notes.db").touch()
        (made / "notes.db").chmod(0o666)
        for path in (made, repository):
            path.chmod(0o777)
        yield made


@pytest.fixture(scope="session")
def mounts() -> Iterator[Mapping[str, Path]]:
    """The servers' environments where the user of a run can reach them: a checkout may be in a
    directory that is its owner's alone, and is copied then."""
    if all(_open_to_all(path) for path in MOUNTS.values()):
        yield MOUNTS
        return
    with tempfile.TemporaryDirectory(prefix="remit-servers-") as name:
        Path(name).chmod(0o755)
        for mount, path in MOUNTS.items():
            shutil.copytree(path, Path(name) / mount, symlinks=True)
        yield {mount: Path(name) / mount for mount in MOUNTS}


def _open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))
