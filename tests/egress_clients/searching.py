"""Everything that a live run holds, from outside: its memory, environment, descriptors and files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_SPAN = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r\S*)")
_STEP = 1 << 20


def memory(pid: int) -> Iterator[tuple[str, bytes]]:
    """All that can be read of a process's memory, by its mapping; pages of nothing left out."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if (span := _SPAN.match(line)) is None or "[vvar" in line or "[vsyscall]" in line:
                continue
            held = _held(file.fileno(), int(span[1], 16), int(span[2], 16))
            yield f"memory of {pid}: {line}", held


def _held(fd: int, start: int, end: int) -> bytes:
    found, empty = bytearray(), bytes(_STEP)
    while start < end:
        size = min(_STEP, end - start)
        try:
            data = os.pread(fd, size, start)
        except (OSError, OverflowError):
            data = b""  # such a page cannot be read by the process itself either
        if data and data != empty[: len(data)]:
            found += data
        start += len(data) or 4_096
    return bytes(found)


def texts(pid: int) -> Iterator[tuple[str, bytes]]:
    """Its environment and command line, and what is behind its descriptors."""
    for name in ("environ", "cmdline"):
        with contextlib.suppress(OSError):
            yield f"{name} of {pid}", Path(f"/proc/{pid}/{name}").read_bytes()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if target.startswith(("/memfd:", "/job", "/tmp", "/run", "/mnt")):
                with contextlib.suppress(OSError):
                    yield f"descriptor {fd} of {pid}", Path(f"/proc/{pid}/fd/{fd}").read_bytes()


def files(pid: int, tops: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The files below these directories, as the process sees them."""
    root = f"/proc/{pid}/root"
    for top in tops:
        for folder, _, names in os.walk(root + top):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if path.is_file() and not path.is_symlink():
                        yield f"file {str(path).removeprefix(root)}", path.read_bytes()


def everything(pids: Sequence[int], tops: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for pid in pids:
        yield from memory(pid)
        yield from texts(pid)
    for pid in pids:
        if apart(pid) and (seen := list(files(pid, tops))):  # all of them see the same
            yield from seen
            break


def apart(pid: int) -> bool:
    """Whether it sees other mounts than we do: what waits for a run outside sees this machine's."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    return False


def found(where: Iterator[tuple[str, bytes]], wanted: Sequence[bytes]) -> list[str]:
    """Where any of the wanted stands."""
    return [name for name, data in where if any(each in data for each in wanted)]
