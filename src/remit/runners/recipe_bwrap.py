"""How bubblewrap makes an environment; the only recipe of profiles whose runner is `sandbox`.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from remit.runners import landlock
from remit.runners.bases import Base
from remit.runners.jail import JOB_DIR, SYSTEM_FILES, WALLS, packed, run_options
from remit.runners.recipe import Inside, Order, Pipes
from remit.runners.request import Request
from remit.runners.wire import close_all, reopen, sealed_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubble:
    """bubblewrap with one base. `seccomp` and `system_files` are sealed files that each order
    opens anew."""

    bwrap: str
    base: Base
    seccomp: int
    system_files: Sequence[int]

    def order(self, request: Request, pipes: Pipes, *, uid: int | None) -> Order:
        """Options and filter travel as sealed files; the command line says only flags."""
        jail = replace(request.jail(), over=self.base.over, slot=bool(pipes.extra))
        own = [sealed_file("options", self.base.options + packed(run_options(jail)))]
        try:
            own.append(reopen(self.seccomp))
            for (path, _), fd in zip(SYSTEM_FILES, self.system_files, strict=True):
                if self.base.over is None or path in self.base.over:
                    own.append(reopen(fd))
        except OSError:
            close_all(own)
            raise
        trust = () if pipes.trust is None else (pipes.trust,)
        # The order is that of the numbers in `jail`: block, info, args, seccomp, then files.
        numbered = (pipes.block, pipes.info, *own[:2], *pipes.extra)
        fds = (*pipes.stdio, *numbered, *own[2:], *trust, *pipes.files)
        rules = landlock.ruleset(request.egress)
        return Order(
            path=self.bwrap,
            argv=("bwrap", *WALLS, "--", *request.argv),
            fds=fds if rules is None else (*fds, rules),
            own=tuple(own),
            before_exec=None if rules is None else functools.partial(landlock.enter, len(fds)),
        )

    def inside(self, lease: str) -> Inside:
        """Where `jail` puts them."""
        return Inside()

    def stands(self, init: int) -> bool:
        """bubblewrap moves into the new root once it is whole; before, its root is the host's or
        an empty one, and nothing may be written there."""
        return moved_in(init, JOB_DIR)

    @property
    def shows_files(self) -> bool:
        """They are processes of this kernel."""
        return True

    def told_to_end(self, pids: Iterable[int]) -> list[int]:
        """All of the command's."""
        return list(pids)

    def clean(self, lease: str) -> bool:
        """Everything of it was in its namespaces."""
        return True


def moved_in(init: int, directory: str) -> bool:
    """Whether a bubblewrap's PID 1 has its new root, with this directory in it.

    Raises:
        OSError: the process is gone.
    """
    host, root = os.stat("/"), os.stat(f"/proc/{init}/root")
    if (host.st_dev, host.st_ino) == (root.st_dev, root.st_ino):
        return False
    return os.path.isdir(f"/proc/{init}/root{directory}")
