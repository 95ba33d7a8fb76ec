"""The gateway's end of the spawner: the process, its socket, and who waits for which report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remit.runners.wire import OF_THE_MESSAGE, close_all, have_descriptors, receive, send

_GOODBYE_S = 10.0


class SpawnerGone(Exception):
    """The spawner ended; everything it held is dead or dying."""


@dataclass(slots=True)
class Report:
    """A message of the spawner with the descriptors that came along."""

    message: dict[str, Any]
    fds: list[int] = field(default_factory=list)


class Channel:
    """One spawner process. `on_report` is called for each message, `on_gone` once at its end."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._process = process
        self._control = control
        self._loop = loop
        self._writable: asyncio.Future[None] | None = None
        self.gone = False
        self.on_report: Callable[[Report], None] = lambda report: close_all(report.fds)
        self.on_gone: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    def open(cls) -> Channel:
        """Start a spawner with an empty environment and no descriptor but its socket."""
        have_descriptors()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S"),
                    str(Path(__file__).with_name("spawner.py")),
                    str(theirs.fileno()),
                ],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        channel = cls(process, ours, asyncio.get_running_loop())
        channel._loop.add_reader(ours.fileno(), channel._on_readable)
        return channel

    async def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message.

        Raises:
            SpawnerGone: it did not arrive.
            OSError: it cannot be sent as it is; the spawner knows nothing of it.
        """
        while True:
            if self.gone:
                raise SpawnerGone
            try:
                send(self._control, message, fds)
            except BlockingIOError:
                await self._until_writable()
            except OSError as exc:
                if exc.errno in OF_THE_MESSAGE:
                    raise
                self._leave()
            else:
                return

    async def _until_writable(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()
            self._loop.add_writer(self._control.fileno(), self._on_writable)
        await asyncio.shield(self._writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._control.fileno())
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def _on_readable(self) -> None:
        """One message a turn: the loop comes back at once while there are more."""
        try:
            received = receive(self._control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._leave()
        else:
            self.on_report(Report(*received))

    def _leave(self) -> None:
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._control.fileno())
        if self._writable is not None:
            self._on_writable()
        self._control.close()
        self.on_gone()

    async def close(self) -> None:
        """Close the socket, which makes the spawner clean up and end; wait for that."""
        self._leave()
        if self._process.returncode is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._ended()
                return
        self._process.kill()
        self._process.wait()

    async def _ended(self) -> None:
        try:
            watched = os.pidfd_open(self._process.pid)
        except ProcessLookupError:
            self._process.wait()
            return
        done = self._loop.create_future()

        def ended() -> None:
            if not done.done():
                done.set_result(None)

        self._loop.add_reader(watched, ended)
        try:
            if self._process.poll() is None:
                await done
        finally:
            self._loop.remove_reader(watched)
            os.close(watched)
        self._process.wait()
