"""Classic BPF, run by an interpreter: what a seccomp filter answers for a call, on any machine."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Code = list[tuple[int, int, int, int]]

KILL, ALLOW = 0x8000_0000, 0x7FFF_0000
EPERM, ENOSYS, NO_PROTOCOL, NO_FAMILY = 0x50001, 0x50026, 0x5005D, 0x50061
NO_MEMORY, AS_IF_DONE = 0x5000C, 0x50000

JUDGED = {
    *[
        "clone",
        "clone3",
        "ioctl",
        "personality",
        "socket",
        "socketpair",
        "open",
        "openat",
        "openat2",
        "chmod",
        "fchmod",
    ],
    *[
        "fchmodat",
        "fchmodat2",
        "creat",
        "mknod",
        "mknodat",
        "io_setup",
        "mmap",
        "memfd_create",
        "shmget",
        "setrlimit",
    ],
    "prlimit64",
}
"""Calls whose answer depends on what they are given."""


def decoded(program: bytes) -> Code:
    """The `struct sock_filter` array as tuples."""
    return list(struct.iter_unpack("=HBBI", program))


def verdict(code: Code, audit: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the filter returns for one system call (struct seccomp_data)."""
    values = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, audit, 0, *values)
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:  # ld [k]
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:  # and #k
                accumulator &= k
            case 0x05:  # ja k
                at += k
            case 0x06:  # ret #k
                return k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x25:
                at += if_true if accumulator > k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case _:
                raise AssertionError(hex(operation))
