"""The base systems that runs of this spawner may see, each checked before it is first shown.

The check hashes the whole base, which takes up to seconds for a large one, so a child makes it
while the spawner serves others. What is trusted afterwards is that its operator does not change
it: it has to belong to root or to this process's user, and to be writable by nobody else.
Imported by the spawner: standard library only.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from remit.runners.basedigest import BaseFault, file_digest, tree_digest
from remit.runners.images import Images, unmountable
from remit.runners.jail import base_options, laid_over, packed, tree_options
from remit.runners.mounts import reachable
from remit.runners.request import BaseWanted
from remit.runners.wire import close_all, read_file

_PATIENCE_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base that stands: its directory in the spawner's mount namespace, its options packed, and
    which system files go over its own (None: it has no `/etc` of its own)."""

    root: str
    options: bytes
    over: tuple[str, ...] | None


Answer = Callable[["Base | str"], None]


class Watching(Protocol):
    """What is needed of the spawner's loop."""

    def watch(self, fd: int, call: Callable[[], None]) -> None: ...
    def forget(self, fd: int) -> None: ...


class Bases:
    """All bases by what was asked for. An answer is a base, or why there is none."""

    def __init__(self, loop: Watching) -> None:
        self._loop = loop
        self._images = Images()
        self._stand: dict[BaseWanted, Base] = {
            BaseWanted(): Base(root="/", options=packed(base_options()), over=None)
        }
        self._asked: dict[BaseWanted, list[Answer]] = {}

    def find(self, wanted: BaseWanted) -> Base | None:
        """The base, if it was checked."""
        return self._stand.get(wanted)

    def check(self, wanted: BaseWanted, uid: int | None, answer: Answer) -> None:
        """Check a base in a child and answer later; `uid` is who has to reach it.

        Raises:
            OSError: no child could be made.
        """
        if wanted in self._asked:
            self._asked[wanted].append(answer)
            return
        said = os.memfd_create("base", os.MFD_CLOEXEC)
        image = -1
        try:
            image = _open_image(wanted)
            child = _fork_check(wanted, image, said, uid)
        except (OSError, BaseFault) as exc:
            close_all([fd for fd in (said, image) if fd >= 0])
            answer(_fault(exc))
            return
        self._asked[wanted] = [answer]
        watched = os.pidfd_open(child)

        def done() -> None:
            self._loop.forget(watched)
            os.close(watched)
            _, status = os.waitpid(child, 0)
            found = read_file(said, 4096).decode("utf-8", "replace")
            fault = found or ("could not be checked" if status else "")
            self._settle(wanted, image, fault)
            close_all([fd for fd in (said, image) if fd >= 0])

        self._loop.watch(watched, done)

    def _settle(self, wanted: BaseWanted, image: int, fault: str) -> None:
        answer: Base | str = f"the base {fault}"
        if not fault:
            try:
                root = wanted.path
                if image >= 0:
                    root = self._images.mount(image, wanted.digest.removeprefix("sha256:"))
                options = packed(tree_options(root))
                answer = Base(root=root, options=options, over=laid_over(root))
                self._stand[wanted] = answer
            except (OSError, ValueError) as exc:
                answer = _fault(exc)
        for each in self._asked.pop(wanted, []):
            each(answer)


def _fault(exc: Exception) -> str:
    said = exc.strerror if isinstance(exc, OSError) else str(exc)
    return f"the base {said}" if isinstance(exc, BaseFault) else f"the base cannot be used ({said})"


def _open_image(wanted: BaseWanted) -> int:
    if wanted.kind != "image":
        return -1
    if (fault := unmountable()) is not None:
        raise BaseFault(f"cannot be used: {fault}")
    return os.open(wanted.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _fork_check(wanted: BaseWanted, image: int, said: int, uid: int | None) -> int:
    child = os.fork()
    if child:
        return child
    try:
        signal.alarm(_PATIENCE_S)
        os.write(said, (_examine(wanted, image, uid) or "").encode())
        os._exit(0)
    finally:
        os._exit(1)


def _examine(wanted: BaseWanted, image: int, uid: int | None) -> str | None:
    """Why this is not the base that was asked for, or is not safe from others; None if it is."""
    owners = {0, os.geteuid()}
    try:
        if fault := path_fault(wanted.path, owners):
            return fault
        if image >= 0:
            facts = os.fstat(image)
            if not stat.S_ISREG(facts.st_mode):
                return "is not a file"
            if facts.st_uid not in owners or facts.st_mode & 0o022:
                return "can be written by others than its operator"
            found = file_digest(image)
        else:
            if uid is not None and not reachable(wanted.path, uid):
                return f"cannot be reached by user {uid}, as which runs act"
            found = tree_digest(wanted.path, owners=owners)
    except BaseFault as exc:
        return str(exc)
    except OSError as exc:
        return f"cannot be read ({exc.strerror})"
    return None if found == wanted.digest else "has another digest than the configuration says"


def path_fault(path: str, owners: Collection[int]) -> str | None:
    """Why others than these users could put something else at this path, or None."""
    if not path.startswith("/") or path.startswith("//") or os.path.normpath(path) != path:
        return "is not at an absolute, plain path"
    if path == "/" or os.path.realpath(path) != path:
        return "is at a path that leads through a symbolic link"
    above = os.path.dirname(path)
    while True:
        facts = os.stat(above)
        # In a sticky directory nobody can rename what is another's.
        open_to_all = facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX
        if facts.st_uid not in owners or open_to_all:
            return "is below a directory that others than its operator can write"
        if above == "/":
            return None
        above = os.path.dirname(above)
