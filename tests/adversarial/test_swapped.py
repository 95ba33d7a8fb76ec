"""A link put in the place of what is about to be mounted, by whoever can write above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.runners.bubblewrap import find
from tests.runners.wired import UID_BASE, wired

pytestmark = pytest.mark.needs("bwrap", "userns", "cgroup")

SWAP = """#!/bin/sh
cd {parent} && mv source aside && ln -s /etc source || exit 9
exec {bwrap} "$@"
"""
"""Bubblewrap for which somebody is quicker: a mount's source is another by the time it is mounted."""


@pytest.mark.threat("T-37")
def test_a_mount_is_the_directory_that_was_checked_or_nothing_runs(
    tmp_path: Path, reachable: Path
) -> None:
    """A run that can write above another's mount can put a link to the host's files there."""
    bwrap = find(None, for_others=True)
    assert bwrap is not None
    parent = reachable / "shared"
    (parent / "source").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(parent, UID_BASE, UID_BASE)
    quicker = reachable / "bwrap"
    quicker.write_text(SWAP.format(parent=parent, bwrap=bwrap.path))
    quicker.chmod(0o755)
    with wired(tmp_path, bwrap=str(quicker)) as spawner:
        mounts = [["data", str(parent / "source"), False]]
        lease, out = spawner.provision("/bin/ls", "/mnt/data", mounts=mounts)
        report = spawner.hear("ended", "provisioned", lease=lease)[0]
        assert out.read() == b""
    assert (parent / "source").readlink() == Path("/etc")
    assert (report["ev"], report["began"], report["why"]) == ("ended", False, "setup")
