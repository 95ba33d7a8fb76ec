"""Base systems: shown only if they are what the configuration says and their operator's alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remit.runners.basedigest import BaseFault, digest, tree_digest
from remit.runners.bases import path_fault
from tests.runners.support import eventually
from tests.runners.wired import Wired, wired

pytestmark = [pytest.mark.slow, pytest.mark.threat("T-37")]
SANDBOXED = pytest.mark.needs("bwrap", "userns", "cgroup")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts; to run it: be root")


@pytest.fixture
def tree(reachable: Path) -> Path:
    """A small base with a shell, in a place that every user can reach."""
    base = reachable / "base"
    for part in ("bin", "etc", "proc", "tmp", "srv"):
        (base / part).mkdir(parents=True)
    for program in ("sh", "cat", "ls"):
        _with_libraries(Path("/bin") / program, base)
    (base / "etc/passwd").write_text("evil::0:0::/:/bin/sh\n")
    (base / "etc/release").write_text("of the base\n")
    (base / "sbin").symlink_to("bin")
    subprocess.run(["chmod", "-R", "go-w,go+rX", base], check=True)
    return base


def _with_libraries(program: Path, base: Path) -> None:
    shutil.copy(program, base / "bin")
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in (word for word in said.split() if word.startswith("/")):
        target = base / library[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path) as made:
        yield made


def _profile(kind: str, path: Path, found: str | None = None) -> dict:
    base = {"kind": kind, "path": str(path), "digest": found or digest(str(path))}
    return {"runner": "sandbox", "base": base, "mounts": [], "io_mb_per_s": None}


def _refused(spawner: Wired, profile: dict) -> str:
    lease, out = spawner.provision("/bin/true", profile=profile)
    report = spawner.hear("refused", "provisioned", lease=lease)[0]
    assert report["ev"] == "refused"
    assert out.read() == b""
    return str(report["fault"])


# ------------------------------------------------------------------------------- digests


def test_a_directorys_digest_covers_names_modes_links_and_contents(tree: Path) -> None:
    def changed(change: Callable[[], object]) -> bool:
        before = digest(str(tree))
        change()
        return digest(str(tree)) != before

    assert not changed(lambda: os.utime(tree / "etc/release", (1, 1)))
    assert changed(lambda: (tree / "etc/release").write_text("of the bass\n"))
    assert changed(lambda: (tree / "etc/release").chmod(0o755))
    assert changed(lambda: (tree / "etc/release").rename(tree / "etc/release2"))
    assert changed((tree / "srv/empty").mkdir)
    (tree / "etc/link").symlink_to("release")
    assert changed(lambda: (tree / "etc/link").rename(tree / "etc/gone"))
    before = digest(str(tree))
    (tree / "sbin").unlink()
    (tree / "sbin").symlink_to("etc")
    assert digest(str(tree)) != before
    assert changed(lambda: os.mkfifo(tree / "srv/fifo"))


def test_a_copy_of_a_directory_has_its_digest(tree: Path) -> None:
    copy = shutil.copytree(tree, tree.with_name("copy"), symlinks=True)
    assert digest(str(copy)) == digest(str(tree))


def test_what_is_neither_a_file_nor_a_directory_has_no_digest(tree: Path) -> None:
    with pytest.raises(BaseFault):
        digest("/dev/null")
    with pytest.raises(BaseFault):
        digest(str(tree / "sbin"))


@ROOT_ONLY
def test_a_tree_that_others_own_or_write_is_no_base(tree: Path) -> None:
    tree_digest(str(tree), owners={0})
    with pytest.raises(BaseFault, match="belong"):
        tree_digest(str(tree), owners={1})
    (tree / "srv").chmod(0o775)
    with pytest.raises(BaseFault, match="others may write"):
        tree_digest(str(tree), owners={0})


@ROOT_ONLY
def test_a_base_below_what_others_can_rename_is_refused(tree: Path) -> None:
    assert path_fault(str(tree), {0}) is None
    link = tree.with_name("link")
    link.symlink_to(tree)
    assert "symbolic link" in str(path_fault(str(link), {0}))
    tree.parent.chmod(0o777)
    assert "others" in str(path_fault(str(tree), {0}))
    tree.parent.chmod(0o755)
    os.chown(tree.parent, 1234, -1)
    assert "others" in str(path_fault(str(tree), {0}))
    assert "plain path" in str(path_fault("relative", {0}))


# ------------------------------------------------------------------------------ what runs see


@SANDBOXED
def test_a_run_sees_its_base_read_only_and_nothing_of_the_host(spawner: Wired, tree: Path) -> None:
    script = "ls / /etc; cat /etc/release; echo x >/etc/x || cat /etc/passwd; ls /usr"
    said, end = spawner.run("/bin/sh", "-c", script, profile=_profile("directory", tree))
    assert said.count(b"of the base") == 1
    assert b"Read-only file system" in said
    assert b"evil" not in said  # ours was laid over the base's own
    assert b"job:x:1000" in said
    assert b"cannot access '/usr'" in said
    assert end["evidence"]["mounts_left"] == 0
    assert not (tree / "etc/x").exists()


@SANDBOXED
def test_another_digest_or_a_changed_base_is_refused(spawner: Wired, tree: Path) -> None:
    wrong = _profile("directory", tree, "sha256:" + "0" * 64)
    assert "another digest" in _refused(spawner, wrong)
    right = _profile("directory", tree)
    (tree / "etc/release").write_text("changed\n")
    assert "another digest" in _refused(spawner, right)
    assert spawner.run("/bin/cat", "/etc/release", profile=_profile("directory", tree))[0]


@SANDBOXED
def test_a_base_that_is_not_its_operators_alone_is_refused(spawner: Wired, tree: Path) -> None:
    profile = _profile("directory", tree)
    tree.parent.chmod(0o777)
    assert "others" in _refused(spawner, profile)
    tree.parent.chmod(0o755)
    (tree / "srv").chmod(0o777)
    assert "others may write" in _refused(spawner, _profile("directory", tree))
    assert "is at a path" in _refused(
        spawner, _profile("directory", tree / "sbin", "sha256:" + "0" * 64)
    )


@SANDBOXED
def test_links_in_a_base_lead_no_file_of_ours_astray(spawner: Wired, tree: Path) -> None:
    """CVE-2026-87766 in bubblewrap before 0.12: set-up followed a link of the tree it mounts on."""
    victim = tree.parent / "victim"
    victim.mkdir(mode=0o777)
    for place in ("job", "run", "mnt", "dev", "tmp", "proc"):
        path = tree / place
        if path.exists():
            path.rmdir()
        path.symlink_to(victim)
    (tree / "etc/passwd").unlink()
    (tree / "etc/passwd").symlink_to(victim / "passwd")
    (tree / "etc/hosts").symlink_to("/victim/hosts")
    said, _ = spawner.run(
        "/bin/sh", "-c", "echo mine >/tmp/x; echo mine >/job/y; ls /job", handed=True,
        profile=_profile("directory", tree),
    )  # fmt: skip
    assert said == b"y\n"
    assert list(victim.iterdir()) == []


@SANDBOXED
@ROOT_ONLY
@pytest.mark.needs("mkfs.erofs", "mksquashfs")
@pytest.mark.parametrize("make", ["mkfs.erofs", "mksquashfs"])
def test_an_image_is_mounted_for_the_spawner_alone_and_goes_with_it(
    tmp_path: Path, tree: Path, make: str
) -> None:
    image = tree.parent / "image"
    argv: list[str | Path] = [make, image, tree] if make == "mkfs.erofs" else [make, tree, image]
    subprocess.run(argv, check=True, capture_output=True)
    profile = _profile("image", image)
    with wired(tmp_path) as spawner:
        said, _ = spawner.run("/bin/sh", "-c", "cat /etc/release; echo >/etc/x", profile=profile)
        assert said.startswith(b"of the base")
        assert b"Read-only" in said
        slot, out, _ = spawner.park("shell", profile=profile)
        assert spawner.become(slot, out, "/bin/cat", "/etc/release")[0] == b"of the base\n"
        table = Path(f"/proc/{spawner.process.pid}/mountinfo").read_text()
        mounted = [line for line in table.splitlines() if "remit-bases" in line]
        assert len(mounted) == 1  # once for both
        assert " ro,nosuid,nodev" in mounted[0]
        assert "remit-bases" not in Path("/proc/self/mountinfo").read_text()
        spawner.process.kill()
        spawner.process.wait()
    loops = Path("/sys/block").glob("loop*/loop/backing_file")
    assert eventually(lambda: not any(str(image) in _text(each) for each in loops), seconds=5)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@SANDBOXED
@ROOT_ONLY
def test_what_is_no_image_is_refused_whatever_its_digest(spawner: Wired, tree: Path) -> None:
    plain = tree.parent / "plain"
    plain.write_bytes(b"\0" * 4096)
    assert "neither an erofs nor a squashfs" in _refused(spawner, _profile("image", plain))
    plain.chmod(0o666)
    assert "others" in _refused(spawner, _profile("image", plain))


@SANDBOXED
def test_a_base_is_checked_while_others_run(spawner: Wired, tree: Path) -> None:
    """The check is a child's: a run that was asked for later is not behind it."""
    with (tree / "srv/large").open("wb") as file:
        file.truncate(1 << 30)
    profile = _profile("directory", tree)
    behind, _ = spawner.provision("/bin/cat", "/etc/release", profile=profile)
    assert spawner.run("/bin/echo", "first")[0] == b"first\n"
    assert spawner.hear("provisioned", lease=behind)
    spawner.tell(op="destroy", lease=behind)
    assert spawner.hear("ended", lease=behind)[0]["began"] is False


@SANDBOXED
def test_a_base_whose_etc_leads_out_writes_no_file_of_the_host(
    spawner: Wired, tree: Path, reachable: Path
) -> None:
    outside = reachable / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    shutil.rmtree(tree / "etc")
    for target in (f"/oldroot{outside}", f"../../oldroot{outside}", "srv", "/newroot/srv"):
        (tree / "etc").symlink_to(target)
        assert "symbolic link" in _refused(spawner, _profile("directory", tree))
        (tree / "etc").unlink()
    assert list(outside.iterdir()) == []
