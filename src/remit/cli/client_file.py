"""Change a client's file so that it can be put back: a backup first, whole or not at all.

Nothing is recorded of what was written: `undo` makes it anew from the backup, and puts the backup
back only if that is, byte for byte, what stands there.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from remit.errors import Code, ConfigError, Conflict, RemitError

MAX_BYTES = 8 * 1024 * 1024
"""The largest file of a client that is edited, in bytes."""

NEW_MODE, BACKUP_MODE = 0o644, 0o600

Edit = Callable[[bytes | None], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A file as it was read."""

    content: bytes
    mode: int
    owner: tuple[int, int]


def backup_of(path: Path) -> Path:
    """Where the backup of a file is."""
    return path.with_name(f"{path.name}.remit-backup")


def install(path: Path, edit: Edit) -> Path | None:
    """Edit the file; its first state, if any, is kept beside it for its owner alone.

    Returns:
        The file's backup; None if there was no file, or nothing had to change.

    Raises:
        ConfigError: `config_invalid`: the file cannot be read, written or edited; a symbolic
            link and whatever is not a regular file is left alone.
        Conflict: `wrong_state`: it holds something else already, or changed meanwhile.
    """
    with placed(path):
        seen = look(path)
        after = edit(seen.content if seen else None)
        if seen is None:
            path.parent.mkdir(exist_ok=True)
            write(path, after, mode=NEW_MODE, expected=None)
            return None
        if after == seen.content:
            return None
        kept = backup_of(path)
        write(kept, seen.content, mode=BACKUP_MODE, owner=seen.owner)
        write(path, after, mode=seen.mode, owner=seen.owner, expected=seen)
        return kept


def undo(path: Path, edit: Edit) -> bool:
    """Put the file back as it was before `install` with the same edit.

    Returns:
        Whether there was a file before; if not, it has been removed.

    Raises:
        ConfigError: `config_invalid`: a file cannot be read or written.
        Conflict: `wrong_state`: the file is not what `install` wrote; nothing changed.
    """
    with placed(path):
        seen, kept = look(path), look(backup_of(path))
        if seen is None:
            raise _not_ours("there is no such file, so nothing was installed in it")
        if kept is not None and _made_from(kept.content, edit) == seen.content:
            write(path, kept.content, mode=seen.mode, owner=seen.owner, expected=seen)
            os.unlink(backup_of(path))
            return True
        if edit(None) == seen.content:
            _unchanged(path, seen)
            os.unlink(path)
            return False
        if kept is None:
            raise _not_ours("there is no backup beside it")
        raise _not_ours("it is not what --install with these options wrote, or changed since")


def _made_from(content: bytes, edit: Edit) -> bytes | None:
    with suppress(RemitError):
        return edit(content)
    return None


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Names the file in every error, and turns the system's errors into ours."""
    try:
        yield
    except RemitError as error:
        error.place = error.place or str(path)
        raise
    except OSError as error:
        raise _unusable(
            f"the file cannot be read or changed: {error.strerror}",
            "make its directory and be its owner, or name another file",
            path,
        ) from None


def look(path: Path) -> Seen | None:
    """What a file holds and whose it is; None if there is none.

    Raises:
        ConfigError: `config_invalid`: a symbolic link, no regular file, or one that is too large.
        OSError: it cannot be read.
    """
    try:
        # Not blocking: a pipe of that name would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        if path.is_symlink():
            raise _unusable(
                "this is a symbolic link, which is not followed",
                "name the file that it leads to",
                path,
            ) from None
        raise
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise _unusable("this is not a regular file", "name another", path)
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _unusable(f"the file is larger than {MAX_BYTES} bytes", "add the entry by hand", path)
    owner = (facts.st_uid, facts.st_gid)
    return Seen(content=content, mode=stat.S_IMODE(facts.st_mode), owner=owner)


_ANYTHING = object()


def write(
    path: Path,
    content: bytes,
    *,
    mode: int,
    owner: tuple[int, int] | None = None,
    expected: object = _ANYTHING,
) -> None:
    """Put a file there whole; what is there must be what was seen, unless anything may be."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".remit-")
    try:
        with os.fdopen(handle, "wb") as file:
            facts = os.fstat(handle)
            if owner is not None and owner != (facts.st_uid, facts.st_gid):
                os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            file.write(content)
            file.flush()
            os.fsync(handle)
        if expected is not _ANYTHING:
            _unchanged(path, expected)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _unchanged(path: Path, expected: object) -> None:
    if look(path) != expected:
        raise Conflict(
            Code.WRONG_STATE,
            "the file changed while it was being edited; it was left alone",
            hint="close the client, then try again",
        )


def _not_ours(message: str) -> Conflict:
    return Conflict(
        Code.WRONG_STATE,
        f"nothing was put back: {message}",
        hint="name the same file, --url and --key-file as with --install, or take the `remit` "
        "entry out by hand",
    )


def _unusable(message: str, hint: str, path: Path) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, place=str(path), hint=hint)
