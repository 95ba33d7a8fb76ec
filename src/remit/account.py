"""Whether the gateway's OS account, and the files it keeps, are its own (threat T-01).

Whoever runs as the gateway's account can read its keys and its ledger, and approve with the
operator's token. Remit cannot prevent that; it says so, in each receipt, until it is not so.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

_NO_LOGIN = frozenset({"nologin", "false"})
_EVERYBODYS = frozenset({"nobody"})
"""Accounts that cannot log in and are used by unrelated programs all the same."""

_READ_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH
_WRITE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def same_user() -> str | None:
    """Why people or agents may well run as this process's account; None if it seems its own."""
    return why_shared(os.geteuid(), _entry(os.geteuid()))


def why_shared(uid: int, entry: pwd.struct_passwd | None) -> str | None:
    """Why the account `uid`, with this entry in the password database, may be others' too.

    An account of the system that cannot log in is taken for one made for the gateway alone; that
    nobody starts an agent as it by other means is not checked.
    """
    if uid == 0:
        return "it runs as root"
    if entry is None:
        return f"uid {uid} has no account, so nothing says whose it is"
    if entry.pw_name in _EVERYBODYS:
        return f"it runs as {entry.pw_name}, which other programs use too"
    if os.path.basename(entry.pw_shell) not in _NO_LOGIN:
        return f"it runs as {entry.pw_name}, an account that people log in to"
    return None


def readable_by_others(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Those of the files that another account than this one and root may read.

    By owner, mode and the directories above; access lists are not looked at.
    """
    return tuple(path for path in paths if _open_to_others(path, _READ_BY_OTHERS))


def writable_by_others(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Those of the files and directories that another account than this one may change."""
    return tuple(path for path in paths if _open_to_others(path, _WRITE_BY_OTHERS))


def _open_to_others(path: Path, wanted: int) -> bool:
    try:
        found = path.stat()
        above = [parent.stat() for parent in path.resolve().parents]
    except OSError:
        return False
    if found.st_uid not in (0, os.geteuid()):
        return True
    return bool(found.st_mode & wanted) and all(each.st_mode & 0o011 for each in above)


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
