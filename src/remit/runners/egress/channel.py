"""The proxy's process as the gateway holds it: one socket, and the end of one is the other's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from remit.runners.wire import close_all, receive, send

_GOODBYE_S = 5.0


class ProxyGone(Exception):
    """The proxy ended, and every connection with it."""


class ProxyChannel:
    """One proxy process. `take` is called with each message, `lose` once at the end."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        take: Callable[[dict[str, Any]], None],
        lose: Callable[[], None],
    ) -> None:
        self._process = process
        self._control = control
        self._take = take
        self._lose = lose
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._writable = asyncio.Event()
        self.gone = False
        self._loop.add_reader(control.fileno(), self._on_readable)

    @classmethod
    def open(cls, take: Callable[[dict[str, Any]], None], lose: Callable[[], None]) -> ProxyChannel:
        """Start a proxy with an empty environment and no descriptor but its socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I"),
                    str(Path(__file__).with_name("proxy.py")),
                    str(theirs.fileno()),
                ],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        return cls(process, ours, take, lose)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message.

        Raises:
            ProxyGone: it did not arrive.
        """
        async with self._sending:
            while not self.gone:
                try:
                    send(self._control, message, fds)
                    return
                except BlockingIOError:
                    await self._until_writable()
                except OSError:
                    self._leave()
        raise ProxyGone

    async def _until_writable(self) -> None:
        self._writable.clear()
        self._loop.add_writer(self._control.fileno(), self._writable.set)
        try:
            await self._writable.wait()
        finally:
            if not self.gone:
                self._loop.remove_writer(self._control.fileno())

    def _on_readable(self) -> None:
        try:
            received = receive(self._control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._leave()
        else:
            close_all(received[1])
            self._take(received[0])

    def _leave(self) -> None:
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        self._writable.set()
        with contextlib.suppress(ProcessLookupError):
            # Its socket closed: it ends itself. One that hangs must hold no connection open.
            self._process.send_signal(signal.SIGKILL)
        self._lose()

    def kill(self) -> None:
        """End it at once."""
        self._leave()

    async def close(self) -> None:
        """End it and wait until it is gone."""
        self._leave()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                watched = os.pidfd_open(self._process.pid)
                try:
                    await self._ended(watched)
                finally:
                    os.close(watched)
        self._process.wait()

    async def _ended(self, watched: int) -> None:
        done = asyncio.Event()
        self._loop.add_reader(watched, done.set)
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await done.wait()
        finally:
            self._loop.remove_reader(watched)
