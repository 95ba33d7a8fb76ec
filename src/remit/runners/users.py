"""The users that runs act as: one of the host for each place, where that can be had.

The host's root takes numbers of its own. Who is not root may have a range of subordinate numbers
(subuid(5)): the spawner then moves into a user namespace of its own, in which it is root and the
range is mapped by `newuidmap`, before it makes anything. Without either, runs act as the gateway's
own user, in a user namespace. Imported by the spawner: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass

_CLONE_NEWUSER = 0x1000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)
_MAPPERS = (("/usr/bin/newuidmap", "/etc/subuid"), ("/usr/bin/newgidmap", "/etc/subgid"))
_RANGES = ("/etc/subuid", "/etc/subgid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """`kind` is `host`, `subuid` or `one`; `privileged` says that namespaces of runs can be
    entered as root. `base` is the first number, as this process sees them."""

    kind: str = "one"
    base: int = 0
    privileged: bool = False

    def of(self, place: int, *, mounted: bool) -> int | None:
        """The user of a run. Each place has its own; runs with the operator's mounts share one,
        to which those directories can be given. None: this process's own."""
        if self.kind == "one" or (self.kind == "subuid" and mounted):
            return None
        return self.base if mounted else self.base + place

    @property
    def mounting(self) -> int | None:
        """The user of runs with mounts; None where it is the gateway's own."""
        return self.of(0, mounted=True)


def find_users(base: int, most: int) -> Users:
    """The users for as many places; moves this process into a namespace for them if it must."""
    if os.geteuid() == 0:
        kind = "host" if exist_here(base, base + most) else "one"
        return Users(kind=kind, base=base, privileged=True)
    ranges = [_range(path, most) for _, path in _MAPPERS]
    tools = all(os.access(tool, os.X_OK) for tool, _ in _MAPPERS)
    if not tools or None in ranges:
        return Users()
    mapped = [
        [str(number) for number in (0, own, 1, 1, first, most + 1)]
        for own, first in zip((os.geteuid(), os.getegid()), ranges, strict=True)
    ]
    return Users(kind="subuid", base=1, privileged=True) if _move(mapped) else Users()


def _range(path: str, most: int) -> int | None:
    """The first number of a range of this user that is long enough."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        import pwd

        names = {str(os.getuid())}
        with contextlib.suppress(KeyError):
            names.add(pwd.getpwuid(os.getuid()).pw_name)
        with open(path) as file:
            for line in file:
                owner, first, count = line.strip().split(":")
                if owner in names and int(count) > most:
                    return int(first)
    return None


def _move(mapped: list[list[str]]) -> bool:
    """Enter a new user namespace, whose maps a child outside it writes; whether that worked.

    Where the maps are refused, this process would be nobody: the child tries them first on a
    namespace of another child, so that nothing was lost.
    """
    return _mapped(mapped, trial=True) and _mapped(mapped, trial=False)


def _mapped(maps: list[list[str]], *, trial: bool) -> bool:
    entered_r, entered_w = os.pipe()
    done_r, done_w = os.pipe()
    target = os.fork() if trial else os.getpid()
    if target == 0:
        _LIBC.unshare(_CLONE_NEWUSER)
        os.write(entered_w, b"1")
        os.close(done_w)
        os.read(done_r, 1)
        os._exit(0)
    writer = os.fork()
    if writer == 0:
        os.read(entered_r, 1)
        codes = [
            os.spawnve(os.P_WAIT, tool, [tool, str(target), *arguments], {})  # noqa: S606
            for (tool, _), arguments in zip(_MAPPERS, maps, strict=True)
        ]
        os._exit(0 if codes == [0, 0] else 1)
    if not trial:
        _LIBC.unshare(_CLONE_NEWUSER)
        os.write(entered_w, b"1")
    _, status = os.waitpid(writer, 0)
    for fd in (entered_r, entered_w, done_r, done_w):
        os.close(fd)
    if trial:
        os.waitpid(target, 0)
    return status == 0


def others_of(first: int, last: int, files: Sequence[str] = _RANGES) -> str | None:
    """Who has some of these numbers as subordinate ones, and so can act as the users of runs:
    signal them, and read and write what belongs to them. None if nobody has."""
    for path in files:
        with contextlib.suppress(OSError), open(path) as file:
            for line in file:
                owner, *numbers = line.strip().split(":")
                if len(numbers) == 2 and all(each.isdecimal() for each in numbers):
                    begin, count = map(int, numbers)
                    if begin <= last and first < begin + count:
                        return owner
    return None


def exist_here(first: int, last: int) -> bool:
    """Whether these users and groups exist in this process's user namespace: root of a rootless
    container has few (user_namespaces(7))."""
    return all(_covers(path, first, last) for path in ("/proc/self/uid_map", "/proc/self/gid_map"))


def _covers(path: str, first: int, last: int) -> bool:
    with open(path) as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    return any(inside <= first and last < inside + count for inside, _, count in ranges)
