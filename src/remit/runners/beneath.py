"""Opening files below a directory that a hostile program may have filled: `openat2` (openat2(2)).

No symlink is followed, nothing outside is reached, no other file system entered. Imported by the
spawner: standard library only.
"""

from __future__ import annotations

import ctypes
import os

_SYS_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_LIBC = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def directory(path: str) -> int:
    """A descriptor of a directory that is itself no symlink.

    Raises:
        OSError: there is no such directory.
    """
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def plain_path(path: str) -> int:
    """A descriptor of whatever is at an absolute path that leads through no symlink.

    Raises:
        OSError: there is none.
    """
    return _open(-1, path, os.O_PATH, 0, _NO_MAGICLINKS | _NO_SYMLINKS)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` below the directory.

    Raises:
        OSError: it is not there, or would lead elsewhere.
    """
    resolve = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
    return _open(directory, path, flags, mode, resolve)


def _open(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    fd = _LIBC.syscall(
        _SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        raise OSError(ctypes.get_errno(), "openat2")
    return int(fd)
