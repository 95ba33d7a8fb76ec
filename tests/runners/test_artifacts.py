"""Files that runs left, on a real disk: whole or not there, by what they hold, for so long."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path

import pytest

from remit.ports import Artifacts
from remit.runners.artifacts import DAY_MS, STRAY_MS, DirectoryArtifacts
from remit.testing.artifacts import ArtifactsContract, MemoryArtifacts

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000_000


def kept_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def age(path: Path, at_ms: int) -> None:
    os.utime(path, ns=(at_ms * 1_000_000, at_ms * 1_000_000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def artifacts(folder: Path) -> DirectoryArtifacts:
    return DirectoryArtifacts(folder, keep_days=2, max_bytes=100)


class TestDirectory(ArtifactsContract):
    @pytest.fixture
    def artifacts(self, tmp_path: Path) -> Artifacts:
        return DirectoryArtifacts(tmp_path / "a", keep_days=1, max_bytes=2**30)


class TestMemory(ArtifactsContract):
    @pytest.fixture
    def artifacts(self) -> Artifacts:
        return MemoryArtifacts()


async def test_nobody_else_can_read_them(artifacts: DirectoryArtifacts, folder: Path) -> None:
    await artifacts.put(b"left by a run")
    (path,) = kept_in(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.threat("T-22")
async def test_file_that_was_changed_is_not_given_and_is_mended_when_put_again(
    artifacts: DirectoryArtifacts, folder: Path
) -> None:
    name = await artifacts.put(b"true")
    (path,) = kept_in(folder)
    path.write_bytes(b"fake")
    assert await artifacts.get(name) is None
    assert await artifacts.put(b"true") == name
    assert await artifacts.get(name) == b"true"


@pytest.mark.threat("T-22")
async def test_link_in_the_place_of_a_file_is_not_followed(
    artifacts: DirectoryArtifacts, folder: Path, tmp_path: Path
) -> None:
    name = await artifacts.put(b"true")
    (path,) = kept_in(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"true")
    path.unlink()
    path.symlink_to(elsewhere)
    assert await artifacts.get(name) is None
    await artifacts.put(b"true")
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == b"true"


async def test_what_could_not_be_written_leaves_nothing(
    artifacts: DirectoryArtifacts, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        await artifacts.put(b"too much")
    assert kept_in(folder) == []


async def test_files_older_than_they_are_kept_go(
    artifacts: DirectoryArtifacts, folder: Path
) -> None:
    old, young = await artifacts.put(b"old"), await artifacts.put(b"young")
    for path in kept_in(folder):
        age(path, NOW - (3 if path.read_bytes() == b"old" else 1) * DAY_MS)
    assert await artifacts.prune(NOW) == 1
    assert (await artifacts.get(old), await artifacts.get(young)) == (None, b"young")


async def test_what_is_put_again_is_kept_from_then_on(
    artifacts: DirectoryArtifacts, folder: Path
) -> None:
    name = await artifacts.put(b"again")
    (path,) = kept_in(folder)
    age(path, 3 * DAY_MS)
    await artifacts.put(b"again")
    assert await artifacts.prune(time.time_ns() // 1_000_000 + DAY_MS) == 0
    assert await artifacts.get(name) == b"again"


async def test_the_oldest_go_until_the_rest_fits(
    artifacts: DirectoryArtifacts, folder: Path
) -> None:
    names = [await artifacts.put(bytes([65 + n]) * 40) for n in range(4)]
    for path in kept_in(folder):
        age(path, NOW - 1_000 * (70 - path.read_bytes()[0]))
    assert await artifacts.prune(NOW) == 2
    assert [await artifacts.get(name) is not None for name in names] == [False, False, True, True]


async def test_what_a_crash_left_half_written_goes_after_a_while(
    artifacts: DirectoryArtifacts, folder: Path
) -> None:
    await artifacts.put(b"whole")
    (path,) = kept_in(folder)
    stray = path.parent / ".0123456789abcdef"
    stray.write_bytes(b"hal")
    age(stray, NOW)
    age(path, NOW)
    await artifacts.prune(NOW + STRAY_MS - 1)
    assert stray.exists()
    await artifacts.prune(NOW + STRAY_MS + 1)
    assert not stray.exists()
    assert path.exists()


async def test_many_at_once_are_all_kept(artifacts: DirectoryArtifacts, folder: Path) -> None:
    pieces = [bytes([n % 4]) * 8 for n in range(32)]
    names = await asyncio.gather(*(artifacts.put(piece) for piece in pieces))
    assert [await artifacts.get(name) for name in names] == pieces
    assert len(kept_in(folder)) == 4
