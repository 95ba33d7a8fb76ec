"""Mounts base images, read-only, where nobody but the spawner and its runs ever sees them.

The spawner moves into a mount namespace of its own when the first image is needed, and covers
`/run` there with a tmpfs that holds the mounts: no host mount is made, and when the last process
of that namespace is gone, however it died, the kernel takes the mounts with it. `/run` is never
shown to a run (`mounts.source_fault`), so nothing is missed. Below the gateway's own state
directory the runs' users could not reach them. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from remit.runners.basedigest import BaseFault

_HOME = "/run"
_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REC, _MS_SLAVE = 1, 2, 4, 0x4000, 0x80000
_CLONE_NEWNS = 0x20000
_ENOTBLK = 15
_EROFS_AT, _EROFS = 1024, b"\xe2\xe1\xf5\xe0"  # the superblock's magic, little-endian
_SQUASHFS = b"hsqs"
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A  # linux/loop.h
_LO_READ_ONLY, _LO_AUTOCLEAR = 1, 4
_CAP_SYS_ADMIN = 21
_ATTEMPTS = 8


def unmountable() -> str | None:
    """Why this process cannot mount an image, or None: it takes the host's own root."""
    with open("/proc/self/uid_map") as mapped, open("/proc/self/status") as status:
        whole = mapped.read().split() == ["0", "0", "4294967295"]
        held = next(int(line[7:], 16) for line in status if line.startswith("CapEff:"))
    if not whole or not held >> _CAP_SYS_ADMIN & 1:
        return "an image can be mounted by the host's root only; unpack it and use a directory"
    return None if os.path.isdir(_HOME) else f"there is no {_HOME} to mount images in"


class Images:
    """The images that are mounted: each once, until this process ends."""

    def __init__(self) -> None:
        self._private = False

    def mount(self, fd: int, name: str) -> str:
        """Mount an open image file; give the directory. `name` is unique to the image.

        Raises:
            BaseFault: it is no file system that a base can be.
            OSError: it cannot be mounted.
        """
        kind = _kind(fd)
        self._hide()
        target = f"{_HOME}/remit-bases/{name}"
        os.makedirs(target, mode=0o755, exist_ok=True)
        try:
            _mount(f"/proc/self/fd/{fd}", target, kind)
        except OSError as exc:
            if exc.errno != _ENOTBLK:
                raise
            device, path = _loop(fd)
            try:
                _mount(path, target, kind)
            finally:
                os.close(device)  # the mount holds it now; else it clears itself
        return target

    def _hide(self) -> None:
        if self._private:
            return
        _check(_LIBC.unshare(_CLONE_NEWNS), "unshare")
        # A slave still hears of what the host unmounts, and tells it nothing.
        _check(_LIBC.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount")
        flags = _MS_NOSUID | _MS_NODEV
        options = b"mode=0755,size=1m"
        _check(_LIBC.mount(b"remit", _HOME.encode(), b"tmpfs", flags, options), "mount")
        old = os.umask(0o022)
        os.mkdir(f"{_HOME}/remit-bases", 0o755)
        os.umask(old)
        self._private = True


def _kind(fd: int) -> bytes:
    if os.pread(fd, 4, _EROFS_AT) == _EROFS:
        return b"erofs"
    if os.pread(fd, 4, 0) == _SQUASHFS:
        return b"squashfs"
    raise BaseFault("is neither an erofs nor a squashfs image")


def _mount(source: str, target: str, kind: bytes) -> None:
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _check(_LIBC.mount(os.fsencode(source), os.fsencode(target), kind, flags, None), "mount")


def _loop(fd: int) -> tuple[int, str]:
    """A read-only loop device over the file, which goes with its last user (loop(4))."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            # struct loop_config: fd, block_size, loop_info64 (whose lo_flags are at byte 52)
            info = bytearray(232)
            struct.pack_into("=I", info, 52, _LO_READ_ONLY | _LO_AUTOCLEAR)
            try:
                given = struct.pack("=II", fd, 0) + bytes(info) + bytes(64)
                fcntl.ioctl(device, _LOOP_CONFIGURE, given)
            except OSError:  # another process was faster
                os.close(device)
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError("no loop device")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
