"""`remit policy build`, `sign` and `verify`, as a person at a terminal meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from remit.cli.policy import policy
from remit.policy.archive import compress, unpack
from remit.policy.bundle import read_bundle
from remit.policy.signature import ALGORITHMS
from tests.policy.bundles.made import FILES, SECRET, key_pair, opa, tar_gz, written
from tests.policy.world import HEAD, STARTER

pytestmark = pytest.mark.slow


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(policy, [str(word) for word in words])


@pytest.fixture
def built(tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.gz"
    assert _run("build", STARTER, "-o", path).exit_code == 0
    return path


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = key_pair("RS256")
    (tmp_path / "key.pem").write_text(private)
    (tmp_path / "key.pub").write_text(public)
    return tmp_path / "key.pem", tmp_path / "key.pub"


def test_built_bundle_is_the_policy_and_its_revision_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    done = _run("build", STARTER, "-o", path)
    assert done.exit_code == 0
    assert done.stdout == read_bundle(STARTER).revision + "\n"
    assert read_bundle(path).revision == read_bundle(path).label == done.stdout.strip()
    first = path.read_bytes()
    _run("build", path, "-o", path)
    assert path.read_bytes() == first


def test_library_policies_are_put_in(tmp_path: Path) -> None:
    path, data = tmp_path / "b.tar.gz", tmp_path / "data.json"
    data.write_text("{}")
    assert _run("build", STARTER, "-o", path, "--use", f"read_only={data}").exit_code == 0
    assert "remit.library.read_only" in read_bundle(path).entries
    data.write_text("[]")
    done = _run("build", STARTER, "-o", path, "--use", f"read_only={data}")
    assert "not a JSON object" in done.stderr
    done = _run("build", STARTER, "-o", path, "--use", "no_such")
    assert done.exit_code == 2
    assert "error[policy_invalid]" in done.stderr


def test_policy_that_the_profile_refuses_is_not_built(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(STARTER, folder)
    (folder / "bad.rego").write_text(
        "package remit.bad\nimport rego.v1\nimport future.keywords.not\nx := time.now_ns()\n"
    )
    done = _run("build", folder, "-o", tmp_path / "b.tar.gz")
    assert done.exit_code == 1
    assert "bad.rego:4: the builtin time.now_ns is refused" in done.stdout
    assert not (tmp_path / "b.tar.gz").exists()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signed_bundle_is_verified_and_a_changed_one_ends_1(
    built: Path, tmp_path: Path, algorithm: str
) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    for file, text in zip((private, public), key_pair(algorithm), strict=True):
        file.write_text(text + ("\n" if algorithm == "HS256" else ""))
    how = ("--key-id", "k1", "--algorithm", algorithm, "--scope", "write")
    signed = _run("sign", built, "--key", private, *how)
    assert signed.exit_code == 0, signed.output
    verified = _run("verify", built, "--key", public, *how)
    assert (verified.exit_code, verified.stdout) == (0, signed.stdout)
    files = unpack(built.read_bytes())
    built.write_bytes(compress({**files, "data.json": b"{}"}))
    done = _run("verify", built, "--key", public, *how)
    assert done.exit_code == 1
    assert "error[signature_invalid]: a file is not what was signed" in done.stderr
    assert "data.json" in done.stderr


def test_signing_again_replaces_the_signature_and_the_mode_stays(
    built: Path, keys: tuple[Path, Path]
) -> None:
    built.chmod(0o640)
    for key_id in ("one", "two"):
        assert _run("sign", built, "--key", keys[0], "--key-id", key_id).exit_code == 0
    assert _run("verify", built, "--key", keys[1], "--key-id", "two").exit_code == 0
    assert _run("verify", built, "--key", keys[1], "--key-id", "one").exit_code == 1
    assert built.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in built.parent.glob(".*")] == []


def test_unsigned_bundle_is_not_verified(built: Path, keys: tuple[Path, Path]) -> None:
    done = _run("verify", built, "--key", keys[1], "--key-id", "k1")
    assert done.exit_code == 1
    assert "the bundle is not signed" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--key", "none.pem"], "error[config_invalid]: cannot be read: No such file"),
        (["--key", "key.pub"], "is not a private key in PEM"),
        (["--key", "key.pem", "--algorithm", "ES256"], "is of another kind"),
        (["--key", "key.pem", "--algorithm", "HS256"], "is a key in PEM, not a secret"),
        (["--key", "short", "--algorithm", "HS256"], "is shorter than 32 bytes"),
        (["--key", "b.tar.gz"], "the key is not text"),
    ],
)
def test_wrong_key_is_said_and_the_bundle_left_as_it_was(
    built: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    change: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(built.parent)
    (built.parent / "short").write_text("short")
    before = built.read_bytes()
    done = _run("sign", built, "--key-id", "k1", *change)
    assert done.exit_code == 2
    assert said in done.stderr
    assert built.read_bytes() == before


def test_wrong_files_are_said(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    how = ("--key", keys[0], "--key-id", "k1")
    done = _run("sign", tmp_path / "none.tar.gz", *how)
    assert (done.exit_code, "does not exist" in done.stderr) == (2, True)
    (tmp_path / "junk.tar.gz").write_bytes(b"junk")
    done = _run("sign", tmp_path / "junk.tar.gz", *how)
    assert (done.exit_code, "not gzip" in done.stderr) == (2, True)
    done = _run("build", tmp_path / "none", "-o", tmp_path / "b.tar.gz")
    assert (done.exit_code, "config_not_found" in done.stderr) == (2, True)
    done = _run("build", STARTER, "-o", tmp_path / "none" / "b.tar.gz")
    assert (done.exit_code, "cannot be written: No such file" in done.stderr) == (2, True)


def test_build_leaves_nothing_behind_when_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").mkdir()
    assert _run("build", STARTER, "-o", tmp_path / "b.tar.gz" / "..").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar.gz"]


@pytest.mark.needs("opa")
def test_bundle_of_opa_can_be_signed_here(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = tmp_path / "b.tar.gz"
    opa("build", "-b", ".", "-o", path, cwd=written(tmp_path / "policy", FILES))
    assert _run("sign", path, "--key", keys[0], "--key-id", "k1").exit_code == 0
    assert _run("verify", path, "--key", keys[1], "--key-id", "k1").exit_code == 0


def test_secret_stays_out_of_what_is_printed(built: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    how = ("--key", tmp_path / "secret", "--key-id", "k1", "--algorithm", "HS256")
    done = _run("sign", built, *how)
    assert SECRET not in done.output + json.dumps(sorted(unpack(built.read_bytes())))
    built.write_bytes(tar_gz({"remit.rego": HEAD.encode()}))
    assert SECRET not in _run("verify", built, *how).output
