"""Landlock rules that a run's processes are under before bubblewrap begins (landlock(7)).

They are a wall behind the namespaces, of other code in the kernel. TCP (ABI 4): a run may connect
to its way out, where it has one, and may bind and connect to `OWN_PORTS`, so that a command can
start a server for itself; no other port. Scopes (ABI 6): no abstract socket of, and no signal to,
a process outside of the run. File rights are not touched: whoever is under such a rule may not
mount, and bubblewrap has to.

Rules of a process can never be taken off, and hold in whatever namespace it enters. Imported by
the spawner: standard library only.
"""

from __future__ import annotations

import ctypes
import functools
import os
import socket

from remit.runners.messages import EGRESS_PORT

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT, _SCOPE_SIGNAL = 1, 2
_RULE_NET_PORT = 2
_PR_SET_NO_NEW_PRIVS = 38
_ABI_NETWORK, _ABI_SCOPES = 4, 6

OWN_PORTS = range(8000, 8100)
"""Where a command of a run may listen, and what may connect to it is in the same run. A rule is of
one port and costs time at each start, so that not all can be named."""

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):  # struct landlock_ruleset_attr; a short size means zeros
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _NetPort(ctypes.Structure):  # struct landlock_net_port_attr
    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


@functools.cache
def abi() -> int:
    """The version of Landlock that this kernel has; 0 for none, or none that is switched on."""
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, 0, _VERSION)))


@functools.cache
def ruleset(egress: bool) -> int | None:
    """A descriptor of the rules of a run, for as many runs as there are; None: no kernel for it.

    Raises:
        OSError: the kernel has them and refuses these.
    """
    if abi() < _ABI_NETWORK:
        return None
    scoped = _SCOPE_ABSTRACT | _SCOPE_SIGNAL if abi() >= _ABI_SCOPES else 0
    rules = _Ruleset(handled_access_net=_BIND_TCP | _CONNECT_TCP, scoped=scoped)
    size = 24 if scoped else 16  # an older kernel knows no third field
    fd = _check(_LIBC.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0))
    allowed = dict.fromkeys(OWN_PORTS, _BIND_TCP | _CONNECT_TCP)
    if egress:
        allowed[EGRESS_PORT] = _CONNECT_TCP
    for port, access in allowed.items():
        rule = _NetPort(allowed_access=access, port=port)
        _check(_LIBC.syscall(_ADD_RULE, fd, _RULE_NET_PORT, ctypes.byref(rule), 0))
    return fd


def enter(fd: int) -> None:
    """Put the calling process under the rules, for good, and close them; only system calls.

    Raises:
        OSError: the kernel refuses; the caller must not go on.
    """
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_LIBC.syscall(_RESTRICT_SELF, fd, 0))
    os.close(fd)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return result


def holding() -> tuple[str, ...]:
    """Which of `network` and `scope` hold, tried out by a child of this process."""
    rules = ruleset(egress=False)
    if rules is None:
        return ()
    pid = os.fork()
    if pid == 0:
        try:
            enter(rules)
            os._exit(_tried())
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    seen = os.waitstatus_to_exitcode(status)
    return tuple(name for name, bit in (("network", 1), ("scope", 2)) if seen > 0 and seen & bit)


def _tried() -> int:
    """1 if TCP is refused, and 2 if a signal to the parent is."""
    seen = 0
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        try:
            client.connect(("127.0.0.1", 1))
        except PermissionError:
            seen |= 1
        except OSError:
            pass
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        seen |= 2
    return seen
