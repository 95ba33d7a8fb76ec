"""One lease as the gateway's side of the sandbox runner knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from remit.model import Channel, Ending, Lease, RunResult, RunSpec, Traffic
from remit.runners.aside import Aside
from remit.runners.capture import Capture
from remit.runners.channel import Report
from remit.runners.collected import MAX_BYTES
from remit.runners.evidence import came
from remit.runners.messages import PIPED
from remit.runners.speech import PipeDialogue
from remit.runners.verdict import judge
from remit.runners.wayout import Way
from remit.runners.wire import close_all, read_file

if TYPE_CHECKING:
    from remit.runners.keeping import Turn

COLD = "cold"
"""What a result says of a run that was not made ahead of need."""


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
        self.file = lease.id  # the name of its lease file and control group
        self.slot: str | None = None
        self.kind = COLD
        self.out = False  # whether it is made with a way out
        self.kept = False  # whether several runs have it, one after another
        self.turn: Turn | None = None
        self.way: Way | None = None
        self.listener = -1
        self.on_end: Callable[[], None] = lambda: None
        self.made = Once()
        self.provisioned = Once()
        self.started = Once()
        self.ended = Once()
        self.destroyed = Once()
        self.claimed = Once()
        self.claiming: Attempt | None = None
        self.starting = False
        self.placed = self.written = self.sent = False
        self._on_flood = on_flood
        self.dialogue = PipeDialogue() if spec.dialogue else None
        most = spec.limits.output_bytes
        self.capture = (
            Aside(most, loop) if spec.dialogue else Capture(most, lambda: on_flood(self), loop)
        )
        self.files: dict[str, bytes] = {}
        self.lost = False

    def take(self, report: Report) -> None:
        """Resolve whatever waits for this report."""
        message = report.message
        match message.get("ev"):
            case "piped" | "closed" as event:
                self._speak(event, report)
            case "provisioned" | "parked":
                if report.fds and self.listener < 0:
                    self.listener = report.fds.pop(0)
                self.provisioned.set(message)
            case "started":
                self.started.set(message)
            case "ended":
                self._take_files(report)
                self._hear_out()
                came(message["evidence"])
                for waited in (*self._waits(), self.destroyed):
                    waited.set(message)
                self.on_end()
            case "destroyed":
                self.destroyed.set(came(message))
            case "refused":
                waiting = {
                    "provision": self.provisioned,
                    "park": self.provisioned,
                    "start": self.started,
                }
                if (refused := waiting.get(str(message.get("op")))) is not None:
                    refused.set(message)
        close_all(report.fds)

    def _speak(self, event: str, report: Report) -> None:
        """Its standard streams are there, or its output is closed."""
        if self.dialogue is None:
            return
        if event == "closed":
            self.dialogue.ended()
        elif len(report.fds) == len(PIPED):
            self.dialogue.connect(report.fds.pop(0), report.fds.pop(0))

    def _take_files(self, report: Report) -> None:
        for told, fd in zip_longest(report.message["files"], report.fds):
            if fd is None:  # it could not be sent
                told[1] = "irregular"
            elif told[1] == "ok":
                self.files[told[0]] = read_file(fd, MAX_BYTES)

    def lose(self) -> None:
        """The spawner is gone: nobody will report any more."""
        self.lost = True
        self._hear_out()
        for waited in (*self._waits(), self.destroyed, self.claimed):
            waited.set(None)
        self.on_end()

    def _hear_out(self) -> None:
        """It is dead: what it had written is kept."""
        self.capture.finish()
        if self.dialogue is not None:
            self.dialogue.over()

    def close_streams(self) -> None:
        """Nobody reads or writes them any more."""
        self.capture.finish()
        if self.dialogue is not None:
            self.dialogue.abandon()

    def _waits(self) -> tuple[Once, ...]:
        return self.provisioned, self.started, self.ended

    def take_claim(self, report: Report) -> None:
        """A report about this run while it is taking over a slot: most are the slot's own."""
        slot, message = self.claiming, report.message
        if slot is None:
            self.take(report)
            return
        match message:
            case {"ev": "claimed"}:
                close_all(report.fds)
                self._adopt(slot)
                self.claimed.set(message)
                self.provisioned.set(message)
            case {"ev": "refused", "op": "claim"}:
                close_all(report.fds)
                self.claimed.set(message)
            case _:
                slot.take(report)
                self.claimed.set(message)

    def _adopt(self, slot: Attempt) -> None:
        """What the slot has is this run's from here on."""
        self.claiming = None
        self.slot = self.file = slot.lease.id
        self.written = self.sent = True
        self.way, slot.way = slot.way, None
        self.listener, slot.listener = slot.listener, -1
        self.capture.finish()
        self.capture = slot.capture
        self.capture.hand_over(self.spec.limits.output_bytes, lambda: self._on_flood(self))

    def close_listener(self) -> None:
        """Close this process's copy of the listening socket; it never takes a connection."""
        if self.listener >= 0:
            close_all([self.listener])
            self.listener = -1

    @property
    def evidence(self) -> dict[str, Any] | None:
        """What the spawner saw of the destruction, from whichever report told it."""
        for report in (self.destroyed.report, self.ended.report):
            if report is not None:
                evidence: dict[str, Any] = report.get("evidence", report)
                return evidence
        return None

    def result(self, runner: Mapping[str, str], traffic: Traffic | None = None) -> RunResult:
        """The result of an ended run; `runner` says what it ran in."""
        end = self.ended.report
        common: dict[str, Any] = {
            "stdout": self.capture.data(Channel.STDOUT),
            "stderr": self.capture.data(Channel.STDERR),
            "stdout_truncated": self.capture.truncated(Channel.STDOUT),
            "stderr_truncated": self.capture.truncated(Channel.STDERR),
            "runner": {**runner, "slot": self.kind},
            "traffic": traffic,
        }
        if end is None:
            began = self.starting
            return RunResult(ending=Ending.LOST if began else Ending.NOT_STARTED, **common)
        verdict = judge(end, flooded=self.capture.flooded)
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
