"""The same programs where a wall is missing. Nothing here may change the host."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remit.runners.bubblewrap import find
from tests.adversarial.hostile import Hostile, Without, given

INTERNET = Path(__file__).with_name("internet.py")
_PATIENCE_S = 30


def run_without(program: Hostile, facts: Mapping[str, Any]) -> bytes:
    """Its output where the wall is missing."""
    if program.without is None:
        raise ValueError(f"{program.name} has nowhere to succeed: {program.why}")
    argv = [*_around(program.without), *program.argv()]
    inherited = os.open("/", os.O_RDONLY)  # what a careless parent leaves open
    try:
        done = subprocess.run(
            argv,
            input=given(facts),
            capture_output=True,
            cwd=facts["scratch"],
            env={"PATH": "/usr/bin:/bin", "REMIT_MARKER": str(facts["marker"])},
            pass_fds=(inherited,),
            timeout=_PATIENCE_S,
        )
    finally:
        os.close(inherited)
    return done.stdout + done.stderr


def _around(without: Without) -> list[str]:
    match without:
        case Without.HOST | Without.PROXY:
            return []
        case Without.LOOSE:
            options = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
            return [_bwrap(), *options, "--unshare-pid", "--clearenv", "--"]
        case Without.CAPABLE:
            options = ["--dev-bind", "/", "/", "--proc", "/proc", "--cap-add", "ALL"]
            return [_bwrap(), "--unshare-user", "--uid", "0", "--unshare-pid", *options, "--"]
        case Without.NETWORK:
            return ["unshare", "--user", "--map-root-user", "--net", sys.executable, str(INTERNET)]


def _bwrap() -> str:
    found = find(None, for_others=False)
    if found is None:
        raise LookupError("bubblewrap is not there; mark the test with needs('bwrap')")
    return found.path


def run_at_terminal(program: Hostile, facts: Mapping[str, Any]) -> bytes:
    """Its output as a plain process whose session has a terminal."""
    reader, writer = os.pipe()
    os.write(writer, given(facts))
    os.close(writer)
    child, terminal = pty.fork()
    if child == 0:
        os.dup2(0, 9)  # the terminal stays open beside the standard input
        os.set_inheritable(9, True)
        os.dup2(reader, 0)
        os.execve(program.argv()[0], program.argv(), {})
    os.close(reader)
    said = b""
    while select.select([terminal], [], [], _PATIENCE_S)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # EIO: the other side is closed
            break
        said += part
    os.waitpid(child, 0)
    os.close(terminal)
    return said
