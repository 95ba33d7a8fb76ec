"""One run inside the spawner, from its control group to the evidence that nothing is left.

    launched ──info──▶ held ──release──▶ running ──all dead──▶ ended ──▶ removed

`held` is the sandbox with every namespace made, the way out listening where there is one, and the
command not begun: bubblewrap waits on `--block-fd`. It takes the end of that pipe for a release,
so that descriptor is open for writing too: the sandbox keeps the pipe open itself, and the death
of spawner and gateway can never be read as a start. Nothing of it is left open in the sandbox
afterwards: whether the release was read says that the command began, and nobody may change that. What is executed to make the sandbox is
a `recipe`'s business. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Sequence

from remit.runners import handed, listener
from remit.runners.handed import Handing
from remit.runners.holding import let_go, next_s, pipe_of
from remit.runners.launch import Ceilings, Launch, launch, tasks_of
from remit.runners.life import Life
from remit.runners.recipe import Order, Pipes
from remit.runners.wire import close_all

_LOOK_AGAIN_S = 0.0005
_LISTEN_AGAIN_S = 1.0
"""How often it is looked whether a command that is spoken with still has its output."""

_CHILD_PID = re.compile(rb'"child-pid": *([0-9]+)[^0-9]')


class Cell(Life):
    """One run. Every transition is caused by a message, a descriptor or a timer; none blocks."""

    # ------------------------------------------------------------------------------- set up

    def launch(self, fds: Sequence[int]) -> None:
        """Make the group and start the recipe up to its block; `fds` are as in the message.

        Raises:
            OSError, ValueError: a limit could not be set or a process not made; nothing is left.
        """
        own: list[int] = []
        try:
            if self.group is not None:
                self.group.create(self.request.group_limits())
            elif self.request.io_bytes_per_s is not None:
                raise ValueError("there is no control group in which reads of disks can be limited")
            block_r, self._block = os.pipe()
            own.append(block_r)
            own.append(os.open(f"/proc/self/fd/{block_r}", os.O_RDWR | os.O_CLOEXEC))
            self._info, info_w = os.pipe()
            own.append(info_w)
            self._output = pipe_of(fds[1])
            order = self._recipe.order(self.request, self._pipes(fds, *own[1:]), uid=self.uid)
            own += order.own
            self._monitor = launch(self._launch(order))
        except (OSError, ValueError):
            close_all([fd for fd in (self._block, self._info) if fd >= 0])
            if self.group is not None:
                self.group.remove()
            self._recipe.clean(self.name)
            raise
        finally:
            close_all(own)
        self._monitor_fd = os.pidfd_open(self._monitor)
        os.set_blocking(self._info, False)
        self._loop.watch(self._info, self._on_info)
        self._loop.watch(self._monitor_fd, self._on_monitor_exit)

    def _pipes(self, fds: Sequence[int], block: int, info: int) -> Pipes:
        files = len(self.request.files)
        return Pipes(
            stdio=(fds[0], fds[1], fds[2]),
            block=block,
            info=info,
            files=tuple(fds[3 : 3 + files]),
            trust=fds[3 + files] if self.request.egress else None,
        )

    def _launch(self, order: Order) -> Launch:
        return Launch(
            path=order.path,
            argv=order.argv,
            fds=order.fds,
            entrances=self.group.entrances() if self.group else (),
            cgroup=self.group.unified if self.group else None,
            ceilings=self._ceilings(order.open_files),
            uid=self.uid,
            before_exec=order.before_exec,
        )

    def _ceilings(self, own_files: int | None) -> Ceilings:
        request, held = self.request, self.group is not None
        return Ceilings(
            open_files=own_files or request.open_files,
            # Above the tmpfs, which is to say ENOSPC first.
            file_bytes=None if own_files else 2 * request.tmp_bytes,
            memory_bytes=None if held else request.memory_bytes,
            processes=None if held else tasks_of(self.uid) + request.pids + 2,
            cpu_seconds=None if held else request.wall_s,
        )

    def _on_info(self) -> None:
        """bubblewrap tells PID 1's number once the namespaces exist; it comes in pieces.

        The number is whole once something follows it. The pipe stays open, unread: closing it
        would kill bubblewrap by SIGPIPE.
        """
        part = os.read(self._info, 4096)
        self._said += part
        told = _CHILD_PID.search(self._said)
        if part and told is None:
            return
        self._loop.forget(self._info)
        self._informed = True
        try:
            if told is None:
                raise ValueError("bubblewrap ended before it told its child")
            self._init = int(told[1])
            self._init_fd = os.pidfd_open(self._init)
            if self.request.collect or self.request.handed:
                self._namespace = self._open_namespace("mnt")
        except (ValueError, OSError):
            self.kill("setup")
            return
        self._loop.watch(self._init_fd, self._on_init_exit)
        if self.state == "launched" and self.request.egress:
            self._listen()
        elif self.state == "launched":
            self._when_mounted(())

    def _when_mounted(self, listening: Sequence[int]) -> None:
        """Go on; with files to hand over or mounts to look at, not before everything is mounted."""
        try:
            if self.request.handed or self.request.mounts:
                if not self._recipe.stands(self._init):
                    again = [os.dup(fd) for fd in listening]
                    self.later(_LOOK_AGAIN_S, lambda: self._mounted_yet(again))
                    return
                self._look_at_mounts()
        except OSError:
            self.kill("setup")
            return
        self._stands(listening)

    def _look_at_mounts(self) -> None:
        """Bubblewrap finds a mount's source by its name, which may be another directory's by then.

        Raises:
            OSError: it is.
        """
        there = f"/proc/{self._init}/root{self._recipe.inside(self.name).mounts}"
        for (name, _, _), shown in zip(self.request.mounts, self.request.shown, strict=True):
            found = os.stat(f"{there}/{name}")
            if (found.st_dev, found.st_ino) != shown:
                raise OSError("another directory is mounted")

    def _mounted_yet(self, listening: Sequence[int]) -> None:
        if self.state == "launched" and self.why is None:
            self._when_mounted(listening)
        close_all(listening)

    def _open_namespace(self, kind: str) -> int:
        return os.open(f"/proc/{self._init}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)

    def _listen(self) -> None:
        """Have the way out made inside; the command is held until then."""
        end, back = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.setblocking(False)
        try:
            with back:
                network = self._open_namespace("net")
                try:
                    child = listener.start(network, back, privileged=self._privileged)
                finally:
                    os.close(network)
        except OSError:
            end.close()
            self.kill("setup")
            return

        def done(status: int) -> None:
            with end:
                listening = listener.take(end) if status == 0 else None
            if self.state == "launched" and self.why is None and listening is not None:
                self._when_mounted((listening,))
            else:
                self.kill("setup")
            close_all([] if listening is None else [listening])

        self._work(child, done)

    def _stands(self, listening: Sequence[int]) -> None:
        """Everything is made and the command held."""
        self.state = "held"
        self._loop.report({"ev": "provisioned", "lease": self.id}, listening)

    # --------------------------------------------------------------------------------- run

    def start(self, names: Sequence[str], fds: Sequence[int]) -> None:
        """Write the credentials into the run's memory, if there are any, and release it."""
        if self.state != "held" or self.why is not None or self._worker_fd >= 0:
            self.refuse("start", "the sandbox is not held")
            return
        if not names:
            self._release()
            return
        directory = self._recipe.inside(self.name).credentials
        what = Handing(directory=directory, names=names, fds=fds, mode=0o400)

        def done(status: int) -> None:
            if status == 0 and self.state == "held" and self.why is None:
                self._release()
            else:
                told = self.why or handed.why(status)
                self.kill("handing")
                self.refuse("start", f"the credentials could not be handed over ({told})")

        self.hand(what, done, "start")

    def hand(self, what: Handing, done: Callable[[int], None], op: str) -> None:
        """Write files inside; `done` gets the writer's status. Refuses `op` if none can begin."""
        where = self._recipe.inside(self.name)
        namespace = None if where.shared else self._namespace
        try:
            if namespace is not None and namespace < 0:
                raise OSError("no namespace")
            child = handed.start(what, namespace, self.uid, privileged=self._privileged)
        except OSError:
            self.kill("handing")
            self.refuse(op, "files could not be written into the sandbox")
            return
        self._work(child, done)

    def _release(self) -> None:
        """Let the command go, once."""
        try:
            self._let_go()
        except OSError:  # nobody is left to read it; the end is about to be reported
            self.refuse("start", "the sandbox ended")
            return
        self.state = "running"
        self._released_at = time.monotonic()
        self._deadline = self._released_at + min(float(self.request.wall_s), self.request.left_s)
        self._loop.report({"ev": "started", "lease": self.id})
        if self.request.dialogue and self._recipe.shows_files:
            self.later(_LISTEN_AGAIN_S, lambda: self._listen_on(before=False))

    def _listen_on(self, *, before: bool) -> None:
        """Tell once that the command can say nothing any more; `before`: that seemed so already."""
        if self.state != "running" or self.why is not None:
            return
        began = time.monotonic()
        now = let_go(self._recipe.told_to_end(self.command()), self._output)
        if now and before:
            self._loop.report({"ev": "closed", "lease": self.id})
        else:
            again_s = next_s(_LISTEN_AGAIN_S, time.monotonic() - began)
            self.later(again_s, lambda: self._listen_on(before=now))

    def _let_go(self) -> None:
        os.write(self._block, b"1")
