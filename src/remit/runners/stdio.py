"""The standard streams of a run, as the spawner takes them from a message or makes them itself.

What a message brings may only be what cannot be anybody else's business: input that is a file in
memory which can never change, or `/dev/null`; output that is the writing end of a pipe. The pipes
of a run that is spoken with are made here, so that no message can name another's: the gateway is
sent its ends before anything is forked, and this process keeps none. Imported by the spawner:
standard library only.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

_NULL = os.makedev(1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Two new pipes: the run's ends (its 0 and 1), and those of whoever speaks with it."""

    run: tuple[int, int]
    speaker: tuple[int, int]


def make() -> Streams:
    """Pipes for a run that is spoken with: nobody else has an end of them.

    Raises:
        OSError: no descriptor is left.
    """
    reading, feeding = os.pipe()
    try:
        hearing, writing = os.pipe()
    except OSError:
        os.close(reading)
        os.close(feeding)
        raise
    return Streams(run=(reading, writing), speaker=(feeding, hearing))


def check_input(fd: int) -> None:
    """See that standard input is a file in memory that cannot change, or `/dev/null`.

    Raises:
        ValueError: it is anything else.
    """
    facts = os.fstat(fd)
    if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == _NULL:
        return
    if not stat.S_ISREG(facts.st_mode) or not _sealed(fd):
        raise ValueError("the input is neither a file in memory nor /dev/null")


def _sealed(fd: int) -> bool:
    """Whether it is a memfd that nobody can write to any more: no other file has seals."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False


def check_outputs(fds: Sequence[int]) -> None:
    """See that each is the writing end of a pipe, and not its reading end too.

    Raises:
        ValueError: one is anything else.
    """
    for fd in fds:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        if not stat.S_ISFIFO(os.fstat(fd).st_mode) or mode != os.O_WRONLY:
            raise ValueError("an output is not the writing end of a pipe")
