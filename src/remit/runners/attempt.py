"""One lease as the gateway's side of the sandbox runner knows it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from remit.model import Channel, Ending, Lease, RunResult, RunSpec
from remit.runners.capture import Capture
from remit.runners.channel import Report
from remit.runners.collected import MAX_BYTES
from remit.runners.verdict import judge
from remit.runners.wire import close_all, read_file


class Once:
    """A report that comes once: None instead if the spawner was lost before.

    Any number may wait, and one that is cancelled takes nothing from the others. (A shielded
    future would do the same, in twice the turns of the loop.)
    """

    __slots__ = ("_report", "_waiting", "done")

    def __init__(self) -> None:
        self.done = False
        self._report: dict[str, Any] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> dict[str, Any] | None:
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        return self._report

    @property
    def report(self) -> dict[str, Any] | None:
        return self._report

    def set(self, report: dict[str, Any] | None) -> None:
        """The first one counts."""
        if self.done:
            return
        self.done, self._report = True, report
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


class Attempt:
    """What the spawner reported of one lease, and its output as it comes."""

    def __init__(self, lease: Lease, spec: RunSpec, on_flood: Callable[[Attempt], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lease = lease
        self.spec = spec
        self.provisioned = Once()
        self.started = Once()
        self.ended = Once()
        self.destroyed = Once()
        self.starting = False
        self.placed = self.written = self.sent = False
        self.capture = Capture(spec.limits.output_bytes, lambda: on_flood(self), loop)
        self.files: dict[str, bytes] = {}
        self.lost = False
        self._listener = -1

    def take(self, report: Report) -> None:
        """Resolve whatever waits for this report."""
        message = report.message
        match message.get("ev"):
            case "provisioned":
                if report.fds and self._listener < 0:
                    self._listener = report.fds.pop(0)
                self.provisioned.set(message)
            case "started":
                self.started.set(message)
            case "ended":
                self._take_files(report)
                self.capture.finish()
                for waited in (self.ended, self.provisioned, self.started, self.destroyed):
                    waited.set(message)
            case "destroyed":
                self.destroyed.set(message)
            case "refused":
                waiting = {"provision": self.provisioned, "start": self.started}
                if (refused := waiting.get(str(message.get("op")))) is not None:
                    refused.set(message)
        close_all(report.fds)

    def listening(self) -> int:
        """The socket on which the run's way out listens, given once: who takes it closes it; -1
        if there is none."""
        listener, self._listener = self._listener, -1
        return listener

    def close(self) -> None:
        """Nobody will take what is still held of it."""
        if (listener := self.listening()) >= 0:
            os.close(listener)

    def _take_files(self, report: Report) -> None:
        for (name, found), fd in zip(report.message["files"], report.fds, strict=False):
            if found == "ok":
                self.files[name] = read_file(fd, MAX_BYTES)

    def lose(self) -> None:
        """The spawner is gone: nobody will report any more."""
        self.lost = True
        self.capture.finish()
        for waited in (self.provisioned, self.started, self.ended, self.destroyed):
            waited.set(None)

    @property
    def evidence(self) -> dict[str, Any] | None:
        """What the spawner saw of the destruction, from whichever report told it."""
        for report in (self.destroyed.report, self.ended.report):
            if report is not None:
                evidence: dict[str, Any] = report.get("evidence", report)
                return evidence
        return None

    def result(self, runner: Mapping[str, str]) -> RunResult:
        """The result of an ended run."""
        end = self.ended.report
        common: dict[str, Any] = {
            "stdout": self.capture.data(Channel.STDOUT),
            "stderr": self.capture.data(Channel.STDERR),
            "stdout_truncated": self.capture.truncated(Channel.STDOUT),
            "stderr_truncated": self.capture.truncated(Channel.STDERR),
            "runner": runner,
        }
        if end is None:
            began = self.starting
            return RunResult(ending=Ending.LOST if began else Ending.NOT_STARTED, **common)
        verdict = judge(end, flooded=any(map(self.capture.truncated, Channel)))
        cpu_us = end["cpu_us"]
        return RunResult(
            ending=verdict.ending,
            exit_code=verdict.exit_code,
            signal=verdict.signal,
            limits_hit=verdict.limits_hit,
            wall_ms=round(end["wall_us"] / 1000),
            cpu_ms=None if cpu_us is None else round(cpu_us / 1000),
            peak_memory_bytes=end["peak_bytes"],
            files=self.files,
            **common,
        )
