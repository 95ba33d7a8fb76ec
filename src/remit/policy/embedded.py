"""The embedded Rego engine: Microsoft's regorus in worker processes that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Self

from remit.errors import Code, PolicyFault
from remit.policy import probes
from remit.policy.bundle import PolicyBundle
from remit.policy.crew import Crew, OnDeath
from remit.policy.engine import Answer
from remit.policy.process import WorkerProcess, frame, load_frame, try_frame

DISTRIBUTION = "gordon-to-regorus"
START_TIMEOUT_S = 20.0
PROBE_TIMEOUT_S = 5.0


class EmbeddedEngine:
    """A crew of workers that hold one policy; made by `start`."""

    def __init__(self, crew: Crew, revision: str) -> None:
        self._crew = crew
        self._revision = revision
        self._name = f"{DISTRIBUTION} {version(DISTRIBUTION)}"
        self._closed = False

    @classmethod
    async def start(
        cls,
        bundle: PolicyBundle,
        *,
        deadline_ms: int = 250,
        workers: int = 1,
        memory_mb: int = 512,
    ) -> Self:
        """Workers that have loaded this policy and answered every probe as they must.

        Args:
            bundle: what a source gave; not checked against the portable profile here.
            deadline_ms: an evaluation that takes longer is killed with its worker. Time in the
                queue counts.
            workers: how many evaluate at once; one more stands by.
            memory_mb: address space of one worker.

        Raises:
            PolicyFault: the policy does not load, or a probe fails; nothing is left behind.
        """
        crew = Crew(
            partial(_hire, load_frame(bundle.modules, bundle.data), memory_mb),
            workers=workers,
            deadline_s=deadline_ms / 1000,
        )
        await crew.start()
        return cls(crew, bundle.revision)

    @property
    def name(self) -> str:
        return self._name

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that answer now, the spare last."""
        return self._crew.pids

    async def evaluate(self, rules: Sequence[str], document: bytes) -> Answer:
        """The values of these rules, all in one round trip to one worker."""
        if self._closed:
            raise PolicyFault(Code.POLICY_NOT_READY, "the policy engine is closed")
        paths = " ".join([f"data.{rule}" for rule in rules])
        reply = await self._crew.submit(frame(b"E", paths.encode("ascii") + b"\n" + document))
        return Answer(tuple(reply.result().split(b"\0")), self._revision)

    async def probe(self) -> None:
        if self._closed:
            raise PolicyFault(Code.POLICY_NOT_READY, "the policy engine is closed")
        probes.check((await self._crew.submit(_PROBE_FRAME)).result())

    async def aclose(self) -> None:
        """Take nothing new, let what was asked be answered or pass its deadline, end all workers."""
        self._closed = True
        await self._crew.drain()


async def _hire(load: bytes, memory_mb: int, on_death: OnDeath) -> WorkerProcess:
    """A worker that holds the policy and has answered every probe as it must."""
    worker = WorkerProcess(memory_mb=memory_mb, on_death=on_death)
    try:
        await worker.converse(load, timeout_s=START_TIMEOUT_S)
        probes.check(await worker.converse(_PROBE_FRAME, timeout_s=PROBE_TIMEOUT_S))
    except BaseException:
        await worker.wait_gone()
        raise
    return worker


_PROBE_FRAME = try_frame({"probes.rego": probes.MODULE}, {}, list(probes.QUERIES), {})
