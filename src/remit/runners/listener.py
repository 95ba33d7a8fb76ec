"""The way out of a run: a listening socket that is made inside its network namespace.

The namespace has only `lo` and no other way out. A short-lived child enters it, binds the proxy's
address and hands the descriptor back; a socket keeps the namespace it was made in, so whoever
holds it serves the run from outside. The run's command has not begun by then, so nothing can
have taken the address. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import os
import signal
import socket

from remit.runners.enter import enter
from remit.runners.messages import EGRESS_PORT
from remit.runners.wire import close_all

_PATIENCE_S = 10
_BACKLOG = 128
_IP_FREEBIND = 15  # ip(7); the socket module does not name it


def start(namespace: int, back: socket.socket, *, privileged: bool) -> int:
    """Fork the child that listens; it sends the descriptor to `back` and ends 0."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(_PATIENCE_S)
        enter(namespace, privileged=privileged)
        if [name for _, name in socket.if_nameindex()] != ["lo"]:
            os._exit(2)
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # bubblewrap may not have brought `lo` up yet; without this its address would not exist.
        listening.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listening.bind(("127.0.0.1", EGRESS_PORT))
        listening.listen(_BACKLOG)
        socket.send_fds(back, [b"1"], [listening.fileno()])
        os._exit(0)
    finally:
        os._exit(1)


def take(end: socket.socket) -> int | None:
    """The descriptor that the ended child sent, or None."""
    try:
        _, fds, _, _ = socket.recv_fds(end, 1, 1, int(socket.MSG_CMSG_CLOEXEC))
    except OSError:
        return None
    close_all(fds[1:])
    return fds[0] if fds else None
