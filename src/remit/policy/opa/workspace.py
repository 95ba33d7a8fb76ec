"""The directory of one supervised OPA: what it loads, and where its socket is.

<state>/opa-XXXXXXXX/   0700
    lock                held by the gateway as long as it lives
    policy/  probe/     the two bundles
    refused/            what `opa check` must refuse
    opa-N.sock          made by OPA, 0600
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Self

from remit.errors import Code, PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.content import files_of
from remit.policy.opa import probing

PREFIX = "opa-"
POLICY, PROBE, REFUSED = "policy", "probe", "refused"

_UNLOCKED_S = 60.0


class Workspace:
    """Made by `make`. `path` is its directory; sockets in it are reached by a short name.

    A Unix socket's path has at most 107 bytes, which a data directory may well exceed. OPA is
    given a name relative to its directory, and we reach the same file through a descriptor.
    """

    def __init__(self, path: Path, lock: int, directory: int) -> None:
        self.path = path
        self._lock = lock
        self._directory = directory

    @classmethod
    def make(cls, state_dir: Path, bundle: PolicyBundle) -> Self:
        """Write the bundles into a new directory, after removing those that nobody holds.

        Raises:
            PolicyFault: `policy_not_ready`: the directory cannot be written.
        """
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(state_dir):
                sweep(state_dir)
                path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=state_dir))
                lock = _lock(path)
            try:
                return cls(path, lock, _fill(path, bundle))
            except BaseException:
                os.close(lock)
                shutil.rmtree(path, ignore_errors=True)
                raise
        except OSError as error:
            raise PolicyFault(
                Code.POLICY_NOT_READY,
                f"the directory for OPA cannot be written: {error.strerror}",
                hint="see the data directory and its owner",
            ) from None

    def reach(self, name: str) -> str:
        """A path of at most 107 bytes to a file in the directory, for this process."""
        return f"/proc/self/fd/{self._directory}/{name}"

    def remove(self) -> None:
        """The directory, with all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._directory)
        os.close(self._lock)


def sweep(state_dir: Path) -> None:
    """Remove the directories of gateways that are gone: whose lock nobody holds."""
    for path in state_dir.glob(f"{PREFIX}????????"):
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            with suppress(FileNotFoundError):  # its owner is removing it
                if time.time() - path.lstat().st_mtime > _UNLOCKED_S:
                    shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Nobody else sweeps, or makes a directory that is not locked yet, until the block ends."""
    whole = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(whole, fcntl.LOCK_EX)
        yield
    finally:
        os.close(whole)


def _lock(path: Path) -> int:
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _fill(path: Path, bundle: PolicyBundle) -> int:
    """Write everything; the descriptor of the directory."""
    _write(path / POLICY, files_of(bundle))
    _write(path / PROBE, files_of(probing.bundle()))
    refused = probing.refused_modules()
    _write(path / REFUSED, {f"{name}.rego": refused[name].encode() for name in refused})
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir(mode=0o700)
    for name, content in files.items():
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise PolicyFault(
                Code.POLICY_NOT_READY, "a module's name leads out of its bundle", place=name
            )
        path = directory / parts
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
