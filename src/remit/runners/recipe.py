"""The seam between a cell and what makes its environment: bubblewrap, gVisor, or another.

A cell owns a run's life: control group, release, limits of time, kill, read-back, evidence. A
recipe owns what is executed to make the environment, and speaks this protocol with the cell:

- `order` gives a program with its descriptors. It is forked into the run's control group as the
  run's user; its exit status is the run's.
- It writes JSON holding `"child-pid": N` to the info pipe once every namespace stands. N is a
  process, in this PID namespace, that ends last of all of the environment; its `ns/net` and
  `ns/mnt` are where `Inside` says. The pipe may say more; it is not read further.
- It then waits for one byte on the block pipe, and runs nothing of the command before. The end
  of that pipe is not a release, and there is none: its descriptor can be written to as well. It
  is closed before the command begins: whoever could write there would take the release back.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from remit.runners.jail import JOB_DIR, MOUNTS_DIR
from remit.runners.messages import CREDENTIALS_DIR
from remit.runners.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipes:
    """The descriptors a cell brings: it closes them after the fork, the recipe never does.

    `extra` are a slot's (its standard input or command pipe, and its ready pipe), which have to
    be numbers 7 and 8 of the command; `files` those for the job directory, `trust` the file of
    certificate authorities where the run has egress.
    """

    stdio: tuple[int, int, int]
    block: int
    info: int
    extra: tuple[int, ...] = ()
    files: tuple[int, ...] = ()
    trust: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to execute: `path` with `argv` (with argument 0), `fds` as 0, 1, 2, ... in this order.

    `own` are descriptors that the recipe made for this order; the cell closes them after the
    fork. `before_exec` is called in the child, last before exec, as the run's user: it may only
    make system calls, and an error of it ends the child. `open_files` is a limit of the program's
    own where it, and not the kernel, holds those of the run on files; None: the run's.
    """

    path: str
    argv: tuple[str, ...]
    fds: tuple[int, ...]
    own: tuple[int, ...] = ()
    before_exec: Callable[[], None] | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Where a child of the spawner finds the run's directories, in `mount_of`'s mount namespace.

    `shared` says that the directories are in the spawner's own mount namespace instead.
    """

    job: str = JOB_DIR
    credentials: str = CREDENTIALS_DIR
    mounts: str = MOUNTS_DIR
    shared: bool = False


class Recipe(Protocol):
    """How one kind of environment is made. One object serves all cells of one profile."""

    def order(self, request: Request, pipes: Pipes, *, uid: int | None) -> Order:
        """What to execute for this request.

        Raises:
            OSError, ValueError: it cannot be made; nothing is left.
        """

    def inside(self, lease: str) -> Inside:
        """Where the directories of this run are."""

    def stands(self, init: int) -> bool:
        """Whether everything is mounted by now, so that `inside` is true: N comes before that.

        Raises:
            OSError: the process is gone.
        """

    @property
    def shows_files(self) -> bool:
        """Whether what its processes have open can be seen from outside."""

    def told_to_end(self, pids: Iterable[int]) -> list[int]:
        """Which of the processes of a run get the signal that asks it to end."""

    def clean(self, lease: str) -> bool:
        """Remove what this kind of environment leaves outside its namespaces, after every process
        is dead; whether nothing is left. Called again until it is."""
