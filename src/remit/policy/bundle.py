"""A policy as one value with its revision, and the reading of one from a directory or an archive."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from remit import canonical
from remit.errors import Code, ConfigError

MAX_MODULE_BYTES = 256 * 1024
MAX_MODULES = 64
MAX_DATA_BYTES = 16 * 1024 * 1024
TEST_SUFFIX = "_test.rego"
DEFAULT_ENTRIES = ("remit",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundle:
    """A policy that may be loaded.

    `revision` is a digest over what decides: the modules, the data and the entries. `tests` are
    the `*_test.rego` modules; they are never loaded for decisions and not part of the revision.
    `label` is what its maker called it (the revision in its `.manifest`), for people only.
    `entries` are the packages that are asked; each has a rule `decision` and a rule `visible`.
    """

    modules: Mapping[str, str]
    data: Mapping[str, Any]
    revision: str
    tests: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    entries: tuple[str, ...] = DEFAULT_ENTRIES


def load_bundle(path: Path) -> PolicyBundle:
    """Read and check the policy in a directory or an archive.

    Raises:
        ConfigError: as `read_bundle`, or `policy_invalid` with the file and line of the first
            thing that the portable profile refuses, what it is, and how to mend it.
    """
    from remit.policy.lint import lint

    bundle = read_bundle(path)
    findings = lint(bundle)
    if findings:
        raise findings[0].error(of=len(findings))
    return bundle


def read_bundle(path: Path) -> PolicyBundle:
    """The policy in a directory or an archive (.tar.gz), unchecked but for names, sizes and JSON.

    A directory and the archive of it give the same revision. From a directory everything hidden
    is left out but its `.manifest`, and `data.*.json` directly in it counts as data too. A
    signature is not looked at: `remit.policy.source` does that.

    Raises:
        ConfigError: `config_not_found` or `policy_invalid`.
    """
    from remit.policy.archive import read_archive, read_file
    from remit.policy.content import assemble

    if path.is_file():
        return read_archive(read_file(path))
    if not path.is_dir():
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            "the policy directory does not exist",
            place=str(path),
            hint="`remit init` writes a starter policy",
        )
    return assemble(directory_files(path), place=str(path), directory=True)


def directory_files(path: Path) -> dict[str, bytes]:
    """The files of a policy directory that mean something, by their names below it.

    Raises:
        ConfigError: `policy_invalid`: one cannot be read, is too large, or does not belong there.
    """
    from remit.policy.content import limit_of, means_something

    def unread(error: OSError) -> None:
        # A directory that is passed over could be the one with the denials.
        raise invalid(f"cannot be read: {error.strerror}", str(error.filename), None)

    files: dict[str, bytes] = {}
    for name in sorted(_names(path, unread)):
        if means_something(name):
            files[name] = _read(path / name, name, limit_of(name))
    return files


def directory_mark(path: Path) -> tuple[object, ...]:
    """Something that changes when a file of the policy in a directory does, or comes or goes."""
    from remit.policy.content import means_something

    unread: list[object] = []
    names = sorted(_names(path, lambda error: unread.append(error.filename)))
    marks = [(name, mark_of(path / name)) for name in names if means_something(name)]
    return (*marks, *unread)


def mark_of(path: Path) -> object:
    """Something that changes when a file does; None if it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def open_file(path: Path) -> BinaryIO:
    """A regular file, open to be read; whoever opens a pipe waits for whoever writes to it.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no file")
    return os.fdopen(handle, "rb")


def bundle_of(
    modules: Mapping[str, str],
    data: Mapping[str, Any],
    tests: Mapping[str, str] | None = None,
    *,
    label: str = "",
    entries: tuple[str, ...] = DEFAULT_ENTRIES,
) -> PolicyBundle:
    """A bundle with its revision, unchecked."""
    content: dict[str, Any] = {"modules": dict(modules), "data": dict(data)}
    if entries != DEFAULT_ENTRIES:
        content["entries"] = list(entries)
    return PolicyBundle(
        modules=modules,
        data=data,
        tests={} if tests is None else tests,
        revision=canonical.digest_of("remit.policy-bundle/1", content),
        label=label,
        entries=entries,
    )


def _names(path: Path, unread: Callable[[OSError], None]) -> Iterator[str]:
    for directory, below, files in os.walk(path, onerror=unread):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            found = (Path(directory) / name).relative_to(path).as_posix()
            if not name.startswith(".") or found == ".manifest":
                yield found


def _read(file: Path, name: str, most: int) -> bytes:
    try:
        with open_file(file) as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise invalid(f"cannot be read: {error.strerror}", name, None) from None
    if len(content) > most:
        raise too_large(name, most)
    return content


def too_large(name: str, most: int) -> ConfigError:
    return invalid(f"is larger than {most // 1024} KiB", name, "split it")


def invalid(message: str, place: str | None, hint: str | None) -> ConfigError:
    """A policy that cannot be taken: what is wrong, where, and how to mend it."""
    return ConfigError(Code.POLICY_INVALID, message, place=place, hint=hint)
