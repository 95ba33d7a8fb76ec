"""What a hostile program is: a few lines of Python, what they are after, and where they succeed.

Each prints `GOT ...` for whatever it gets at and `END` when it has tried everything. Contained is
one that comes to its end and got nothing. So that none passes because it is broken, each also runs
where the wall in question is missing, and has to get something there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PYTHON = "/usr/bin/python3"


class Without(StrEnum):
    """Where a program succeeds, which shows that it would notice a missing wall."""

    HOST = "host"
    """A plain process of this user."""
    LOOSE = "loose"
    """What `bwrap` gives whoever only asks for a read-only root and a process namespace."""
    CAPABLE = "capable"
    """The host's files in a user namespace of its own with every capability, and no filter."""
    NETWORK = "network"
    """A network namespace in which every address that programs try is there and answers."""
    PROXY = "proxy"
    """A proxy that goes wherever it is asked to, and injects a credential without a thought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One program.

    Args:
        threats: ids of docs/threat-model.md.
        source: Python, run after `PRELUDE`; `facts` has what was planted on the host.
        without: where it succeeds; None only with `why`.
        root: it succeeds there only as the host's root.
        signal: the signal that ends it in the sandbox, if one does.
    """

    name: str
    threats: tuple[str, ...]
    source: str
    without: Without | None
    root: bool = False
    why: str = ""
    signal: int | None = None

    def argv(self) -> tuple[str, ...]:
        return (PYTHON, "-I", "-S", "-c", f"{PRELUDE}\n{self.source}\nprint('END', flush=True)\n")


PRELUDE = """
import contextlib, ctypes, errno, json, os, platform, socket, stat, struct, sys
facts = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
def got(*what):
    print("GOT", *what, flush=True)
def refused():
    return contextlib.suppress(OSError)
def call(number, *arguments):
    "A system call by number; 0, or the error's name."
    ctypes.set_errno(0)
    words = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(number, *words) == -1 else 0
def read(path, size=4096):
    with open(path, "rb") as file:
        return file.read(size)
"""


def given(facts: Mapping[str, Any]) -> bytes:
    """What a program finds at its standard input."""
    return json.dumps(facts).encode()


def gains(output: bytes) -> list[str]:
    """What a program got at."""
    return [line for line in output.decode(errors="replace").splitlines() if line[:4] == "GOT "]
