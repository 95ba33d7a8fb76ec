"""One `opa` process as the gateway sees it: how it is started, what it says last, its death."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from remit.errors import Code, ConfigError
from remit.policy.opa.workspace import POLICY, PROBE

LAUNCH = str(Path(__file__).with_name("launch.py"))
KEPT = 8192
"""Bytes of what it prints that are kept, the first ones: why it did not start stands there."""

_CONTROL = re.compile(r"[^\x20-\x7e]+")


def check_binary(binary: Path) -> None:
    """See that this is a program that may be run as the gateway.

    Does not check what it is: its answers have to name their version and pass the probes.

    Raises:
        ConfigError: `config_not_found`, or `config_invalid` where anyone may change it.
    """
    try:
        found = binary.stat()
    except OSError:
        raise _config(
            Code.CONFIG_NOT_FOUND,
            "the OPA binary that is named there does not exist",
            "install a release of OPA there, or name where it is; 1.22.2 is tested",
        ) from None
    if not stat.S_ISREG(found.st_mode) or not os.access(binary, os.X_OK):
        raise _config(
            Code.CONFIG_INVALID, "the OPA binary is no program that may be run", "chmod +x it"
        )
    if found.st_mode & stat.S_IWOTH:
        raise _config(Code.CONFIG_INVALID, "every user may change the OPA binary", "chmod o-w it")


def serving(socket_name: str) -> list[str]:
    """The arguments of a server that holds the two bundles and listens at one Unix socket only."""
    return [
        "run",
        "--server",
        f"--addr=unix://{socket_name}",
        "--unix-socket-perm=600",
        "--log-level=error",  # not also --log-level-request: that logs each request as an error
        "--log-format=json",
        "--skip-version-check",  # else it asks a server of its makers
        "--set=decision_logs.console=false",
        "--bundle",
        POLICY,
        PROBE,
    ]


def command(binary: Path, memory_mb: int, arguments: Sequence[str]) -> list[str]:
    """How any `opa` is started: with nothing of ours, and to die with us."""
    return [
        sys.executable, "-I", "-S", "-B", LAUNCH,
        str(os.getpid()), str(memory_mb), str(binary), *arguments,
    ]  # fmt: skip


def refused_by(binary: Path, directory: Path, *, memory_mb: int, timeout_s: float) -> bool | None:
    """Whether `opa check` refuses the Rego in a directory; None if it cannot be asked.

    Waits, so it belongs in a thread.
    """
    try:
        done = subprocess.run(
            command(binary, memory_mb, ["check", "--format=json", str(directory)]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return False
    return True if b"rego_type_error" in done.stderr else None


class OpaProcess:
    """A started server. `gone` is set once it has ended and was reaped."""

    def __init__(self, binary: Path, directory: Path, socket_name: str, *, memory_mb: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._said = bytearray()
        self.gone = asyncio.Event()
        self.socket_name = socket_name
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(theirs, True)
        try:
            # Started from the loop's own thread: the kernel ends a child with the *thread* that
            # made it, and a thread of a pool may go while the gateway lives on.
            self._process = subprocess.Popen(
                command(binary, memory_mb, serving(socket_name)),
                stdin=subprocess.DEVNULL,
                stdout=theirs,  # where it says why it does not start
                stderr=theirs,
                env={},
                cwd=directory,
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._pipe = ours
        self._reaping: asyncio.Task[None] | None = None
        self._loop.add_reader(ours, self._readable)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._reaping is None

    def says(self) -> str:
        """Why it did not start, in its own words: the first two lines that are none of its log.

        Its log lines are left out: they may hold values.
        """
        lines = self._said.decode("utf-8", errors="replace").splitlines()
        plain = [line for line in lines if line.strip() and not line.startswith(("{", "Flag "))]
        return _CONTROL.sub(" ", " ".join(plain[:2]))[:500]

    def kill(self) -> None:
        """End it now, whatever it is doing."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def end(self) -> None:
        """Kill it and wait until it is gone and reaped."""
        self.kill()
        await self.gone.wait()

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._said += data[: KEPT - len(self._said)]
            return
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        self._reaping = self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        """Nothing of it can print any more, so it is going or should be."""
        self.kill()
        await asyncio.to_thread(self._process.wait)
        self.gone.set()


def _config(code: Code, message: str, hint: str) -> ConfigError:
    return ConfigError(code, message, place="policy.opa.binary", hint=hint)
