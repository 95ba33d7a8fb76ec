"""A policy on disk becomes a bundle with one revision, or an error with a place and a mend."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from remit.errors import Code, ConfigError
from remit.policy import bundle as bundles
from remit.policy.bundle import load_bundle, read_bundle
from tests.policy.world import HEAD, STARTER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(STARTER, tmp_path / "policy")
    return tmp_path / "policy"


def _refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_bundle(path)
    return caught.value


def test_starter_policy_loads(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert list(bundle.modules) == ["remit.rego"]
    assert list(bundle.tests) == ["remit_test.rego"]
    assert "grants" in bundle.data
    assert bundle.revision.startswith("sha256:")


def test_revision_covers_modules_and_data_and_nothing_else(folder: Path) -> None:
    revision = load_bundle(folder).revision
    (folder / "README.md").write_text("words")
    (folder / "remit_test.rego").unlink()
    assert load_bundle(folder).revision == revision
    text = (folder / "remit.rego").read_text()
    (folder / "remit.rego").write_text(text + "\n# a comment\n")
    assert load_bundle(folder).revision != revision
    (folder / "remit.rego").write_text(text)
    assert load_bundle(folder).revision == revision
    (folder / "data.more.json").write_text('{"more": 1}')
    assert load_bundle(folder).revision != revision


def test_revision_does_not_depend_on_how_json_is_laid_out(tmp_path: Path) -> None:
    revisions = set()
    for number, data in enumerate(('{"a": 1, "b": [2]}', '{"b":[2],\n"a":1}')):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "p.rego").write_text(HEAD + "visible := {}\n")
        (path / "data.json").write_text(data)
        revisions.add(load_bundle(path).revision)
    assert len(revisions) == 1


def test_modules_below_are_read_and_hidden_ones_are_not(folder: Path) -> None:
    (folder / "teams").mkdir()
    (folder / "teams" / "web.rego").write_text(
        "package remit.teams\nimport rego.v1\nimport future.keywords.not\nx := 1\n"
    )
    (folder / ".git").mkdir()
    (folder / ".git" / "old.rego").write_text("not rego")
    (folder / ".#remit.rego").write_text("not rego")
    assert list(load_bundle(folder).modules) == ["remit.rego", "teams/web.rego"]


def test_missing_directory_is_named(tmp_path: Path) -> None:
    error = _refused(tmp_path / "none")
    assert error.code is Code.CONFIG_NOT_FOUND
    assert "remit init" in str(error.hint)


def test_directory_without_policy_is_refused(tmp_path: Path) -> None:
    assert "no .rego file" in _refused(tmp_path).message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data.json", b"[1]", "not a JSON object"),
        ("data.json", b'{"a": 1, "a": 2}', "same key twice"),
        ("data.json", b"{", "not valid JSON"),
        ("data.more.json", b'{"grants": {}}', "in two data files"),
        ("bad.rego", b"\xff", "not valid UTF-8"),
    ],
)
def test_file_that_cannot_be_read_in_one_way_is_refused(
    folder: Path, name: str, content: bytes, said: str
) -> None:
    (folder / name).write_bytes(content)
    error = _refused(folder)
    assert error.code is Code.POLICY_INVALID
    assert said in error.message
    assert name in str(error.place)


def test_sizes_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "big.rego").write_text("#" * (bundles.MAX_MODULE_BYTES + 1))
    assert "larger than 256 KiB" in _refused(folder).message
    (folder / "big.rego").unlink()
    monkeypatch.setattr(bundles, "MAX_DATA_BYTES", 10)
    assert "larger" in _refused(folder).message
    monkeypatch.undo()
    for number in range(bundles.MAX_MODULES):
        (folder / f"m{number}.rego").write_text(HEAD)
    assert "more than 64 modules" in _refused(folder).message


def test_bundle_cannot_be_changed() -> None:
    bundle = read_bundle(STARTER)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.revision = "other"  # type: ignore[misc]  # that is the point
