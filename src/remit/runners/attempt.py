"""One lease as the gateway's side of the sandbox runner knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from remit.model import Channel, Ending, Lease, RunResult, RunSpec
from remit.runners.capture import Capture
from remit.runners.channel import Report
from remit.runners.collected import MAX_BYTES
from remit.runners.verdict import judge
from remit.runners.wire import close_all, read_file


class Attempt:
    """The futures that the spawner's reports resolve, and the output as it comes.

    A future's value is the report, or None if the spawner was lost before it came.
    """

    def __init__(self, lease: Lease, spec: RunSpec, on_flood: Callable[[Attempt], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lease = lease
        self.spec = spec
        self.provisioned: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.started: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.ended: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.destroyed: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.starting = False
        self.placed = self.written = self.sent = False
        self.capture = Capture(spec.limits.output_bytes, lambda: on_flood(self), loop)
        self.files: dict[str, bytes] = {}
        self.lost = False

    def take(self, report: Report) -> None:
        """Resolve whatever waits for this report."""
        message = report.message
        match message.get("ev"):
            case "provisioned":
                _resolve(self.provisioned, message)
            case "started":
                _resolve(self.started, message)
            case "ended":
                self._take_files(report)
                self.capture.finish()
                for future in (self.ended, self.provisioned, self.started):
                    _resolve(future, message)
            case "destroyed":
                _resolve(self.destroyed, message)
            case "refused":
                waiting = {"provision": self.provisioned, "start": self.started}
                if (refused := waiting.get(str(message.get("op")))) is not None:
                    _resolve(refused, message)
        close_all(report.fds)

    def _take_files(self, report: Report) -> None:
        for (name, found), fd in zip(report.message["files"], report.fds, strict=False):
            if found == "ok":
                self.files[name] = read_file(fd, MAX_BYTES)

    def lose(self) -> None:
        """The spawner is gone: nobody will report any more."""
        self.lost = True
        self.capture.finish()
        for future in (self.provisioned, self.started, self.ended, self.destroyed):
            _resolve(future, None)

    def result(self, runner: Mapping[str, str]) -> RunResult:
        """The result of an ended run."""
        end = self.ended.result()
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
        verdict = judge(end)
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


def _resolve(future: asyncio.Future[dict[str, Any] | None], value: dict[str, Any] | None) -> None:
    if not future.done():
        future.set_result(value)
