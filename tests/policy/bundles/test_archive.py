"""A bundle archive becomes the policy that OPA would load from it, or is refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import Code, ConfigError
from remit.policy import archive as archives
from remit.policy import bundle as bundles
from remit.policy.archive import read_archive, write_archive
from remit.policy.bundle import bundle_of, load_bundle, read_bundle
from remit.policy.library import with_library
from remit.policy.tar import BLOCK, pack
from tests.policy.bundles.made import FILES, MODULE, opa, opa_value, tar_gz, written
from tests.policy.world import STARTER

pytestmark = pytest.mark.slow


def refused(content: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_archive(content)
    assert caught.value.code is Code.POLICY_INVALID
    return caught.value


def test_archive_is_read_as_opa_reads_it() -> None:
    bundle = read_archive(tar_gz(FILES))
    assert sorted(bundle.modules) == ["remit.rego", "teams/web.rego"]
    assert bundle.data == {
        "grants": {"ann": ["read"]},
        "odd": 1.5,
        "limits": {"daily": {"writes": 3}},
    }
    assert bundle.label == "r7"


def test_directory_and_its_archive_have_one_revision(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    packed = tmp_path / "policy.tar.gz"
    packed.write_bytes(tar_gz(FILES))
    assert read_bundle(folder).revision == read_bundle(packed).revision
    assert read_bundle(folder).label == read_bundle(packed).label == "r7"


def test_what_tar_makes_of_a_directory_is_the_same_policy(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    path = tmp_path / "made.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    assert read_bundle(path) == read_bundle(folder)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_format_of_tar(form: int) -> None:
    name = "a" * 60 + "/" + "b" * 60 + "/remit.rego"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(MODULE)
        archive.addfile(entry, io.BytesIO(MODULE.encode()))
    assert list(read_archive(gzip.compress(buffer.getvalue())).modules) == [name]


def test_written_bundle_is_read_back_the_same() -> None:
    bundle = read_bundle(STARTER)
    again = read_archive(write_archive(bundle))
    assert (again.modules, again.data, again.revision) == (
        bundle.modules,
        bundle.data,
        bundle.revision,
    )
    assert again.label == bundle.revision
    assert not again.tests


def test_library_policies_keep_their_entries_and_their_revision() -> None:
    bundle = with_library(read_bundle(STARTER), {"read_only": {}})
    again = read_archive(write_archive(bundle))
    assert again.entries == bundle.entries
    assert again.revision == bundle.revision
    assert len(again.entries) > 1


_NAMES = st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=1, max_size=3)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e9, 1e9)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    paths=st.lists(_NAMES, min_size=1, max_size=4, unique_by=tuple),
    data=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6), _JSON, max_size=4
    ),
)
def test_any_bundle_survives_writing_and_reading(
    paths: list[list[str]], data: dict[str, object]
) -> None:
    modules = {f"{'/'.join(path)}.rego": f"package remit.{'.'.join(path)}\n" for path in paths}
    bundle = bundle_of(modules, data)
    packed = write_archive(bundle)
    again = read_archive(packed)
    assert again.revision == bundle.revision
    assert again.modules == modules
    assert write_archive(again) == packed


def test_same_bundle_gives_same_bytes_whatever_the_order() -> None:
    modules = {"b.rego": MODULE, "a.rego": "package remit.a\n"}
    one = write_archive(bundle_of(modules, {"x": 1, "y": 2}))
    two = write_archive(bundle_of(dict(reversed(modules.items())), {"y": 2, "x": 1}))
    assert one == two
    assert one[4:8] == bytes(4)  # no time


# ------------------------------------------------------------------------------ what is refused


def _tar(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        plain = tarfile.TarInfo("remit.rego")
        plain.size = len(MODULE)
        archive.addfile(plain, io.BytesIO(MODULE.encode()))
        entry = tarfile.TarInfo("extra.txt")
        change(entry)
        archive.addfile(entry, io.BytesIO(b""))
    return gzip.compress(buffer.getvalue())


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        b"S",
        b"7",
        b"V",
    ],
)
def test_links_devices_and_odd_members_are_refused(kind: bytes) -> None:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type = kind
        entry.linkname = "remit.rego"

    assert "link, a device or another kind" in refused(_tar(change)).message


@pytest.mark.parametrize(
    "name",
    [
        "//etc/remit.rego", "../remit.rego", "a/../remit.rego", "a//b.rego", "./../x", "a/./b.rego",
        "a\\b.rego", "a\nb.rego", "a\x1bb.rego", "a\u202eb.rego", "a\x7f.rego", "..", "/", "",
        "x" * 1025,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_mislead_are_refused(name: str) -> None:
    assert "has a name" in refused(tar_gz([("remit.rego", MODULE.encode()), (name, b"")])).message


@pytest.mark.parametrize("second", ["remit.rego", "/remit.rego", "./remit.rego"])
def test_name_that_stands_twice_is_refused(second: str) -> None:
    found = refused(tar_gz([("remit.rego", MODULE.encode()), (second, b"package remit\n")]))
    assert "twice" in found.message


def test_name_that_is_not_utf8_is_refused() -> None:
    def change(entry: tarfile.TarInfo) -> None:
        entry.name = "caf\udce9.txt"

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo("x")
        change(entry)
        archive.addfile(entry)
    assert "not UTF-8" in refused(gzip.compress(buffer.getvalue())).message


@pytest.mark.parametrize("key", ["size", "linkpath", "GNU.sparse.major"])
def test_pax_header_that_changes_a_member_is_refused(key: str) -> None:
    def change(entry: tarfile.TarInfo) -> None:
        entry.pax_headers = {key: "1"}

    assert "pax header" in refused(_tar(change)).message


@pytest.mark.threat("T-28")
def test_pax_header_of_endless_records_is_refused_at_once() -> None:
    def change(entry: tarfile.TarInfo) -> None:
        entry.pax_headers = {f"k{number}": "" for number in range(5_000)}

    assert "pax header" in refused(_tar(change)).message


def test_no_cut_or_changed_byte_of_a_tar_is_passed_over() -> None:
    raw = pack({"deny.rego": b"package remit.deny\n", "remit.rego": MODULE.encode()})
    for end in range(0, len(raw) - 8 * 1024, BLOCK):
        refused(gzip.compress(raw[:end]))
    for at in (*range(BLOCK), *range(2 * BLOCK, 3 * BLOCK)):  # both headers
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        refused(gzip.compress(changed))


def test_archive_that_breaks_off_in_a_file_says_so() -> None:
    raw = pack({"remit.rego": MODULE.encode()})
    assert "middle of a file" in refused(gzip.compress(raw[: BLOCK + 10])).message
    assert "middle of a header" in refused(gzip.compress(raw[:100])).message


def test_something_after_the_end_is_refused() -> None:
    whole = tar_gz(FILES)
    assert "after its end" in refused(whole + b"x").message
    assert "after its end" in refused(whole + whole).message
    raw = gzip.decompress(whole)
    assert "does not end" in refused(gzip.compress(raw + b"\0" * 511 + b"x")).message


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", gzip.compress(b"not tar" * 100)],
    ids=["empty", "zip", "no tar"],
)
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    refused(content)


def test_cut_or_damaged_gzip_is_refused() -> None:
    whole = tar_gz(FILES)
    assert "before it is complete" in refused(whole[:-1]).message
    assert "damaged" in refused(whole[:-8] + bytes(8)).message


def test_bomb_is_refused_without_being_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1024 * 1024)
    bomb = b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()
    assert len(bomb) < archives.MAX_ARCHIVE_BYTES
    tracemalloc.start()
    assert "unpacked bundle" in str(refused(bomb).place)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * archives.MAX_UNPACKED_BYTES


def test_sizes_and_count_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    big = refused(tar_gz({"remit.rego": b"#" * (256 * 1024 + 1)}))
    assert (big.place, big.message) == ("remit.rego", "is larger than 256 KiB")
    many = {f"d{number}/notes.txt": b"" for number in range(archives.MAX_FILES)}
    assert "1024 files" in refused(tar_gz({"remit.rego": MODULE.encode(), **many})).message
    monkeypatch.setattr(bundles, "MAX_DATA_BYTES", 50)
    assert refused(tar_gz(FILES)).place == "the data"  # each file alone is smaller
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 100)
    assert "larger" in refused(tar_gz(FILES)).message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("policy.wasm", b"", "does not take this kind"),
        ("plan.json", b"{}", "does not take this kind"),
        ("patch.json", b"{}", "does not take this kind"),
        ("deep/patch.json", b"{}", "does not take this kind"),
        ("limits/data.yaml", b"a: 1", "does not take this kind"),
        ("limits/data.yml", b"a: 1", "does not take this kind"),
        ("sub/.manifest", b"{}", "not the bundle's own"),
        ("other.manifest", b"{}", "not the bundle's own"),
        (".manifest.pb", b"", "not the bundle's own"),
        ("sub/.signatures.json", b"{}", "not the bundle's own"),
        (".hidden/x.rego", b"package remit.x\n", "a hidden file"),
        (".hidden/data.json", b"{}", "a hidden file"),
        ("data.more.json", b"{}", "OPA would not read"),
        ("limits/daily/data.json", b'{"a": 1, "a": 2}', "same key twice"),
        ("limits/daily/data.json", b'{"a": 9007199254740993}', "outside what JSON parsers agree on"),
        ("data.json", b"[1]", "not a JSON object"),
        ("grants/ann/data.json", b"[1]", "in two data files"),
        (".manifest", b'{"rego_version": 0}', "another Rego"),
        (".manifest", b'{"rego_version": true}', "another Rego"),
        (".manifest", b'{"file_rego_versions": {"/remit.rego": 0}}', "another Rego"),
        (".manifest", b'{"wasm": [{"module": "x"}]}', "wasm"),
        (".manifest", b'{"roots": ["remit"]}', "outside the roots"),
        (".manifest", b'{"roots": ["grants", "odd", "limits", "remit/teams"]}', "its package is outside"),
        (".manifest", b'{"roots": ["a", "a/b"]}', "overlap"),
        (".manifest", b'{"roots": ["", "a"]}', "overlap"),
        (".manifest", b'{"roots": "remit"}', "roots"),
        (".manifest", b'{"revision": "a\\u001bb"}', "revision"),
        (".manifest", b'{"revision": 7}', "revision"),
        (".manifest", b'{"rules": 1}', "not known"),
        (".manifest", b"[]", "not a JSON object"),
        (".manifest", b'{"metadata": {"remit_entries": ["x y"]}}', "remit_entries"),
    ],
)  # fmt: skip
def test_what_remit_would_read_otherwise_than_opa_is_refused(
    name: str, content: bytes, said: str
) -> None:
    error = refused(tar_gz({**FILES, name: content}))
    assert said in error.message


def test_roots_may_lie_deep_and_carry_slashes() -> None:
    roots = ["/remit/", "grants/ann", "odd", "limits/daily"]
    manifest = json.dumps({"roots": roots}).encode()
    assert read_archive(tar_gz({**FILES, ".manifest": manifest})).label == ""


def test_load_checks_what_an_archive_holds(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    path.write_bytes(tar_gz({"remit.rego": b"package other\n"}))
    with pytest.raises(ConfigError) as caught:
        load_bundle(path)
    assert caught.value.place == "remit.rego:1"


# ---------------------------------------------------------------------------------- the real opa


@pytest.mark.needs("opa")
def test_opa_loads_what_is_written_and_names_the_revision(tmp_path: Path) -> None:
    bundle = with_library(read_bundle(STARTER), {"read_only": {}})
    path = tmp_path / "b.tar.gz"
    path.write_bytes(write_archive(bundle))
    manifest = json.loads(opa("inspect", path, "-f", "json"))["manifest"]
    assert manifest["revision"] == bundle.revision
    assert {"remit", "library"} <= set(manifest["roots"])
    opa("build", "-b", path, "-o", tmp_path / "again.tar.gz")
    assert opa_value(path, "data.grants") == bundle.data["grants"]
    assert opa_value(path, "data.remit.decision")["decision"] == "deny"


@pytest.mark.needs("opa")
def test_what_opa_built_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", FILES)
    path = tmp_path / "b.tar.gz"
    opa("build", "-b", ".", "-o", path, "--revision", "r8", cwd=folder)
    bundle = read_bundle(path)
    assert bundle.label == "r8"
    assert bundle.data == read_bundle(folder).data
    assert sorted(bundle.modules) == ["remit.rego", "teams/web.rego"]


@pytest.mark.needs("opa")
@settings(max_examples=12, deadline=None)
@given(
    data=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6), _JSON, max_size=4
    )
)
def test_opa_finds_the_data_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("b") / "b.tar.gz"
    path.write_bytes(
        write_archive(bundle_of({"remit.rego": "package remit\n"}, {"given": data, **data}))
    )
    assert opa_value(path, "data.given") == data


@pytest.mark.needs("opa")
def test_opa_takes_a_bundle_whose_data_is_named_like_an_escape(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    data = {"%": 1, "%2e": 2}
    bundle = bundle_of({"remit.rego": "package remit\n"}, {"given": data, **data})
    path.write_bytes(write_archive(bundle))
    assert opa_value(path, "data.given") == data
