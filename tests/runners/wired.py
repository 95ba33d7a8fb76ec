"""The spawner alone, spoken to over its socket as the gateway does: for tests of its own half."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remit.runners.bubblewrap import find
from remit.runners.wire import close_all, receive, sealed_file, send
from tests.plugins.machine import ROOT

LIMITS = {
    "wall_s": 15,
    "memory_mb": 128,
    "pids": 32,
    "cpu_percent": 100,
    "tmp_mb": 8,
    "open_files": 256,
}
UID_BASE = 300_000
_numbers = itertools.count(1)


def name(kind: str = "run") -> str:
    return f"{kind}-{os.getpid()}-{next(_numbers)}"


class Wired:
    """One spawner. Reports that come out of turn are kept."""

    def __init__(
        self,
        state: Path,
        interpreter: str = sys.executable,
        runsc: dict[str, str] | None = None,
        bwrap: str | None = None,
    ) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(ROOT / "src/remit/runners/spawner.py")
        with theirs:
            number = theirs.fileno()
            argv = [interpreter, "-I", "-S", script, str(number)]
            self.process = subprocess.Popen(argv, env={}, cwd="/", pass_fds=[number])
        self._kept: list[tuple[dict[str, Any], list[int]]] = []
        found = find(None, for_others=True)
        assert found is not None
        self.tell(
            op="hello",
            gateway=f"wired-{os.getpid()}",
            state=str(state),
            bwrap=bwrap or found.path,
            uid_base=UID_BASE,
            max_runs=8,
            max_slots=8,
            runsc=runsc,
        )
        self.hello = self.hear("ready")[0]

    def tell(self, fds: tuple[int, ...] | list[int] = (), **message: Any) -> None:
        send(self.control, message, fds)
        close_all(fds)

    def hear(self, *kinds: str, lease: str | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next report of one of these kinds, of this lease if one is given."""
        for at, (message, fds) in enumerate(self._kept):
            if message["ev"] in kinds and lease in {None, message.get("lease")}:
                del self._kept[at]
                return message, fds
        until = time.monotonic() + 20
        while select.select([self.control], [], [], max(0.0, until - time.monotonic()))[0]:
            received = receive(self.control)
            assert received is not None, "the spawner ended"
            message, fds = received
            if message["ev"] in kinds and lease in {None, message.get("lease")}:
                return message, fds
            self._kept.append((message, fds))
        raise AssertionError(f"no {kinds} in time, but {self._kept}")

    # -------------------------------------------------------------------------- a cold run

    def provision(self, *argv: str, fds=(), stdin: bytes = b"", **more: Any) -> tuple[str, Out]:
        """Ask for a sandbox; give its lease and its output."""
        out = Out()
        lease = more.pop("lease", None) or name()
        given = [source(stdin), *out.give(), *fds]
        self.tell(given, **request("provision", lease=lease, argv=argv, **more))
        return lease, out

    def speak(self, *argv: str, **more: Any) -> tuple[str, int, int]:
        """A held run that is spoken with: its lease, the end to write to, the end to read."""
        lease = name()
        message = request("provision", lease=lease, argv=argv, dialogue=True, **more)
        self.tell([mute()], **message)
        _, (feeding, hearing) = self.hear("piped", lease=lease)
        assert self.hear("provisioned", "refused", lease=lease)[0]["ev"] == "provisioned"
        return lease, feeding, hearing

    def start(self, lease: str, **credentials: bytes) -> dict[str, Any]:
        fds = [sealed_file("credential", value) for value in credentials.values()]
        self.tell(fds, op="start", lease=lease, credentials=list(credentials))
        return self.hear("started", "refused", lease=lease)[0]

    def run(self, *argv: str, **more: Any) -> tuple[bytes, dict[str, Any]]:
        """A whole cold run: its output (with what went to stderr) and its end."""
        lease, out = self.provision(*argv, **more)
        assert self.hear("provisioned", "refused", "ended", lease=lease)[0]["ev"] == "provisioned"
        self.start(lease)
        said = out.read()
        return said, self.hear("ended", lease=lease)[0]

    # ------------------------------------------------------------------------------- slots

    def park(self, kind: str, *prefix: str, fds=(), **more: Any) -> tuple[str, Out, list[int]]:
        """A slot that stands: its name, its output and what came with the report."""
        out, slot = Out(), name("slot")
        given = [*out.give(), *fds]
        message = request("park", lease=slot, **more)
        self.tell(given, **{**message, "kind": kind, "prefix": prefix})
        report, fds = self.hear("parked", "refused", "ended", lease=slot)
        assert report["ev"] == "parked", (report, out.read())
        return slot, out, fds

    def claim(self, slot: str, *argv: str, stdin: bytes = b"", files=(), **more: Any) -> str:
        lease = name()
        fds = [source(stdin), *(sealed_file("file", data) for _, data in files)]
        message = request("claim", lease=lease, argv=argv, **more)
        self.tell(fds, **{**message, "slot": slot, "files": [path for path, _ in files]})
        return lease

    def become(self, slot: str, out: Out, *argv: str, **more: Any) -> tuple[bytes, dict[str, Any]]:
        """Claim, start, and wait for the end of a slot."""
        lease = self.claim(slot, *argv, **more)
        report = self.hear("claimed", "refused", lease=lease)[0]
        assert report["ev"] == "claimed", report
        self.start(lease)
        said = out.read()
        return said, self.hear("ended", lease=lease)[0]

    def close(self) -> None:
        self.control.close()
        self.process.wait(10)
        for _, fds in self._kept:
            close_all(fds)


class Out:
    """Standard output and error of a run, in one pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def give(self) -> list[int]:
        return [self._write, os.dup(self._write)]

    def first(self) -> bytes:
        return os.read(self._read, 65_536)

    def read(self) -> bytes:
        parts = []
        while part := os.read(self._read, 65_536):
            parts.append(part)
        os.close(self._read)
        return b"".join(parts)


def source(data: bytes) -> int:
    if not data:
        return os.open("/dev/null", os.O_RDONLY)
    return sealed_file("stdin", data)


def mute() -> int:
    """An output that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def request(op: str, **more: Any) -> dict[str, Any]:
    limits = {**LIMITS, **more.pop("limits", {})}
    return {
        "op": op,
        "env": [],
        "mounts": [],
        "files": [],
        "collect": [],
        "deadline_ms": round((time.time() + 30) * 1000),
        "limits": limits,
        **more,
    }


@contextlib.contextmanager
def wired(
    state: Path, runsc: dict[str, str] | None = None, bwrap: str | None = None
) -> Iterator[Wired]:
    spawner = Wired(state, runsc=runsc, bwrap=bwrap)
    try:
        yield spawner
    finally:
        spawner.close()
