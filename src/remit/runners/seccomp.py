"""The seccomp filter of a run, assembled as classic BPF without any library.

What the filter does, in this order (`man 2 seccomp`, linux/seccomp.h):

1. a system call of another architecture, or of the x32 ABI, kills the process;
2. a system call newer than `syscalls` is answered ENOSYS, so that libraries fall back;
3. some calls are judged by what they ask: `clone` and its kin, sockets, `ioctl`, `personality`, what
   gives a file its mode, what takes huge pages or memory of the kernel's for input and output,
   and what would let the host's handler of crashes be called;
4. what `syscalls` names is allowed;
5. everything else is answered EPERM: namespaces, mounts, keys, traces, modules, rings and more.

It is the second wall. The first is that the command has no capability in any namespace but one
it cannot use. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remit.runners import syscalls
from remit.runners.syscalls import NEWEST_KNOWN

_LOAD, _JEQ, _JGE, _JSET, _JUMP, _RET = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_FARTHEST = 255  # that a comparison can jump

_KILL = 0x8000_0000
_ALLOW = 0x7FFF_0000
_EPERM = 0x0005_0000 | 1
_ENOSYS = 0x0005_0000 | 38
_NO_PROTOCOL = 0x0005_0000 | 93  # EPROTONOSUPPORT: what a kernel without that protocol answers
_NO_FAMILY = 0x0005_0000 | 97  # EAFNOSUPPORT: the same for a family
_NO_MEMORY = 0x0005_0000 | 12  # ENOMEM: what a host whose huge pages are all in use answers
_AS_IF_DONE = 0x0005_0000  # 0: the call is not made, and says that it was

_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_X32 = 0x4000_0000

NEW_NAMESPACE = (
    0x0000_0080  # CLONE_NEWTIME
    | 0x0002_0000  # CLONE_NEWNS
    | 0x0200_0000  # CLONE_NEWCGROUP
    | 0x0400_0000  # CLONE_NEWUTS
    | 0x0800_0000  # CLONE_NEWIPC
    | 0x1000_0000  # CLONE_NEWUSER
    | 0x2000_0000  # CLONE_NEWPID
    | 0x4000_0000  # CLONE_NEWNET
)
REFUSED_IOCTLS = (0x5412, 0x541C, 0x5423)
"""TIOCSTI and TIOCLINUX put input into a terminal; TIOCSETD loads line disciplines."""

SAME_PERSONALITIES = (0, 0xFFFF_FFFF)
"""PER_LINUX, and the question which it is; nothing that turns a protection off."""

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
PROTOCOLS = {INET: (0, 1, 6, 17), INET6: (0, 6, 17, 58)}
"""Any, ICMP, TCP and UDP. Others (SCTP, DCCP, MPTCP, ...) would load modules and reach code that
a run has no use for; raw sockets need a capability that it has not."""

_NETLINK_ROUTE = 0

SET_IDS = 0o6000
"""S_ISUID and S_ISGID. In a directory of the host that a run may write to, such a file would let
other users of the host act as the run's user, which can be the gateway's own."""

_MODES = {
    "chmod": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "fchmodat2": 2,
    "creat": 1,
    "mknod": 1,
    "mknodat": 2,
}
"""Which argument is a mode."""

_OPENS = {"open": (1, 2), "openat": (2, 3)}
"""Which arguments are the flags, and the mode that counts only where a file may be made."""

_MAKES_FILE = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE

_HUGE = {"mmap": (3, 0x40000), "memfd_create": (1, 0x4), "shmget": (2, 0o4000)}
"""The flag that asks for huge pages, by argument. No control group that we have counts them."""

_RLIMIT_CORE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What differs between machines: the audit number, the x32 bit, and system call numbers."""

    name: str
    audit: int
    x32: bool
    numbers: Mapping[str, int]


X86_64 = Architecture(name="x86_64", audit=0xC000_003E, x32=True, numbers=syscalls.X86_64)
AARCH64 = Architecture(name="aarch64", audit=0xC000_00B7, x32=False, numbers=syscalls.AARCH64)
ARCHITECTURES = {arch.name: arch for arch in (X86_64, AARCH64)}


def program(arch: Architecture) -> bytes:
    """The filter for one architecture, as the `struct sock_filter` array that bwrap reads."""
    code = [_op(_LOAD, _ARCH), _op(_JEQ, arch.audit, 1, 0), _give(_KILL), _op(_LOAD, _NUMBER)]
    if arch.x32:
        code += [_op(_JGE, _X32, 0, 1), _give(_KILL)]
    blocks = {number: [_give(_ALLOW)] for number in arch.numbers.values()}
    blocks |= _numbered(arch, _judged())
    steps = _steps(blocks, otherwise=[_give(_EPERM)], beyond=[_give(_ENOSYS)])
    return b"".join([*code, *_search(steps)])


def program_of_modes(arch: Architecture) -> bytes:
    """Nothing but what keeps set-id files from being made, for what has a filter of its own.

    It answers by errors alone, which yield to whatever else another filter does with a call.
    """
    head = [_op(_LOAD, _ARCH), _op(_JEQ, arch.audit, 1, 0), _give(_EPERM), _op(_LOAD, _NUMBER)]
    blocks = _numbered(arch, _of_modes())
    steps = _steps(blocks, otherwise=[_give(_ALLOW)], beyond=[_give(_ALLOW)])
    return b"".join([*head, *_search(steps)])


_Block = list[bytes]


def _numbered(arch: Architecture, blocks: Mapping[str, _Block]) -> dict[int, _Block]:
    return {arch.numbers[name]: block for name, block in blocks.items() if name in arch.numbers}


def _steps(
    blocks: Mapping[int, _Block], *, otherwise: _Block, beyond: _Block
) -> list[tuple[int, _Block]]:
    """Where, counted up from 0, the answer changes, and what it is from there on."""
    steps: list[tuple[int, _Block]] = []
    for number in range(NEWEST_KNOWN + 2):
        block = beyond if number > NEWEST_KNOWN else blocks.get(number, otherwise)
        if not steps or steps[-1][1] != block or len(block) > 1:
            steps.append((number, block))
    return steps


def _search(steps: Sequence[tuple[int, _Block]]) -> _Block:
    """The steps as a tree of comparisons; each leaf returns."""
    if len(steps) == 1:
        return steps[0][1]
    middle = len(steps) // 2
    below, above = _search(steps[:middle]), _search(steps[middle:])
    if len(below) <= _FARTHEST:
        return [_op(_JGE, steps[middle][0], len(below), 0), *below, *above]
    return [_op(_JGE, steps[middle][0], 0, 1), _op(_JUMP, len(below)), *below, *above]


def _judged() -> dict[str, _Block]:
    """What is judged by its arguments; each block returns.

    Only the low half of an argument is read: these calls take 32-bit values, and of `clone`'s
    flags the upper half means nothing. The flags of `clone3` lie behind a pointer, which a filter
    cannot read; libraries use `clone` where it does not exist. The same goes for `openat2`, whose
    mode lies behind a pointer. `io_setup` takes from a store that all of the host shares.
    """
    return {
        **_of_modes(),
        **{name: _unless(at, flag, _NO_MEMORY) for name, (at, flag) in _HUGE.items()},
        "io_setup": [_give(_ENOSYS)],
        "setrlimit": [_argument(0), *_case((_RLIMIT_CORE,), _AS_IF_DONE), _give(_ALLOW)],
        "prlimit64": _prlimit(),
        "clone3": [_give(_ENOSYS)],
        "clone": _unless(0, NEW_NAMESPACE, _EPERM),
        "ioctl": [_argument(1), *_case(REFUSED_IOCTLS, _EPERM), _give(_ALLOW)],
        "personality": [_argument(0), *_case(SAME_PERSONALITIES, _ALLOW), _give(_EPERM)],
        "socket": _socket(),
        "socketpair": [_argument(0), *_case((UNIX,), _ALLOW), _give(_NO_FAMILY)],
    }


def _of_modes() -> dict[str, _Block]:
    return {
        **{name: _unless(at, SET_IDS, _EPERM) for name, at in _MODES.items()},
        **{name: _open(flags, mode) for name, (flags, mode) in _OPENS.items()},
        "openat2": [_give(_ENOSYS)],
    }


def _unless(index: int, bits: int, verdict: int) -> _Block:
    """Allowed, but with any of these bits in an argument."""
    return [_argument(index), _op(_JSET, bits, 0, 1), _give(verdict), _give(_ALLOW)]


def _open(flags: int, mode: int) -> _Block:
    judged = _unless(mode, SET_IDS, _EPERM)
    return [_argument(flags), _op(_JSET, _MAKES_FILE, 0, len(judged) - 1), *judged]


def _prlimit() -> _Block:
    """A limit may be asked for; that on core files stays. The new limit is a pointer, of 64 bits."""
    code = [_argument(1), _op(_JEQ, _RLIMIT_CORE, 0, 4)]
    code += [_argument(2), _op(_JEQ, 0, 0, 3), _op(_LOAD, _ARGUMENTS + 8 * 2 + 4)]
    return [*code, _op(_JEQ, 0, 0, 1), _give(_ALLOW), _give(_AS_IF_DONE)]


def _socket() -> _Block:
    """UNIX of any type, INET and INET6 by protocol, NETLINK for routes only (getaddrinfo asks)."""
    code = [_argument(0), *_case((UNIX,), _ALLOW)]
    for family, protocols in PROTOCOLS.items():
        block = [_argument(2), *_case(protocols, _ALLOW), _give(_NO_PROTOCOL)]
        code += [_op(_JEQ, family, 0, len(block)), *block]
    block = [_argument(2), *_case((_NETLINK_ROUTE,), _ALLOW), _give(_NO_FAMILY)]
    return [*code, _op(_JEQ, NETLINK, 0, len(block)), *block, _give(_NO_FAMILY)]


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


def _give(verdict: int) -> bytes:
    return _op(_RET, verdict)


def _argument(index: int) -> bytes:
    return _op(_LOAD, _ARGUMENTS + 8 * index)


def _case(values: Sequence[int], verdict: int) -> _Block:
    code = []
    for value in values:
        code += [_op(_JEQ, value, 0, 1), _give(verdict)]
    return code
