"""What a run sees and may do, as bubblewrap's options: a pure function of the host and the run.

Mounts go only to paths fixed here, below a tmpfs that nothing untrusted has ever written to, and
files only into directories that are no symlink of a base's; that is why set-up cannot be led
astray by a symlink (CVE-2026-87766 in bubblewrap before 0.12).
Imported by the spawner: standard library only.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from remit.runners.messages import CREDENTIALS_DIR, TRUST_FILE

INSIDE_UID = 1000
JOB_DIR = "/job"
MOUNTS_DIR = "/mnt"
DEFAULT_ENV = {
    "PATH": "/usr/bin:/bin",
    "HOME": JOB_DIR,
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
}

# Descriptors that bwrap finds open; everything above the last file is closed before exec. A slot
# has two more that its command finds open, and shells name descriptors of one digit only.
BLOCK_FD, INFO_FD, ARGS_FD, SECCOMP_FD, FILES_FD = 3, 4, 5, 6, 7
SLOT_FDS = (7, 8)
_CREDENTIALS_BYTES = 1 << 20

PASSWD = b"root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\njob:x:1000:1000:job:/job:/bin/sh\n"
GROUP = b"root:x:0:\njob:x:1000:\nnogroup:x:65534:\n"
HOSTS = b"127.0.0.1 localhost job\n::1 localhost\n"
SYSTEM_FILES = (("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/hosts", HOSTS))

_DEVICES = ("null", "zero", "full", "random", "urandom")
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_OURS = frozenset(("proc", "sys", "dev", "run", "tmp", "job", "mnt", "lost+found"))
# bubblewrap itself makes /proc/sys, irq, bus and sysrq-trigger read-only.
_COVERED_FILES = (
    *("kcore", "keys", "key-users", "kallsyms", "kmsg", "latency_stats", "sched_debug"),
    *("timer_list", "timer_stats"),
)
_COVERED_DIRECTORIES = ("acpi", "asound", "scsi", "fs", "driver")
_ETC = ("/etc/alternatives", "/etc/ssl/certs", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class JailRequest:
    """One run, as the jail needs it. `files` are paths in the job directory, in the order in
    which their descriptors follow the system files'.

    `over` are the system files that are laid over a base's own `/etc`; None: the base has none of
    its own, and they are made. `trust` and `handed` give `/run/remit` its files and its directory
    for credentials; `slot` leaves the descriptors of a slot to its command.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    tmp_bytes: int
    mounts: tuple[tuple[str, str, bool], ...] = ()
    files: tuple[str, ...] = ()
    over: tuple[str, ...] | None = None
    trust: bool = False
    handed: bool = False
    slot: bool = False


WALLS = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
    *("--unshare-cgroup-try", "--disable-userns"),
    *("--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--cap-drop", "ALL"),
    *("--hostname", "job", "--die-with-parent", "--new-session", "--clearenv"),
    *("--block-fd", str(BLOCK_FD), "--info-fd", str(INFO_FD)),
    *("--seccomp", str(SECCOMP_FD), "--args", str(ARGS_FD)),
)
"""Namespaces, privileges and the block, for every run the same. They are on the command line, so
that options which could not be read can never leave a run without them."""


def base_options(root: str = "/") -> list[str]:
    """The read-only base every run has, as this host has it."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in _TOP:
        options += _top_level(root, name)
    for path in _ETC:
        if os.path.exists(os.path.join(root, path[1:])):
            options += ["--ro-bind", path, path]
    options += _localtime(root)
    return options + device_options()


def tree_options(root: str) -> list[str]:
    """The read-only base that a directory is: what the kernel and Remit fill is left out of it.

    Each entry of the top is bound on its own, below a fresh root: where a mount goes is never a
    path that the base decides.
    """
    options = []
    for entry in sorted(os.scandir(root), key=lambda each: each.name):
        if entry.name in _OURS:
            continue
        if entry.is_symlink():
            options += ["--symlink", os.readlink(entry.path), f"/{entry.name}"]
        elif entry.is_dir(follow_symlinks=False):
            empty = next(os.scandir(entry.path), None) is None
            source = ["--dir"] if empty else ["--ro-bind", entry.path]
            options += [*source, f"/{entry.name}"]
    return options + device_options()


def laid_over(root: str) -> tuple[str, ...] | None:
    """Which of `SYSTEM_FILES` a base has as plain files, to be covered by ours; None: no `/etc`.

    Raises:
        ValueError: its `/etc` is a symlink: bubblewrap would follow it, out of the new root too.
    """
    etc = os.path.join(root, "etc")
    if os.path.islink(etc):
        raise ValueError("its /etc is a symbolic link")
    if not os.path.isdir(etc):
        return None
    paths = (path for path, _ in SYSTEM_FILES)
    return tuple(path for path in paths if _is_file(os.path.join(root, path[1:])))


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _open_to_all(path: str) -> bool:
    """What only the host's root may read, a run cannot: its users are never that."""
    return _is_file(path) and bool(os.stat(path).st_mode & stat.S_IROTH)


def device_options() -> list[str]:
    """`/proc` with what tells of the host covered, and five devices; there is no `/sys`."""
    options = ["--proc", "/proc"]
    for name in _COVERED_FILES:
        if _open_to_all(f"/proc/{name}"):
            options += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in _COVERED_DIRECTORIES:
        if os.path.isdir(f"/proc/{name}") and os.listdir(f"/proc/{name}"):
            options += ["--size", "4096", "--perms", "0555", "--tmpfs", f"/proc/{name}"]
    for name in _DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for link, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        options += ["--symlink", f"/proc/self/fd{target}", f"/dev/{link}"]
    return [*options, "--symlink", "../tmp", "/dev/shm"]  # noqa: S108


def _top_level(root: str, name: str) -> list[str]:
    path = os.path.join(root, name)
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return []
    if stat.S_ISLNK(mode):
        return ["--symlink", os.readlink(path), f"/{name}"]
    return ["--ro-bind", f"/{name}", f"/{name}"] if stat.S_ISDIR(mode) else []


def _localtime(root: str) -> list[str]:
    try:
        zone = os.readlink(os.path.join(root, "etc/localtime"))
    except OSError:
        return []
    inside = zone.startswith("/usr/share/zoneinfo/")
    return ["--symlink", zone, "/etc/localtime"] if inside else []


def run_options(request: JailRequest) -> list[str]:
    """The options of one run, to follow `base_options`."""
    size = str(request.tmp_bytes)
    options = ["--size", size, "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108
    options += ["--size", size, "--perms", "0755", "--tmpfs", JOB_DIR]
    fd = FILES_FD + (len(SLOT_FDS) if request.slot else 0)
    given = [("0444", path) for path, _ in SYSTEM_FILES] if request.over is None else []
    for path in request.over or ():
        options += ["--ro-bind-data", str(fd), path]
        fd += 1
    given += [("0444", TRUST_FILE)] if request.trust else []
    for mode, path in given + [("0644", f"{JOB_DIR}/{name}") for name in request.files]:
        options += ["--perms", mode, "--file", str(fd), path]
        fd += 1
    if request.handed:
        size = str(_CREDENTIALS_BYTES)
        options += ["--size", size, "--perms", "0700", "--tmpfs", CREDENTIALS_DIR]
    for name, source, writable in request.mounts:
        options += ["--bind" if writable else "--ro-bind", source, f"{MOUNTS_DIR}/{name}"]
    for name, value in {**DEFAULT_ENV, **dict(request.env)}.items():
        options += ["--setenv", name, value]
    return [*options, "--remount-ro", "/", "--chdir", JOB_DIR]


def packed(options: list[str]) -> bytes:
    """Options as `--args` reads them: each ended by a NUL.

    Raises:
        ValueError: one holds a NUL, which would make two of it.
    """
    if any("\0" in option for option in options):
        raise ValueError("an option holds a NUL")
    return b"".join(os.fsencode(option) + b"\0" for option in options)
