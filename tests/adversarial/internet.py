"""A stand-in for the internet: run in a network namespace of its own, it gives `lo` every address
that the programs try, answers there, and runs one of them.

    unshare --user --map-root-user --net python internet.py PROGRAM...
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading

ADDRESSES = ("192.0.2.1", "8.8.8.8", "169.254.169.254", "10.0.0.1")
ADDRESSES_6 = ("2001:db8::1", "fd00:ec2::254", "fe80::1")
PORTS = (22, 53, 80, 443, 5353)
_SIOCSIFADDR, _SIOCSIFFLAGS, _UP_RUNNING_MULTICAST = 0x8916, 0x8914, 0x1 | 0x40 | 0x1000


def set_up() -> None:
    """Bring `lo` up with all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four:
        flags = struct.pack("16sH14x", b"lo", _UP_RUNNING_MULTICAST)
        fcntl.ioctl(four, _SIOCSIFFLAGS, flags)
        for number, address in enumerate(ADDRESSES):
            where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(four, _SIOCSIFADDR, struct.pack("16s16s", b"lo:%d" % number, where))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        for address in ADDRESSES_6:
            packed = socket.inet_pton(socket.AF_INET6, address)
            index = socket.if_nametoindex("lo")
            with contextlib.suppress(OSError):
                fcntl.ioctl(six, _SIOCSIFADDR, struct.pack("16sIi", packed, 128, index))


def answer(kind: socket.SocketKind, port: int) -> None:
    server = socket.socket(socket.AF_INET6, kind)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    if kind is socket.SOCK_STREAM:
        server.listen(64)

    def serve() -> None:
        while True:
            if kind is socket.SOCK_STREAM:
                server.accept()[0].close()
            else:
                data, sender = server.recvfrom(2048)
                server.sendto(data, sender)

    threading.Thread(target=serve, daemon=True).start()


def main() -> int:
    set_up()
    for port in PORTS:
        answer(socket.SOCK_STREAM, port)
        answer(socket.SOCK_DGRAM, port)
    done = subprocess.run(sys.argv[1:], stdin=0)
    os._exit(done.returncode & 0xFF)


if __name__ == "__main__":
    sys.exit(main())
