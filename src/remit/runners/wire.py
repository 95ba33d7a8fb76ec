"""How gateway and spawner talk: one JSON object and some file descriptors a message.

The socket is a SOCK_SEQPACKET pair, so a message is whole or absent. An object too large for one
packet travels in a sealed memfd, which is then the message's first descriptor. Imported by the
spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import socket
from collections.abc import Sequence
from typing import Any

INLINE_BYTES = 32_768
MESSAGE_BYTES = 8 * 1024 * 1024
MAX_FDS = 200

_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT_SHORT = int(socket.MSG_CTRUNC | socket.MSG_TRUNC)
_SEAL_ALL = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


OF_THE_MESSAGE = {errno.EMSGSIZE, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE}
"""Why one message may not go although the other side is there; another message may."""


def have_descriptors() -> None:
    """Let this process have as many open as it may.

    The kernel lets nobody send one while more than that wait, unreceived, to reach processes of
    the sender's user (unix(7), ETOOMANYREFS). A run may be of the same user, and have many wait.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def sealed_file(name: str, data: bytes) -> int:
    """A memfd that holds `data`, can never change again, and is read from its start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """From here on a memfd that allows seals can never change again."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL_ALL)


def reopen(fd: int) -> int:
    """The same memfd again, read-only and with an offset of its own."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def read_file(fd: int, limit: int) -> bytes:
    """All of a file from its start, at most `limit` bytes."""
    parts, at = [], 0
    while at < limit and (part := os.pread(fd, min(limit - at, 1 << 20), at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def close_all(fds: Sequence[int]) -> None:
    """Close each; one that is closed already is not an error here."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors are copied, the caller still owns its own.

    Raises:
        BlockingIOError: the other side does not read fast enough.
        OSError: the other side is gone, or one of `OF_THE_MESSAGE`.
    """
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) <= INLINE_BYTES:
        _send(sock, data, fds)
        return
    if len(data) > MESSAGE_BYTES:
        raise OSError(errno.EMSGSIZE, "a control message is too long")
    body = sealed_file("message", data)
    try:
        _send(sock, b"@", [body, *fds])
    finally:
        os.close(body)


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    if fds:
        socket.send_fds(sock, [data], list(fds))
    else:
        sock.send(data)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None when the other side is gone.

    Raises:
        BlockingIOError: nothing is waiting.
        ValueError: a message was cut short or is not an object.
    """
    data, fds, flags, _ = socket.recv_fds(sock, INLINE_BYTES, MAX_FDS + 1, _CLOEXEC)
    if not data:
        close_all(fds)
        return None
    try:
        if flags & _CUT_SHORT:
            raise ValueError("a control message was cut short")
        if data == b"@":
            body = fds.pop(0)
            try:
                data = read_file(body, MESSAGE_BYTES)
            finally:
                os.close(body)
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("a control message is not an object")  # noqa: TRY004
    except (ValueError, IndexError):
        close_all(fds)
        raise ValueError("a control message could not be read") from None
    return message, fds
