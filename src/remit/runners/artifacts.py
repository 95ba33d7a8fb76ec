"""Files that runs left as results, in a directory of the gateway's own, named by what they hold.

A file is written beside its place, flushed, and moved there: under a name there is the whole of it
or nothing. Whoever reads one gets it only if its digest still fits its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from remit.telemetry import logger

DAY_MS = 86_400_000
STRAY_MS = 3_600_000
"""Age at which a file that was never moved to its place is taken for a crash's."""

_NAME = re.compile(r"sha256:([0-9a-f]{64})")
_KEPT = re.compile(r"[0-9a-f]{64}")

log = logger()


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    size: int
    at_ms: int


class DirectoryArtifacts:
    """The `Artifacts` port over one directory.

    Args:
        directory: of the gateway's own; made if it is not there, of mode 0700.
        keep_days: how long a file is kept after it was last put.
        max_bytes: how much is kept in all; the oldest go first.

    Does not encrypt: whoever can read the directory reads what runs left.
    """

    def __init__(self, directory: Path, *, keep_days: int, max_bytes: int) -> None:
        self._directory = directory
        self._keep_ms = keep_days * DAY_MS
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(self, data: bytes) -> str:
        """Keep the bytes; give their name.

        Raises:
            OSError: they could not be kept.
        """
        return await asyncio.to_thread(self._put, data)

    async def get(self, digest: str) -> bytes | None:
        return await asyncio.to_thread(self._get, digest)

    async def prune(self, now_ms: int) -> int:
        return await asyncio.to_thread(self._prune, now_ms)

    # ------------------------------------------------------------------------------ in a thread

    def _put(self, data: bytes) -> str:
        found = hashlib.sha256(data).hexdigest()
        name, folder = f"sha256:{found}", self._directory / found[:2]
        with self._lock:  # a file is not pruned between being found and being counted on
            if self._whole(folder / found, data):
                os.utime(folder / found)
                return name
            self._make(folder)
            fresh = folder / f".{secrets.token_hex(8)}"
            try:
                _write(fresh, data)
                os.replace(fresh, folder / found)
            except BaseException:
                with contextlib.suppress(OSError):
                    fresh.unlink()
                raise
            _flush(folder)
        return name

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            _flush(self._directory)

    def _whole(self, path: Path, data: bytes) -> bool:
        try:
            return _read(path) == data
        except OSError:
            return False

    def _get(self, digest: str) -> bytes | None:
        match = _NAME.fullmatch(digest)
        if match is None:
            return None
        found = match.group(1)
        try:
            data = _read(self._directory / found[:2] / found)
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != found:
            log.critical("artifact_changed", digest=digest)
            return None
        return data

    def _prune(self, now_ms: int) -> int:
        with self._lock:
            kept = sorted(self._found(now_ms), key=lambda each: each.at_ms)
            total = sum(each.size for each in kept)
            removed = 0
            for each in kept:
                if each.at_ms >= now_ms - self._keep_ms and total <= self._max_bytes:
                    break
                with contextlib.suppress(OSError):
                    each.path.unlink()
                    total -= each.size
                    removed += 1
        return removed

    def _found(self, now_ms: int) -> Iterator[_Kept]:
        for folder in self._folders():
            for entry in _listed(folder):
                with contextlib.suppress(OSError):
                    seen = entry.stat(follow_symlinks=False)
                    at_ms = seen.st_mtime_ns // 1_000_000
                    if _KEPT.fullmatch(entry.name):
                        yield _Kept(Path(entry.path), seen.st_size, at_ms)
                    elif entry.name.startswith(".") and at_ms < now_ms - STRAY_MS:
                        os.unlink(entry.path)

    def _folders(self) -> list[str]:
        return [
            each.path for each in _listed(self._directory) if each.is_dir(follow_symlinks=False)
        ]


def _listed(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    """A file of ours; a link is none."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read()


def _flush(folder: Path) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
