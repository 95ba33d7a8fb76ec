"""What a base system is, as one digest, and whether only its operator can change it.

An image's digest is the SHA-256 of the file. A directory's is the SHA-256 over every entry below
it in the order of its bytes: path, kind, mode and, by kind, contents, link target or device
number. Times and owners are left out, so that a copy of a base has the same digest.

Used by the spawner before a base is first shown to a run, and by `remit doctor --digest`. Standard
library only.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator

_CHUNK = 1 << 20
_PREFIX = "sha256:"


class BaseFault(ValueError):
    """Why something can be no base; names no path below the base."""


def digest(path: str) -> str:
    """The digest of an image file or a directory, as `runners.profiles.*.base.digest` wants it.

    Raises:
        BaseFault: it is neither, or it holds what no base may hold.
        OSError: it cannot be read.
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        return tree_digest(path, owners=None)
    if not stat.S_ISREG(mode):
        raise BaseFault("is neither a directory nor a file")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return file_digest(fd)
    finally:
        os.close(fd)


def file_digest(fd: int) -> str:
    """The digest of an open image, whatever its offset."""
    return _PREFIX + _contents(fd).hexdigest()


def tree_digest(root: str, *, owners: Collection[int] | None) -> str:
    """The digest of a directory.

    With `owners`, every entry also has to belong to one of these users and be writable by nobody
    but its owner. Does not check that it stays so: who is an owner can change it later.

    Raises:
        BaseFault: an entry is on another file system, or not the operator's alone.
        OSError: an entry cannot be read.
    """
    whole = hashlib.sha256()
    top = os.lstat(root)
    _check(top, top, owners)
    _add(whole, b"", top, b"")
    for path, facts in _walk(os.fsencode(root), b""):
        _check(facts, top, owners)
        _add(whole, path, facts, _payload(os.path.join(os.fsencode(root), path), facts))
    return _PREFIX + whole.hexdigest()


def _walk(root: bytes, below: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(os.path.join(root, below)) as entries:
        found = sorted(entries, key=lambda each: each.name)
    for entry in found:
        path, facts = os.path.join(below, entry.name), entry.stat(follow_symlinks=False)
        yield path, facts
        if stat.S_ISDIR(facts.st_mode):
            yield from _walk(root, path)


def _check(facts: os.stat_result, top: os.stat_result, owners: Collection[int] | None) -> None:
    if facts.st_dev != top.st_dev:
        raise BaseFault("holds a mount of another file system")
    if owners is None:
        return
    if facts.st_uid not in owners:
        raise BaseFault("holds what does not belong to its operator")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(facts.st_mode):
        raise BaseFault("holds what others may write (chmod -R go-w takes that away)")


def _payload(path: bytes, facts: os.stat_result) -> bytes:
    if stat.S_ISLNK(facts.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(facts.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return _contents(fd).digest()
        finally:
            os.close(fd)
    if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
        return b"%d" % facts.st_rdev
    return b""


def _contents(fd: int) -> hashlib._Hash:
    whole, at = hashlib.sha256(), 0
    while part := os.pread(fd, _CHUNK, at):
        whole.update(part)
        at += len(part)
    return whole


def _add(whole: hashlib._Hash, path: bytes, facts: os.stat_result, payload: bytes) -> None:
    """Each part goes in with its length, so that no two trees give the same bytes."""
    for part in (path, b"%o" % facts.st_mode, payload):
        whole.update(b"%d:" % len(part) + part)
