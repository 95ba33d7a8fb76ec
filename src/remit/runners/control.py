"""The spawner's loop: one `epoll`, the gateway's socket, and the reports that wait for it.

Imported by the spawner: standard library only.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from remit.runners.wire import close_all, receive, send

FAULTS = (ValueError, KeyError, TypeError, AttributeError, OSError)
"""What a message that cannot be obeyed raises, whatever is wrong with it."""


class Timed(Protocol):
    """What has something to do at some time."""

    def due(self) -> float: ...
    def tick(self, now: float) -> None: ...


class Control:
    """Messages in, reports out, descriptors watched; a subclass says what messages mean."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._unsent: list[tuple[dict[str, Any], list[int]]] = []
        self._gone = False
        self._parent = -1

    def obey(self, message: dict[str, Any], fds: list[int]) -> None:
        """Do what a message says; its descriptors are closed afterwards.

        Raises:
            one of `FAULTS`: it says nothing that can be done, which ends the spawner and all it
                holds: its gateway is not what it should be.
        """
        raise NotImplementedError

    def listen(self, gateway_pid: int) -> None:
        """Also leave when this process ends."""
        self._control.setblocking(False)
        self._poll.register(self._control.fileno(), select.EPOLLIN)
        self._parent = os.pidfd_open(gateway_pid)
        self.watch(self._parent, self.leave)

    def turn(self, timed: Iterable[Timed], *, until: float = float("inf")) -> None:
        """Wait for whatever comes next, at the latest until then (monotonic), and do it."""
        left = min((each.due() for each in timed), default=until)
        left = min(left, until) - time.monotonic()
        timeout = -1 if left == float("inf") else max(0.0, left)
        for fd, events in self._poll.poll(timeout):
            if fd == self._control.fileno():
                self._on_control(events)
            elif (call := self._calls.get(fd)) is not None:
                call()

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        self._calls[fd] = call
        self._poll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        del self._calls[fd]
        self._poll.unregister(fd)

    def leave(self) -> None:
        """The gateway is gone, or as good as gone."""
        if not self._gone:
            self._gone = True
            # Both would be readable from now on, and the loop would not wait for what is dying.
            self._poll.unregister(self._control.fileno())
            self.forget(self._parent)

    # -------------------------------------------------------------------------- the control

    def _on_control(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not events & ~select.EPOLLOUT or self._gone:
            return
        try:
            received = receive(self._control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self.leave()
            return
        message, fds = received
        try:
            self.obey(message, fds)
        except FAULTS:
            self.leave()
        finally:
            close_all(fds)

    def report(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send, or keep until the gateway reads: deadlines must not wait for it."""
        if self._gone:
            return
        self._unsent.append((message, [os.dup(fd) for fd in fds]))
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                send(self._control, message, fds)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno == errno.ETOOMANYREFS and fds:
                    self._unsent[0] = message, []  # better told without than not at all
                    close_all(fds)
                    continue
                self.leave()
            close_all(fds)
            del self._unsent[0]
        if self._gone:
            return
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._poll.modify(self._control.fileno(), wanted)
