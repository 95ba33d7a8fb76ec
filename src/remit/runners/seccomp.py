"""The seccomp filter of a run, assembled as classic BPF without any library.

What the filter does, in this order (`man 2 seccomp`, linux/seccomp.h):

1. a system call of another architecture, or of the x32 ABI, kills the process;
2. a system call newer than this list is answered ENOSYS, so that libraries fall back;
3. what makes namespaces, mounts, keys, traces, kernel modules or rings is answered EPERM;
4. `clone`, `socket`, `ioctl` and `personality` are judged by their arguments;
5. everything else is allowed: capabilities and namespaces bound it.

It is the second wall. The first is that the command has no capability in any namespace but one
it cannot use. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06

_KILL = 0x8000_0000
_ALLOW = 0x7FFF_0000
_EPERM = 0x0005_0000 | 1
_ENOSYS = 0x0005_0000 | 38
_NO_FAMILY = 0x0005_0000 | 97  # EAFNOSUPPORT: what a kernel without that family answers

_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

NEWEST_KNOWN = 462
"""`mseal`, Linux 6.10; numbers are common to all architectures from 424 on."""

_NEW_NAMESPACE = (
    0x0000_0080  # CLONE_NEWTIME
    | 0x0002_0000  # CLONE_NEWNS
    | 0x0200_0000  # CLONE_NEWCGROUP
    | 0x0400_0000  # CLONE_NEWUTS
    | 0x0800_0000  # CLONE_NEWIPC
    | 0x1000_0000  # CLONE_NEWUSER
    | 0x2000_0000  # CLONE_NEWPID
    | 0x4000_0000  # CLONE_NEWNET
)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What differs between machines: the audit number, the x32 bit, and system call numbers."""

    name: str
    audit: int
    x32: bool
    clone: int
    ioctl: int
    personality: int
    socket: int
    refused: dict[str, int]


_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}

X86_64 = Architecture(
    name="x86_64",
    audit=0xC000_003E,
    x32=True,
    clone=56,
    ioctl=16,
    personality=135,
    socket=41,
    refused={
        "acct": 163,
        "add_key": 248,
        "bpf": 321,
        "chroot": 161,
        "create_module": 174,
        "delete_module": 176,
        "fanotify_init": 300,
        "finit_module": 313,
        "get_kernel_syms": 177,
        "init_module": 175,
        "ioperm": 173,
        "iopl": 172,
        "kcmp": 312,
        "kexec_file_load": 320,
        "kexec_load": 246,
        "keyctl": 250,
        "lookup_dcookie": 212,
        "migrate_pages": 256,
        "modify_ldt": 154,
        "mount": 165,
        "move_pages": 279,
        "name_to_handle_at": 303,
        "nfsservctl": 180,
        "open_by_handle_at": 304,
        "perf_event_open": 298,
        "pivot_root": 155,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "ptrace": 101,
        "query_module": 178,
        "quotactl": 179,
        "reboot": 169,
        "request_key": 249,
        "setdomainname": 171,
        "sethostname": 170,
        "setns": 308,
        "settimeofday": 164,
        "swapoff": 168,
        "swapon": 167,
        "sysfs": 139,
        "syslog": 103,
        "umount2": 166,
        "unshare": 272,
        "uselib": 134,
        "userfaultfd": 323,
        "ustat": 136,
        "vhangup": 153,
        "vmsplice": 278,
        **_COMMON,
    },
)

AARCH64 = Architecture(
    name="aarch64",
    audit=0xC000_00B7,
    x32=False,
    clone=220,
    ioctl=29,
    personality=92,
    socket=198,
    refused={
        "acct": 89,
        "add_key": 217,
        "bpf": 280,
        "chroot": 51,
        "delete_module": 106,
        "fanotify_init": 262,
        "finit_module": 273,
        "init_module": 105,
        "kcmp": 272,
        "kexec_file_load": 294,
        "kexec_load": 104,
        "keyctl": 219,
        "lookup_dcookie": 18,
        "migrate_pages": 238,
        "mount": 40,
        "move_pages": 239,
        "name_to_handle_at": 264,
        "nfsservctl": 42,
        "open_by_handle_at": 265,
        "perf_event_open": 241,
        "pivot_root": 41,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "ptrace": 117,
        "quotactl": 60,
        "reboot": 142,
        "request_key": 218,
        "setdomainname": 162,
        "sethostname": 161,
        "setns": 268,
        "settimeofday": 170,
        "swapoff": 225,
        "swapon": 224,
        "syslog": 116,
        "umount2": 39,
        "unshare": 97,
        "userfaultfd": 282,
        "vhangup": 58,
        "vmsplice": 75,
        **_COMMON,
    },
)

ARCHITECTURES = {arch.name: arch for arch in (X86_64, AARCH64)}
_CLONE3 = 435  # its flags are behind a pointer, which a filter cannot read


def program(arch: Architecture) -> bytes:
    """The filter for one architecture, as the `struct sock_filter` array that bwrap reads."""
    code = [_op(_LOAD, _ARCH), *_unless(arch.audit, _KILL), _op(_LOAD, _NUMBER)]
    if arch.x32:
        code += [_op(_JGE, 0x4000_0000, 0, 1), _op(_RET, _KILL)]
    code += [_op(_JGE, NEWEST_KNOWN + 1, 0, 1), _op(_RET, _ENOSYS)]
    code += _when(_CLONE3, [_op(_RET, _ENOSYS)])
    for number in sorted(arch.refused.values()):
        code += _when(number, [_op(_RET, _EPERM)])
    code += _when(arch.clone, [_argument(0), _op(_JSET, _NEW_NAMESPACE, 0, 1), *_verdict()])
    code += _when(arch.ioctl, [_argument(1), *_refuse_values(_TIOCSTI, _TIOCLINUX)])
    code += _when(arch.personality, [_argument(0), *_allow_values(0, 0xFFFF_FFFF)])
    code += _when(arch.socket, _socket())
    code.append(_op(_RET, _ALLOW))
    return b"".join(code)


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


def _argument(index: int) -> bytes:
    """Load the low half of an argument: the kernel reads these four as 32-bit values."""
    return _op(_LOAD, _ARGUMENTS + 8 * index)


def _unless(value: int, action: int) -> list[bytes]:
    return [_op(_JEQ, value, 1, 0), _op(_RET, action)]


def _when(number: int, block: list[bytes]) -> list[bytes]:
    """`block` if the system call has this number; a block always returns."""
    return [_op(_JEQ, number, 0, len(block)), *block]


def _verdict() -> list[bytes]:
    return [_op(_RET, _EPERM), _op(_RET, _ALLOW)]


def _refuse_values(*values: int) -> list[bytes]:
    code = []
    for value in values:
        code += [_op(_JEQ, value, 0, 1), _op(_RET, _EPERM)]
    return [*code, _op(_RET, _ALLOW)]


def _allow_values(*values: int) -> list[bytes]:
    code = []
    for value in values:
        code += [_op(_JEQ, value, 0, 1), _op(_RET, _ALLOW)]
    return [*code, _op(_RET, _EPERM)]


def _socket() -> list[bytes]:
    """UNIX, INET and INET6 of any type, NETLINK for routes only (getaddrinfo asks it)."""
    code = [_argument(0)]
    for family in (_UNIX, _INET, _INET6):
        code += [_op(_JEQ, family, 0, 1), _op(_RET, _ALLOW)]
    code += [_op(_JEQ, _NETLINK, 1, 0), _op(_RET, _NO_FAMILY)]
    return [
        *code,
        _argument(2),
        _op(_JEQ, _NETLINK_ROUTE, 0, 1),
        _op(_RET, _ALLOW),
        _op(_RET, _NO_FAMILY),
    ]
