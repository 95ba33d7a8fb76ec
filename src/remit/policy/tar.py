"""A strict reader of tar archives in memory: regular files and directories, and nothing odd.

The standard library's reader passes over a broken header as if the archive ended there, and has
had headers that take it minutes. An archive from elsewhere is read here before anyone has vouched
for it, so each header is either wholly understood or the archive is refused.

Formats: POSIX ustar and pax (IEEE Std 1003.1-2017, pax, "ustar Interchange Format" and "pax Header
Block"), and the long names of GNU tar.
"""

from __future__ import annotations

import io
import tarfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from remit.errors import ConfigError
from remit.policy.bundle import invalid

BLOCK = 512
MAX_NAME_BYTES = 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_RECORDS = 64
"""Records of one pax header. Each takes longer to read than to make, before anyone vouched for it."""

_FILE, _DIRECTORY, _PAX, _PAX_GLOBAL, _GNU_NAME = b"0", b"5", b"x", b"g", b"L"
_END = bytes(2 * BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive: its clean name, and where its content lies."""

    name: str
    start: int
    size: int


def members(archive: bytes, *, most: int) -> list[Member]:
    """The regular files of an archive, in its order.

    Names come without the leading `/` that `opa build` writes, or the `./` of `tar -C DIR .`.

    Args:
        archive: the tar archive, not compressed.
        most: how many members it may have, directories included.

    Raises:
        ConfigError: `policy_invalid`: it is no whole archive, or has a member other than a file or
            directory, a name that is absolute, climbs, is not clean UTF-8 or stands twice.
    """
    found: list[Member] = []
    seen: set[str] = set()
    at, count = 0, 0
    name: str | None = None
    while archive[at : at + BLOCK].strip(b"\0"):
        header = _Header(archive, at)
        start = at + BLOCK
        at = start + -(-header.size // BLOCK) * BLOCK
        if at > len(archive):
            raise _broken("ends in the middle of a file")
        if header.kind in (_PAX, _PAX_GLOBAL, _GNU_NAME):
            if header.size > MAX_HEADER_BYTES or name is not None:
                raise _broken("has a header that is not understood")
            name = _long_name(header.kind, archive[start : start + header.size])
            continue
        clean = _clean(header.name if name is None else name, header.kind)
        name = None
        count += 1
        if count > most:
            raise invalid(f"has more than {most} files", None, "leave out what is not policy")
        if clean in seen:
            raise invalid("stands in the archive twice", clean, "write each file once")
        seen.add(clean)
        if header.kind == _FILE:
            found.append(Member(clean, start, header.size))
        elif header.size:
            raise _broken("has a directory with content")
    rest = archive[at:]
    if name is not None or len(rest) < len(_END) or rest.strip(b"\0"):
        raise _broken("does not end as an archive does")
    return found


def pack(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of these files: sorted, with no time and no owner; the same every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class _Header:
    """One header block, its checksum checked."""

    __slots__ = ("kind", "name", "size")

    def __init__(self, archive: bytes, at: int) -> None:
        block = archive[at : at + BLOCK]
        if len(block) < BLOCK:
            raise _broken("ends in the middle of a header")
        blank = block[:148] + b" " * 8 + block[156:]
        if sum(blank) != _octal(block[148:156]):
            raise _broken("has a header that is damaged")
        self.size = _octal(block[124:136])
        self.kind = b"0" if block[156:157] == b"\0" else block[156:157]
        if self.kind not in (_FILE, _DIRECTORY, _PAX, _PAX_GLOBAL, _GNU_NAME):
            raise invalid(
                "the archive has a link, a device or another kind of member",
                None,
                "a bundle has files and directories only",
            )
        name = _field(block[:100])
        prefix = _field(block[345:500]) if block[257:263] == b"ustar\0" else b""
        self.name = _text(prefix + b"/" + name if prefix else name)


def _long_name(kind: bytes, content: bytes) -> str | None:
    """The name that an extra header gives to the member after it; None if it gives none."""
    if kind == _GNU_NAME:
        return _text(_field(content))
    name: str | None = None
    count = 0
    while content:
        count += 1
        if count > MAX_RECORDS:
            raise _broken(f"has a pax header of more than {MAX_RECORDS} records")
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6:
            raise _broken("has a pax header that is damaged")
        record, content = content[: int(length)], content[int(length) :]
        key, sign, value = record[len(length) + 1 :].partition(b"=")
        if len(record) != int(length) or not sign or not value.endswith(b"\n"):
            raise _broken("has a pax header that is damaged")
        if key == b"path" and kind == _PAX and name is None:
            name = _text(value[:-1])
        elif key in (b"path", b"size", b"linkpath") or key.startswith(b"GNU.sparse"):
            raise _broken("has a pax header that changes what a member is")
    return name


def _clean(name: str, kind: bytes) -> str:
    """The name below the bundle's top.

    Raises:
        ConfigError: it leads elsewhere, or two readers could take it for different names.
    """
    trimmed = name.removeprefix("/") if name.startswith("/") else name.removeprefix("./")
    if kind == _DIRECTORY:
        trimmed = trimmed.removesuffix("/")
        if trimmed in ("", "."):
            return "."
    steps = trimmed.split("/")
    if (
        any(step in ("", ".", "..") for step in steps)
        or len(name.encode()) > MAX_NAME_BYTES
        or "\\" in name
        or any(unicodedata.category(character).startswith("C") for character in name)
    ):
        raise invalid(
            "the archive has a name that is absolute, climbs, or has odd characters",
            None,
            "name files relative to the bundle's top",
        )
    return trimmed


def _field(block: bytes) -> bytes:
    return block.partition(b"\0")[0]


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise _broken("has a name that is not UTF-8") from None


def _octal(block: bytes) -> int:
    digits = block.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise _broken("has a header that is damaged")
    return int(digits, 8)


def _broken(what: str) -> ConfigError:
    return invalid(f"the archive {what}", None, "make it again: `remit policy build`, or tar czf")
