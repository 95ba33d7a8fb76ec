"""OPA's bundle archives (.tar.gz), read and written in memory; nothing is ever unpacked to disk.

An archive may come from anyone. Its sizes are bounded before and while it is decompressed, and
`remit.policy.tar` takes no name or member that could mean two things.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from remit.errors import Code, ConfigError
from remit.policy.bundle import PolicyBundle, invalid, open_file, too_large
from remit.policy.content import assemble, files_of, limit_of
from remit.policy.signature import Verification, verify
from remit.policy.tar import members, pack

MAX_ARCHIVE_BYTES = 16 * 1024 * 1024
MAX_UNPACKED_BYTES = 40 * 1024 * 1024
MAX_FILES = 1024

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
"""RFC 1952 §2.3: deflate, no time, slowest and best, no operating system."""


def read_archive(
    content: bytes, *, verification: Verification | None = None, place: str = "the bundle"
) -> PolicyBundle:
    """The policy in an archive, unchecked but for names, sizes, JSON and, if asked, its signature.

    Args:
        content: the bytes of a `.tar.gz`.
        verification: what the archive must be signed with. None: a signature is not looked at.
        place: where it came from, for errors.

    Raises:
        ConfigError: `policy_invalid`, or `signature_invalid`.
    """
    files = unpack(content)
    if verification is not None:
        verify(files, verification)
    return assemble(files, place=place)


def write_archive(bundle: PolicyBundle) -> bytes:
    """The archive of a policy: the same bytes each time, named by the policy's own revision.

    Tests are left out: an engine that loads the archive gets what decides and nothing else.
    """
    return compress(files_of(bundle))


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of an archive by name, each within its limit.

    Raises:
        ConfigError: `policy_invalid`.
    """
    raw = _decompressed(content)
    files: dict[str, bytes] = {}
    for member in members(raw, most=MAX_FILES):
        if member.size > limit_of(member.name):
            raise too_large(member.name, limit_of(member.name))
        files[member.name] = raw[member.start : member.start + member.size]
    return files


def compress(files: Mapping[str, bytes]) -> bytes:
    """A `.tar.gz` of these files, the same bytes for the same files."""
    raw = pack(files)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(raw) + packer.flush()
    return _GZIP_HEADER + body + struct.pack("<LL", zlib.crc32(raw), len(raw) & 0xFFFFFFFF)


def read_file(path: Path) -> bytes:
    """The bytes of an archive file, if it is not too large.

    Raises:
        ConfigError: `config_not_found` or `policy_invalid`.
    """
    try:
        with open_file(path) as opened:
            content = opened.read(MAX_ARCHIVE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            "the policy does not exist",
            place=str(path),
            hint="`remit init` writes a starter policy; `remit policy build` makes a bundle",
        ) from None
    except OSError as error:
        raise invalid(f"cannot be read: {error.strerror}", str(path), None) from None
    check_size(len(content))
    return content


def write_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Put a file there whole, or leave what is there.

    Args:
        mode: its permissions if it is new, less what the umask takes; one that is replaced passes
            its own on.

    Raises:
        OSError: it cannot be written; nothing changed.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def check_size(size: int) -> None:
    """Refuse an archive of this many bytes if that is too large.

    Raises:
        ConfigError: `policy_invalid`.
    """
    if size > MAX_ARCHIVE_BYTES:
        raise too_large("the bundle", MAX_ARCHIVE_BYTES)


def _decompressed(content: bytes) -> bytes:
    """The one gzip member that this is (RFC 1952), whole, checked, and not too large."""
    check_size(len(content))
    hint = "a bundle is a tar archive, compressed once with gzip"
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        raw = unpacker.decompress(content, MAX_UNPACKED_BYTES + 1)
    except zlib.error:
        raise invalid("is not gzip, or is damaged", "the bundle", hint) from None
    if len(raw) > MAX_UNPACKED_BYTES:
        raise too_large("the unpacked bundle", MAX_UNPACKED_BYTES)
    if not unpacker.eof:
        raise invalid("ends before it is complete", "the bundle", hint)
    if unpacker.unused_data:
        raise invalid("has something after its end", "the bundle", hint)
    return raw
