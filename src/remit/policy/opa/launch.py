"""From the gateway to `opa`: run as a file, gives up what OPA does not need, and becomes it.

    python launch.py PARENT MEMORY_MB BINARY ARGUMENT…

The kernel kills what this becomes when the thread that started it is gone, however it went.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_DIE_WITH_PARENT, _NO_NEW_PRIVILEGES, _KILL = 1, 38, 9
OPEN_FILES = 512


def confine(memory_mb: int, parent: int) -> None:
    """Limits, no new privileges, and an end with the parent.

    RLIMIT_DATA counts what may be written and is not shared; Go reserves addresses far beyond
    what it uses, so a limit on the address space would say nothing.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_DIE_WITH_PARENT, _KILL, 0, 0, 0)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if os.getppid() != parent:  # it went before the first line could take hold
            os._exit(0)
    os.umask(0o077)
    for limit, value in (
        (resource.RLIMIT_DATA, memory_mb * 1024 * 1024),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def environment(memory_mb: int) -> dict[str, str]:
    """All of OPA's environment: collect harder before the limit than die at it."""
    return {"GOMEMLIMIT": f"{memory_mb * 3 // 4}MiB"}


def main() -> None:
    parent, memory_mb, binary = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    confine(memory_mb, parent)
    os.execve(binary, sys.argv[3:], environment(memory_mb))  # noqa: S606 - no shell, by its path


if __name__ == "__main__":
    main()
