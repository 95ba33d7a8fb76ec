"""Make an import's changes whole or not at all, and take back the last one.

Before anything is changed, a record of it is kept in `<data_dir>/imports`, for its owner alone:
what was there, digests of what is there after, and which files and directories are new. A record
whose digests do not fit what stands there now takes nothing back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.cli.client_entry import Door
from remit.cli.client_file import backup_of, look, placed, write
from remit.cli.client_file import undo as put_back
from remit.cli.imports.taken_out import only_remit
from remit.errors import Code, ConfigError, Conflict, RemitError
from remit.servers.announced import Announced

SCHEMA = "remit.import/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A client's file that names the gateway instead of servers: whose, which, and of what names."""

    client: str
    path: Path
    names: tuple[str, ...]
    door: Door


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an import does to this installation.

    `files` are whole files by path: what was seen there, and what it becomes. `secrets` are new
    files of one line each, and `environments` directories that were made for it. `servers` says
    what was taken: a client's file, a JSON pointer into it, and the name in remit.yaml. `pins` are
    the files of what was seen of servers' tools, which are written after it.
    """

    data_dir: Path
    files: Mapping[Path, tuple[bytes, bytes]]
    secrets: Mapping[Path, str]
    environments: Sequence[Path]
    servers: Sequence[tuple[str, str, str]] = ()
    pins: Sequence[Path] = ()


def imported(data_dir: Path) -> Mapping[tuple[str, str], str]:
    """The names in remit.yaml of what was imported before, by client's file and JSON pointer."""
    found = {}
    for record in sorted((data_dir / "imports").glob("[0-9]*.json")):
        for path, pointer, name in _facts(record)["servers"]:
            found[path, pointer] = name
    return found


def make(changes: Changes) -> Path:
    """Change the files; gives the record by which `undo` takes it back.

    Raises:
        ConfigError, Conflict: something is in the way or changed meanwhile; nothing is changed.
    """
    made: list[Path] = []
    try:
        with placed(changes.data_dir):
            _own(changes.data_dir)
            for path, text in changes.secrets.items():
                _own(path.parent)
                _new(path, text.encode("utf-8") + b"\n", made)
            record = _kept(changes, made)
        _replace(changes.files)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                path.unlink()
        raise
    return record


def _replace(files: Mapping[Path, tuple[bytes, bytes]]) -> None:
    """Replace each file that still is what was seen; what was replaced is put back on an error."""
    done: list[tuple[Path, bytes]] = []
    try:
        for path, (before, after) in files.items():
            with placed(path):
                seen = look(path)
                if seen is None or seen.content != before:
                    raise Conflict(
                        Code.WRONG_STATE,
                        "the file changed while it was being edited; nothing was changed",
                        hint="import again",
                    )
                write(path, after, mode=seen.mode, owner=seen.owner, expected=seen)
            done.append((path, before))
    except BaseException:
        for path, before in reversed(done):
            with suppress(OSError, RemitError):
                seen = look(path)
                if seen is not None:
                    write(path, before, mode=seen.mode, owner=seen.owner)
        raise


def _own(directory: Path) -> None:
    """A directory for its owner alone; one that is there is taken as it is, a link is not."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink():
        raise ConfigError(
            Code.CONFIG_INVALID,
            "this is a symbolic link, which is not followed",
            place=str(directory),
            hint="put a directory there",
        )


def _new(path: Path, content: bytes, made: list[Path]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except FileExistsError:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "this is here already, and nothing is overwritten",
            place=str(path),
            hint="remove it if nothing of remit.yaml names it, or undo the last import",
        ) from None
    made.append(path)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, 0o600)
        file.write(content)
        file.flush()
        os.fsync(handle)


def _kept(changes: Changes, made: list[Path]) -> Path:
    home = changes.data_dir / "imports"
    _own(home)
    number = len(list(home.glob("*.json"))) + 1
    while (home / f"{number:04}.json").exists():
        number += 1
    files = []
    for place, (path, (before, after)) in enumerate(changes.files.items()):
        backup = home / f"{number:04}.{place}.before"
        _new(backup, before, made)
        files.append({"path": str(path), "backup": backup.name, "sha256": _digest(after)})
    record = {
        "schema": SCHEMA,
        "files": files,
        "secrets": [str(path) for path in changes.secrets],
        "environments": [str(path) for path in changes.environments],
        "pins": [str(path) for path in changes.pins],
        "servers": [list(each) for each in changes.servers],
        "clients": [],
    }
    _new(home / f"{number:04}.json", json.dumps(record, indent=2).encode() + b"\n", made)
    return home / f"{number:04}.json"


def note_rewritten(record: Path, one: Rewritten) -> None:
    """Add to a record that a client's file is rewritten; before it is, so that it can be undone."""
    facts = json.loads(record.read_text("utf-8"))
    door = one.door
    facts["clients"].append(
        {
            "client": one.client,
            "path": str(one.path),
            "names": list(one.names),
            "url": door.url,
            "usual_url": door.usual_url,
            "plain": door.plain,
            "key_file": None if door.key_file is None else str(door.key_file),
        }
    )
    with placed(record):
        write(record, json.dumps(facts, indent=2).encode() + b"\n", mode=0o600)


def undo(data_dir: Path) -> list[str]:
    """Take back the last import; gives a line about each thing that was put back.

    Raises:
        Conflict: `wrong_state`: there is none, or a file changed since; nothing is taken back.
    """
    records = sorted((data_dir / "imports").glob("[0-9]*.json"))
    if not records:
        raise _not_ours("no import is recorded here")
    facts = _facts(records[-1])
    rewritten = [_rewritten(each) for each in facts["clients"]]
    for one in rewritten:
        _check_rewritten(one)
    home, files = records[-1].parent, {}
    for each in facts["files"]:
        path = Path(each["path"])
        with placed(path):
            seen, kept = look(path), look(home / each["backup"])
        if seen is None or kept is None or _digest(seen.content) != each["sha256"]:
            raise _not_ours(f"{path.name} changed since", path)
        files[path] = (seen.content, kept.content)
    _replace(files)
    told = [f"{path} is as it was before" for path in files]
    for one in rewritten:
        if look(backup_of(one.path)) is not None:
            put_back(one.path, only_remit(one.client, one.names, one.door))
            told.append(f"{one.path} is as it was before")
    for name in (*facts["secrets"], *facts["pins"]):
        Path(name).unlink(missing_ok=True)
        told.append(f"removed {name}")
    Announced(data_dir / "servers" / "pins").forget(name for _, _, name in facts["servers"])
    for name in facts["environments"]:
        shutil.rmtree(name, ignore_errors=True)
        told.append(f"removed {name}")
    for each in facts["files"]:
        (home / each["backup"]).unlink(missing_ok=True)
    records[-1].unlink()
    return told


def _facts(record: Path) -> Mapping[str, Any]:
    try:
        facts: Mapping[str, Any] = json.loads(record.read_text("utf-8"))
        if facts["schema"] == SCHEMA:
            return facts
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise _not_ours("the record of the last import cannot be read", record)


def _rewritten(each: Mapping[str, Any]) -> Rewritten:
    key_file = each["key_file"]
    door = Door(
        url=each["url"],
        usual_url=each["usual_url"],
        plain=each["plain"],
        key_file=None if key_file is None else Path(key_file),
    )
    names = tuple(each["names"])
    return Rewritten(client=each["client"], path=Path(each["path"]), names=names, door=door)


def _check_rewritten(one: Rewritten) -> None:
    """Whether the client's file is what the import left; also if it never came to rewriting it."""
    with placed(one.path):
        seen, kept = look(one.path), look(backup_of(one.path))
    if kept is None:
        return
    try:
        left = only_remit(one.client, one.names, one.door)(kept.content)
    except RemitError:
        left = None
    if seen is None or left != seen.content:
        raise _not_ours(f"{one.path.name} changed since", one.path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _not_ours(why: str, place: Path | None = None) -> Conflict:
    return Conflict(
        Code.WRONG_STATE,
        f"nothing was taken back: {why}",
        place=None if place is None else str(place),
        hint="take the entries out by hand; backups are beside each file and in imports/ of the "
        "data directory",
    )


def examined(path: Path, content: bytes) -> list[ConfigError]:
    """What would be wrong with a configuration of this content at this place."""
    from remit.config import examine

    with placed(path):
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".remit-import-", suffix=".yaml")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            problems = examine(Path(beside))[1]
        finally:
            os.unlink(beside)
    for each in problems:
        each.place = each.place and each.place.replace(beside, str(path)).replace(
            os.path.basename(beside), path.name
        )
    return problems
