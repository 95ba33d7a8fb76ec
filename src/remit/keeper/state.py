"""The keeper's own directory, by descriptor: it works on when the path can no more be walked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from remit.errors import Code, ConfigError

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_NOFOLLOW | os.O_CLOEXEC


class StateDirectory:
    """One directory of files that nobody else can read; names are single components.

    Args:
        path: the directory; made, of mode 0700, if it is not there.
        parent: descriptor that `path` is relative to.

    Raises:
        ConfigError: it cannot be made, or others can get at it.
    """

    def __init__(self, path: str | Path, *, parent: int | None = None) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700, dir_fd=parent)
            self.fd = os.open(path, _OPEN_DIRECTORY, dir_fd=parent)
        except OSError as exc:
            raise _unusable(path, f"cannot be used: {exc.strerror}") from None
        if stat.S_IMODE(os.fstat(self.fd).st_mode) & 0o077:
            raise _unusable(path, "can be read by others")

    def below(self, name: str) -> StateDirectory:
        """A directory in this one."""
        return StateDirectory(name, parent=self.fd)

    def give(self, uid: int) -> None:
        """Make the directory, and all files in it, this user's."""
        for entry in os.scandir(self.fd):
            os.chown(entry.name, uid, uid, dir_fd=self.fd, follow_symlinks=False)
        os.fchown(self.fd, uid, uid)

    def names(self) -> list[str]:
        """Of its files, sorted; not those of writes that were not finished."""
        found = [e.name for e in os.scandir(self.fd) if e.is_file(follow_symlinks=False)]
        return sorted(name for name in found if not name.endswith(".new"))

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        try:
            fd = os.open(name, os.O_RDONLY | _OPEN_FILE, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Put this content in place of what was there; durable, and never half."""
        new = f"{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OPEN_FILE
        with os.fdopen(os.open(new, flags, 0o600, dir_fd=self.fd), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        os.fsync(self.fd)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file, which is made if `flags` say so."""
        return os.open(name, flags | _OPEN_FILE, 0o600, dir_fd=self.fd)

    @contextlib.contextmanager
    def appending(self, name: str) -> Iterator[int]:
        """A descriptor that appends to the file, making it durably if it is not there."""
        fd = self.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            if os.fstat(fd).st_size == 0:
                os.fsync(self.fd)
            yield fd
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)


def _unusable(path: str | Path, why: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"the keeper's directory {why}",
        place=str(path),
        hint="it belongs to the keeper alone, with mode 0700",
    )
