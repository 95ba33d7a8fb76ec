"""An `opa` that Remit starts for one bundle, keeps alive, and ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from remit.errors import Code, PolicyFault
from remit.policy.bundle import PolicyBundle
from remit.policy.engine import Answer
from remit.policy.opa import probing
from remit.policy.opa.address import Address
from remit.policy.opa.client import OpaEngine
from remit.policy.opa.process import OpaProcess, check_binary, refused_by
from remit.policy.opa.workspace import POLICY, PROBE, REFUSED, Workspace
from remit.telemetry import logger

MEMORY_MB = 1024
START_S = 20.0
CHECK_S = 20.0
LOOK_EVERY_S = 2.0
MISSES = 3
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0

log = logger()


class SupervisedOpa:
    """The engine of one bundle: a process beside the gateway, reached by a socket only we may use.

    If it dies it is started again, at once and then ever more slowly, and so is one that does not
    answer for its health three times in a row. Until it has passed every probe again, each
    question is `policy_unavailable`.
    """

    def __init__(
        self,
        bundle: PolicyBundle,
        workspace: Workspace,
        *,
        binary: Path,
        deadline_ms: int,
        memory_mb: int,
    ) -> None:
        self._bundle = bundle
        self._workspace = workspace
        self._binary = binary
        self._deadline_ms = deadline_ms
        self._memory_mb = memory_mb
        self._starts = 0
        self._name = "opa"
        self._process: OpaProcess | None = None
        self._engine: OpaEngine | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def start(
        cls,
        bundle: PolicyBundle,
        *,
        binary: Path,
        state_dir: Path,
        deadline_ms: int = 250,
        memory_mb: int = MEMORY_MB,
    ) -> Self:
        """Start `opa` with this bundle; back once it is healthy and has passed every probe.

        Args:
            bundle: a checked policy.
            binary: the program.
            state_dir: where its directory is made, and removed at the end.
            deadline_ms: total time of an evaluation.
            memory_mb: the most data it may hold; more, and it dies and is started again.

        Raises:
            ConfigError: the binary cannot be run.
            PolicyFault: `policy_not_ready`: OPA refuses the policy, is too old or fails a probe;
                `policy_unavailable`: it does not come up. Nothing is left behind then.
        """
        await asyncio.to_thread(check_binary, binary)
        workspace = await asyncio.to_thread(Workspace.make, state_dir, bundle)
        made = cls(bundle, workspace, binary=binary, deadline_ms=deadline_ms, memory_mb=memory_mb)
        try:
            await made._check_compiler()
            await made._start()
        except BaseException:
            await made.aclose()
            raise
        made._keeping = asyncio.get_running_loop().create_task(made._keep())
        return made

    @property
    def name(self) -> str:
        return self._name

    @property
    def revision(self) -> str:
        return self._bundle.revision

    @property
    def pid(self) -> int | None:
        """The process that answers now; None while there is none."""
        return None if self._engine is None or self._process is None else self._process.pid

    async def evaluate(self, rules: Sequence[str], document: bytes) -> Answer:
        return await self._answering().evaluate(rules, document)

    async def probe(self) -> None:
        await self._answering().probe()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._engine is not None:
            await self._engine.aclose()
        if self._process is not None:
            await self._process.end()
        await asyncio.to_thread(self._workspace.remove)

    def _answering(self) -> OpaEngine:
        if self._closed:
            raise PolicyFault(Code.POLICY_NOT_READY, "the policy engine is closed")
        if self._engine is None:
            raise PolicyFault(
                Code.POLICY_UNAVAILABLE, "OPA ended and is being started again", hint="try again"
            )
        return self._engine

    # Starting

    async def _check_compiler(self) -> None:
        for name in probing.COMPILE_TIME:
            refused = await asyncio.to_thread(
                refused_by,
                self._binary,
                self._workspace.path / REFUSED / f"{name}.rego",
                memory_mb=self._memory_mb,
                timeout_s=CHECK_S,
            )
            if not refused:
                raise PolicyFault(
                    Code.POLICY_NOT_READY,
                    f"the OPA binary fails the probe `{name}`"
                    if refused is False
                    else "the OPA binary does not run as `opa check`",
                    hint="install a release of OPA; 1.22.2 is tested",
                )

    async def _start(self) -> None:
        """A process, then an engine that has passed every probe; nothing of it stays if not."""
        self._starts += 1
        name = f"opa-{self._starts}.sock"
        process = OpaProcess(self._binary, self._workspace.path, name, memory_mb=self._memory_mb)
        self._process = process
        engine = OpaEngine(
            Address(unix=self._workspace.reach(name), peers=frozenset({os.geteuid()})),
            deadline_ms=self._deadline_ms,
            own={POLICY: self._bundle.revision, PROBE: probing.bundle().revision},
        )
        try:
            async with asyncio.timeout(START_S):
                await _healthy(engine, process)
                await engine.probe()
        except TimeoutError:
            await process.end()
            raise PolicyFault(
                Code.POLICY_UNAVAILABLE, "OPA did not start in time", place=process.says() or None
            ) from None
        except BaseException:
            await process.end()
            raise
        self._name = engine.name
        self._engine = engine

    # Keeping

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            since = time.monotonic()
            if self._engine is not None and self._process is not None:
                await _until_gone(self._engine, self._process)
                before, self._engine = self._engine, None
                log.error("opa_ended", pid=self._process.pid)
                await before.aclose()
                await self._process.end()
            if time.monotonic() - since >= STEADY_S:
                pause = FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
            try:
                await self._start()
            except (PolicyFault, OSError) as fault:
                log.warning("opa_not_started", why=str(fault))
            else:
                log.warning("opa_started_again", pid=self.pid)


async def _healthy(engine: OpaEngine, process: OpaProcess) -> None:
    """Wait until it says that it is healthy.

    Raises:
        PolicyFault: `policy_not_ready`, with what it said, if it ended instead.
    """
    while True:
        try:
            await engine.healthy()
            return
        except PolicyFault:
            if not process.alive:
                await process.gone.wait()
                raise PolicyFault(
                    Code.POLICY_NOT_READY,
                    "OPA did not start with this policy",
                    place=process.says() or None,
                    hint="`opa check` on the policy shows the same",
                ) from None
        await asyncio.sleep(0.02)  # it does not say when it begins to listen


async def _until_gone(engine: OpaEngine, process: OpaProcess) -> None:
    """Wait until the process has ended; one that misses its health three times is ended."""
    missed = 0
    while True:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await process.gone.wait()
            return
        except TimeoutError:
            pass
        try:
            await engine.healthy()
            missed = 0
        except PolicyFault:
            missed += 1
        if missed >= MISSES:
            log.error("opa_hangs", pid=process.pid)
            process.kill()
