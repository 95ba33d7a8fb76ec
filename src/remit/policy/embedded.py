"""The embedded Rego engine: Microsoft's regorus in worker processes that can be killed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Protocol

from remit.errors import Code, PolicyFault
from remit.policy import probes
from remit.policy.bundle import PolicyBundle
from remit.policy.crew import Crew, OnDeath
from remit.policy.process import WorkerProcess, frame, load_frame, try_frame

DISTRIBUTION = "gordon-to-regorus"
START_TIMEOUT_S = 20.0
PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The JSON that one rule gave, and the revision of the policy that gave it."""

    text: bytes
    revision: str


class Engine(Protocol):
    """What evaluates policy: the embedded engine here, an OPA server elsewhere."""

    @property
    def name(self) -> str:
        """The engine and its version, as recorded with each decision."""

    @property
    def revision(self) -> str:
        """The revision that answers now; `none` before one is loaded."""

    async def load(self, bundle: PolicyBundle) -> None:
        """Put a policy in force, all of it or nothing; the one before answers until then.

        Raises:
            PolicyFault: the policy does not load or the engine fails a probe; nothing changed.
        """

    async def evaluate(self, entry: str, document: bytes) -> Answer:
        """The value of `data.remit.<entry>` for this input.

        Raises:
            PolicyFault: `policy_undefined`, `policy_error`, `policy_unavailable` or
                `policy_not_ready`.
        """

    async def probe(self) -> None:
        """Put the probes to the engine that answers now.

        Raises:
            PolicyFault: `policy_not_ready` or `policy_unavailable`.
        """

    async def aclose(self) -> None:
        """End all that belongs to the engine."""


class EmbeddedEngine:
    """A crew of workers for the policy in force.

    Args:
        deadline_ms: an evaluation that takes longer is killed with its worker. Time in the queue
            counts.
        workers: how many evaluate at once; one more stands by.
        memory_mb: address space of one worker.
    """

    def __init__(self, *, deadline_ms: int = 250, workers: int = 1, memory_mb: int = 512) -> None:
        self._deadline_s = deadline_ms / 1000
        self._workers = workers
        self._memory_mb = memory_mb
        self._name = f"{DISTRIBUTION} {version(DISTRIBUTION)}"
        self._crew: Crew | None = None
        self._revision = "none"
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return self._name

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that answer now, the spare last."""
        return () if self._crew is None else self._crew.pids

    async def load(self, bundle: PolicyBundle) -> None:
        crew = Crew(
            partial(self._hire, load_frame(bundle.modules, bundle.data)),
            workers=self._workers,
            deadline_s=self._deadline_s,
        )
        await crew.start()
        before, self._crew, self._revision = self._crew, crew, bundle.revision
        if before is not None:
            task = asyncio.get_running_loop().create_task(before.drain())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def evaluate(self, entry: str, document: bytes) -> Answer:
        crew, revision = self._crew, self._revision
        if crew is None:
            raise PolicyFault(Code.POLICY_NOT_READY, "no policy is loaded")
        rule = f"data.remit.{entry}\n".encode("ascii")
        reply = await crew.submit(frame(b"E", rule + document))
        return Answer(reply.result(), revision)

    async def probe(self) -> None:
        if self._crew is None:
            raise PolicyFault(Code.POLICY_NOT_READY, "no policy is loaded")
        probes.check((await self._crew.submit(_PROBE_FRAME)).result())

    async def aclose(self) -> None:
        crew, self._crew, self._revision = self._crew, None, "none"
        if crew is not None:
            await crew.close()
        await asyncio.gather(*self._leaving)

    async def _hire(self, load: bytes, on_death: OnDeath) -> WorkerProcess:
        """A worker that holds the policy and has answered every probe as it must."""
        worker = WorkerProcess(memory_mb=self._memory_mb, on_death=on_death)
        try:
            await worker.converse(load, timeout_s=START_TIMEOUT_S)
            probes.check(await worker.converse(_PROBE_FRAME, timeout_s=PROBE_TIMEOUT_S))
        except BaseException:
            await worker.wait_gone()
            raise
        return worker


_PROBE_FRAME = try_frame({"probes.rego": probes.MODULE}, {}, list(probes.QUERIES), {})
