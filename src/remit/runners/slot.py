"""A sandbox made ahead of need: it stands with its command waiting, and becomes one run.

    launched ──▶ parking ──ready──▶ parked ──claim──▶ held (as the run) ──start──▶ running ...

Until it is claimed it has no input, credential or tenant. It is claimed once; whatever goes wrong
from there on ends it. Its control group, and so its lease file, keep the slot's name. Imported by
the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Sequence
from dataclasses import replace

from remit.runners import handed, parked
from remit.runners.cell import Cell
from remit.runners.handed import Handing
from remit.runners.life import HELD_S, emptied
from remit.runners.recipe import Pipes
from remit.runners.request import Request
from remit.runners.wire import close_all, seal

MAX_STDIN_BYTES = 16 * 1024 * 1024
_NULL = os.makedev(1, 3)


class Slot(Cell):
    """A cell that is claimed before it is started. `kind` is `shell` or `python`."""

    kind = "shell"
    _prefix: tuple[str, ...] = ()
    _plain = True
    _script = b""
    _claimed = False
    _command = _told = _ready = _stdin = _listening = -1
    _waiting = -1

    @property
    def slot(self) -> str | None:
        """Its own name."""
        return self.name

    def park(self, kind: str, fds: Sequence[int]) -> None:
        """Make it; `fds` are stdout, stderr and the trust file.

        Raises:
            OSError, ValueError: as `launch`, and for a kind that there is not.
        """
        if self.group is None:
            raise ValueError("slots need control groups")
        self.kind, self._prefix = kind, self.request.argv
        self.request = replace(self.request, argv=parked.command(kind, self._prefix))
        self._stdin = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # A socket, which nobody can open again by /proc and write to, as one could a pipe.
        told, telling = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._told, self._command = told.detach(), telling.detach()
        self._ready, ready = os.pipe()
        reading = os.open(f"/proc/self/fd/{self._stdin}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A shell reads its commands at 0 and finds the input at 7, an interpreter the reverse.
            ends = (self._told, reading) if kind == "shell" else (reading, self._told)
            self.launch((ends[0], *fds, ends[1], ready))
        except (OSError, ValueError):
            self._close_own()
            raise
        finally:
            close_all((reading, ready))
        os.set_blocking(self._command, False)
        self._loop.watch(self._ready, self._on_ready)

    def _pipes(self, fds: Sequence[int], block: int, info: int) -> Pipes:
        pipes = super()._pipes(fds[:-2], block, info)
        return replace(pipes, extra=tuple(fds[-2:]))

    def _stands(self, listening: Sequence[int]) -> None:
        if listening:
            self._listening = os.dup(listening[0])
        self.state = "parking"
        with contextlib.suppress(OSError):
            os.write(self._block, b"1")
            os.write(self._command, parked.GREETING[self.kind])

    def _on_ready(self) -> None:
        """The command says a byte once it waits for its script."""
        told = os.read(self._ready, 1)
        self._close_watched("_ready")
        if not told or self.state != "parking" or self.group is None:
            self.kill("setup")
            return
        self._plain = told == b"1"
        own = {self._monitor, self._init}
        self._waiting = next((pid for pid in self.group.pids() if pid not in own), -1)
        self._cpu_before = self.group.counters().cpu_us or 0
        self.state = "parked"
        self._deadline = time.monotonic() + self.request.left_s  # as old as it may grow
        listening = [] if self._listening < 0 else [self._listening]
        self._loop.report({"ev": "parked", "lease": self.name}, listening)
        self._close("_listening")

    # ------------------------------------------------------------------------------- claimed

    def claim(self, request: Request, fds: Sequence[int]) -> None:
        """Become the run: its limits, input and files; `fds` are stdin and the files.

        Raises:
            OSError, ValueError: it cannot; the slot is fit for nothing then.
        """
        if self.state != "parked" or self._claimed or self.why is not None or self.group is None:
            raise ValueError("the slot is not free")
        self._claimed = True
        empty = self._take_stdin(fds[0])
        self._script = parked.script(
            self.kind, self._prefix, request.argv, request.env, empty=empty, plain=self._plain
        )
        if (limits := request.group_limits()) != self.request.group_limits():
            self.group.limit(limits)
        fewer = request.open_files < self.request.open_files
        self.id, self.request = request.lease, request
        self._deadline = time.monotonic() + min(HELD_S, request.left_s)
        if not request.files and not fewer:
            self._take_over()
            return
        what = Handing(
            directory=self._recipe.inside(self.name).job,
            names=request.files,
            fds=fds[1:],
            mode=0o644,
            open_files=(self._waiting, request.open_files) if fewer else None,
        )
        self.hand(what, self._on_files, "claim")

    def _on_files(self, status: int) -> None:
        if status == 0 and self.why is None:
            self._take_over()
        else:
            told = self.why or handed.why(status)
            self.kill("claim")
            self.refuse("claim", f"the files could not be written ({told})")

    def _take_over(self) -> None:
        self.state = "held"
        self._loop.report({"ev": "claimed", "lease": self.id, "slot": self.name})

    def _take_stdin(self, given: int) -> bool:
        """Copy the run's input into what the waiting command has open; whether there is none."""
        facts = os.fstat(given)
        if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == _NULL:
            return True
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_STDIN_BYTES:
            raise ValueError("the input is neither a file in memory nor /dev/null")
        at = 0
        while sent := os.sendfile(self._stdin, given, at, MAX_STDIN_BYTES):
            at += sent
        seal(self._stdin)
        return False

    def _let_go(self) -> None:
        if os.write(self._command, self._script) != len(self._script):
            self.kill("claim")
            raise OSError("the script was cut short")
        self._script = b""

    def _consumed(self) -> bool:
        """Whether the waiting command read all of its script."""
        return self._released_at is not None and emptied(self._told)

    def _remove(self) -> None:
        self._close_own()
        super()._remove()

    def _close_own(self) -> None:
        if self._ready >= 0:
            with contextlib.suppress(KeyError):
                self._loop.forget(self._ready)
        for name in ("_command", "_told", "_ready", "_stdin", "_listening"):
            self._close(name)

    def _close(self, name: str) -> None:
        if (fd := getattr(self, name)) >= 0:
            os.close(fd)
            setattr(self, name, -1)
