"""Lease files: written before anything of a run exists, removed after everything of it is gone.

They let the next gateway know, after a crash, which runs there were and where their control
groups were put. They are hints for the reaper, never proof that something does not exist.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remit.model import Lease

_SIZE = 2_048
"""Each file is as long, filled up with spaces, so that one text covers another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a lease file says: whose it is, and the cgroup directories it names.

    `run` is another name than the file's where a run took over a slot.
    """

    run: str
    roots: tuple[str, ...] = ()


class Leases:
    """The directory `<state>/leases`, one small file for each lease.

    A slot's file keeps the slot's name when a run takes the slot over: that is what its control
    group is called.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = str(state_dir / "leases")
        os.makedirs(self._directory, mode=0o700, exist_ok=True)

    def write(self, lease: Lease, roots: Mapping[str, str]) -> None:
        """Write a new lease.

        Raises:
            FileExistsError: there is one of this id.
        """
        self._put(lease, roots, self._path(lease.id), os.O_CREAT | os.O_EXCL)

    def claim(self, slot: str, lease: Lease, roots: Mapping[str, str]) -> None:
        """Have the file of a slot name the run that takes it over.

        It is written over, in one piece: a file put in its place would first be written to the
        disk (ext4's auto_da_alloc), and its removal would wait for that.

        Raises:
            OSError: there is no such slot.
        """
        self._put(lease, roots, self._path(slot), 0)

    def _put(self, lease: Lease, roots: Mapping[str, str], path: str, flags: int) -> None:
        text = json.dumps(
            {
                "lease": lease.id,
                "gateway": lease.gateway,
                "fence": lease.fence,
                "deadline_ms": lease.deadline_ms,
                "roots": sorted(roots.values()),
            }
        )
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
        try:
            os.ftruncate(fd, os.write(fd, text.encode("ascii").ljust(_SIZE)))
        finally:
            os.close(fd)

    def remove(self, lease_id: str) -> bool:
        """Remove it; whether it is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(lease_id))
        return not self.exists(lease_id)

    def exists(self, lease_id: str) -> bool:
        return os.path.lexists(self._path(lease_id))

    def found(self) -> dict[str, Found]:
        """Every lease there is a file of, by the file's name.

        A file cut short by a crash still names its lease.
        """
        result: dict[str, Found] = {}
        for name in os.listdir(self._directory):
            result[name] = Found(run=name)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                text = json.loads(Path(self._path(name)).read_bytes())
                roots = tuple(str(root) for root in text["roots"])
                result[name] = Found(run=str(text["lease"]), roots=roots)
        return result

    def _path(self, lease_id: str) -> str:
        return os.path.join(self._directory, lease_id)
