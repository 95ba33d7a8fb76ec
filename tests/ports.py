"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free_port(host: str = HOST) -> int:
    """A port that nobody listens at, and that nobody who asks for any port is given for a minute.

    A connection to it that was ended from its side leaves it in TIME_WAIT (RFC 9293 §3.6.1): the
    system chooses no such port, neither for a server nor for a client, and a server that sets
    SO_REUSEADDR, as servers do, may still take it. One that is only bound and closed again could
    be given to the next who asks, this function among them.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        held.listen(1)
        with socket.socket() as other:
            other.connect(held.getsockname())
            ended, _ = held.accept()
            ended.close()
            other.recv(1)
        port: int = held.getsockname()[1]
        return port
