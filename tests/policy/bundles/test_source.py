"""A directory or a bundle file is followed: what is whole and new is given, once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from remit.errors import Code, ConfigError
from remit.policy.signature import Verification, sign
from remit.policy.source import Origin, PathSource, open_source
from tests.policy.bundles.made import FILES, MODULE, SECRET, tar_gz, written

pytestmark = pytest.mark.anyio

CHANGED = {**FILES, "data.json": b'{"grants": {}, "odd": 2}'}


def source(path: Path, verification: Verification | None = None) -> PathSource:
    return PathSource(path, verification=verification, every_s=0.01, settle_s=0.01)


def replace(path: Path, content: bytes) -> None:
    beside = path.with_name("new")
    beside.write_bytes(content)
    os.replace(beside, path)


@pytest.fixture(params=["directory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "directory":
        return written(tmp_path / "policy", FILES)
    (tmp_path / "policy.tar.gz").write_bytes(tar_gz(FILES))
    return tmp_path / "policy.tar.gz"


def change(place: Path, name: str, content: bytes) -> None:
    if place.is_dir():
        replace(place / name, content)
    else:
        replace(place, tar_gz({**FILES, name: content}))


async def test_what_changes_is_given_once(place: Path) -> None:
    following = source(place)
    first = await following.load()
    assert await following.changed() is None
    change(place, "data.json", CHANGED["data.json"])
    second = await following.changed()
    assert second is not None
    assert second.revision != first.revision
    assert second.data["odd"] == 2
    assert await following.changed() is None


async def test_touched_files_are_nothing_new(place: Path) -> None:
    following = source(place)
    await following.load()
    for path in [place, *place.rglob("*")]:
        os.utime(path, (1, 1))
    assert await following.changed() is None
    assert await following.changed() is None


async def test_bad_policy_is_said_once_and_its_mending_given(place: Path) -> None:
    following = source(place)
    first = await following.load()
    change(place, "data.json", b"{")
    with pytest.raises(ConfigError) as caught:
        await following.changed()
    assert str(caught.value.place).startswith("data.json")
    assert await following.changed() is None
    assert await following.changed() is None
    change(place, "data.json", FILES["data.json"])
    again = await following.changed()
    assert again is not None
    assert again.revision == first.revision


async def test_file_that_is_too_large_is_said_once(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    following = source(folder)
    await following.load()
    replace(folder / "remit.rego", b"#" * (256 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        await following.changed()
    assert await following.changed() is None


async def test_policy_that_goes_away_is_said_and_its_return_given(place: Path) -> None:
    following = source(place)
    await following.load()
    away = place.with_name("away")
    place.rename(away)
    with pytest.raises(ConfigError):
        await following.changed()
    assert await following.changed() is None
    away.rename(place)
    assert await following.changed() is not None


@pytest.mark.threat("T-28")
async def test_part_of_a_policy_that_cannot_be_read_is_never_left_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", {**FILES, "deny/deny.rego": b"package remit.deny\n"})
    following = source(folder)
    await following.load()
    # A path that is too long can be read by nobody, not even by root.
    deepest = os.open(folder / "deny", os.O_PATH)
    try:
        for _ in range(20):
            os.mkdir("x" * 250, dir_fd=deepest)
            below = os.open("x" * 250, os.O_PATH, dir_fd=deepest)
            os.close(deepest)
            deepest = below
        with pytest.raises(ConfigError, match="cannot be read"):
            await following.changed()
        assert await following.changed() is None
        with pytest.raises(ConfigError, match="cannot be read"):
            await source(folder).load()
    finally:
        os.close(deepest)


@pytest.mark.threat("T-28")
@pytest.mark.parametrize("name", ["remit.rego", "bundle.tar.gz"])
async def test_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    place = tmp_path if name == "remit.rego" else tmp_path / name
    with pytest.raises(ConfigError, match="no file"):
        await source(place).load()


async def test_file_that_comes_or_goes_is_noticed(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    following = source(folder)
    await following.load()
    (folder / "deny.rego").write_text("package remit.deny\n")
    more = await following.changed()
    assert more is not None
    assert "deny.rego" in more.modules
    (folder / "deny.rego").unlink()
    fewer = await following.changed()
    assert fewer is not None
    assert "deny.rego" not in fewer.modules


async def test_directory_that_is_being_written_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file changes while the files are read: neither half is given, the whole is later."""
    folder = written(tmp_path / "policy", FILES)
    following = source(folder)
    await following.load()
    replace(folder / "data.json", b'{"grants": {"half": []}, "odd": 1}')
    read = PathSource._files

    def read_while_written(self: PathSource) -> dict[str, bytes] | bytes:
        found = read(self)
        replace(folder / "data.json", CHANGED["data.json"])
        return found

    monkeypatch.setattr(PathSource, "_files", read_while_written)
    assert await following.changed() is None
    monkeypatch.undo()
    whole = await following.changed()
    assert whole is not None
    assert whole.data["grants"] == {}


async def test_directory_that_never_rests_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "policy", FILES)
    read = PathSource._files

    def read_while_written(self: PathSource) -> dict[str, bytes] | bytes:
        found = read(self)
        replace(folder / "data.json", CHANGED["data.json"])
        return found

    monkeypatch.setattr(PathSource, "_files", read_while_written)
    with pytest.raises(ConfigError, match="being written all the time"):
        await source(folder).load()


async def test_what_is_not_policy_changes_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    following = source(folder)
    await following.load()
    mark = following._look()
    (folder / "README.md").write_text("other words")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.rego").write_text("not rego")
    assert following._look() == mark


async def test_without_looking_it_waits_for_ever(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    following = open_source(Origin(layer="policy", place=str(folder), every_s=0))
    await following.load()
    (folder / "data.json").write_bytes(CHANGED["data.json"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await following.changed()


@pytest.mark.threat("T-28")
async def test_bundle_that_is_replaced_by_an_unsigned_one_is_refused(tmp_path: Path) -> None:
    wanted = Verification(key=SECRET, key_id="k1", algorithm="HS256")
    path = tmp_path / "policy.tar.gz"
    seal = sign(FILES, key=SECRET, key_id="k1", algorithm="HS256")
    path.write_bytes(tar_gz({**FILES, ".signatures.json": seal}))
    following = source(path, wanted)
    await following.load()
    for files in (CHANGED, {**CHANGED, ".signatures.json": seal}):
        replace(path, tar_gz(files))
        with pytest.raises(ConfigError) as caught:
            await following.changed()
        assert caught.value.code is Code.SIGNATURE_INVALID
        assert await following.changed() is None


@pytest.mark.threat("T-28")
async def test_directory_where_a_signature_is_wanted_is_refused(tmp_path: Path) -> None:
    wanted = Verification(key=SECRET, key_id="k1", algorithm="HS256")
    folder = written(tmp_path / "policy", {"remit.rego": MODULE.encode()})
    with pytest.raises(ConfigError, match="a directory is not signed"):
        await source(folder, wanted).load()
