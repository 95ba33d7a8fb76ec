"""An operator's check of the operator's own preview: run twice in the sandbox, digests compared.

This is not the request path. No policy is asked, nothing is written to a ledger, nobody's call is
served: whoever may edit `remit.yaml` tries out what they wrote there, before any agent can call
it. The runs are the same as later in everything else: planned by the same functions, in a sandbox
of the same making.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from remit.command import environment_of
from remit.config import Settings
from remit.errors import Code, Refused
from remit.model import (
    AdmittedCall,
    Call,
    Caller,
    CallerKind,
    Ending,
    Frozen,
    Lease,
    NormalCall,
    Plan,
    Preview,
    PreviewDigest,
    PreviewResult,
    RunResult,
    Tool,
)
from remit.processes import sandbox_settings
from remit.runners.sandbox import SandboxRunner
from remit.stages import plan as planning
from remit.stages.means import Means
from remit.stages.respond import printable
from remit.stages.run_spec import run_spec

APART_S = 1.1
"""Time between the two runs: what prints the second of the clock must not pass by luck."""

MAX_DIFFERENCE = 4_000

WHO = Caller(tenant="check", subject="operator", kind=CallerKind.HUMAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewCheck:
    """What two runs of one preview gave; `difference` is of what they printed, made visible."""

    first: PreviewResult
    second: PreviewResult
    difference: str

    @property
    def same(self) -> bool:
        """Whether an approval of the first would still fit at the second."""
        return self.first.digest == self.second.digest


def check_tool(settings: Settings, tool: Tool, arguments: Frozen) -> PreviewCheck:
    """Run the tool's preview twice with these arguments, and compare.

    Args:
        arguments: checked against the tool's schema already.

    Raises:
        Refused: `preview_failed`, with the end of what it printed; `invalid_arguments`.
        RunnerFault: no sandbox can be made here.
        ValueError: the tool has no preview.
    """
    if tool.preview is None:
        raise ValueError("the tool has no preview")
    return asyncio.run(_twice(settings, tool, tool.preview, arguments))


async def _twice(
    settings: Settings, tool: Tool, preview: Preview, arguments: Frozen
) -> PreviewCheck:
    with tempfile.TemporaryDirectory(prefix="remit-check-") as state:
        runner = await SandboxRunner.open(
            # Not the gateway's own name: it sweeps what it finds.
            replace(sandbox_settings(settings, Path(state), f"check-{os.getpid()}"), classes=())
        )
        try:
            means = Means(runner, profiles=settings.profiles)
            trial = _Trial(runner, means, tool, preview, arguments)
            first = await trial.run("first")
            await asyncio.sleep(APART_S)
            second = await trial.run("second")
        finally:
            await runner.aclose()
    return PreviewCheck(
        first=first,
        second=second,
        difference=_difference(trial.subjects["first"], trial.subjects["second"]),
    )


class _Trial:
    """One preview with one set of arguments, run as often as wanted."""

    def __init__(
        self,
        runner: SandboxRunner,
        means: Means,
        tool: Tool,
        preview: Preview,
        arguments: Frozen,
    ) -> None:
        self._runner = runner
        self._means = means
        self._preview = preview
        self._arguments = arguments
        self.subjects: dict[str, bytes] = {}
        call = Call(
            id="check", caller=WHO, tool_name=tool.name, arguments=arguments.value(), received_ms=0
        )
        normal = NormalCall(
            call=call,
            tool=tool,
            arguments=arguments,
            environment=environment_of(tool, arguments.value()),
            digest="check",
        )
        self._admitted = AdmittedCall(normal=normal, limits=tool.limits)

    async def run(self, name: str) -> PreviewResult:
        """Plan and run it, through the normaliser if it has one."""
        planned = planning.preview_plan(
            self._admitted, self._means, self._preview, arguments=self._arguments
        )
        result = await self._run(name, planned.plan)
        subject = planning.preview_subject(self._preview, result.stdout, result.files)
        if self._preview.digest is PreviewDigest.NORMALISED:
            normalising = planning.normaliser_plan(planned, self._preview, text=subject)
            subject = (await self._run(f"{name}-normaliser", normalising.plan)).stdout
        self.subjects[name] = subject
        return planning.preview_result(name, result, subject)

    async def _run(self, name: str, plan: Plan) -> RunResult:
        spec = run_spec(plan.text, plan.hash)
        lease = Lease(
            id=f"check-{name}-{os.getpid()}",
            gateway="check",
            fence=0,
            deadline_ms=round(1000 * (time.time() + spec.limits.wall_s + 10)),
        )
        try:
            await self._runner.provision(lease, spec)
            await self._runner.start(lease)
            result = await self._runner.collect(lease)
        finally:
            await self._runner.destroy(lease)
        if result.ending is not Ending.EXIT or result.exit_code != 0:
            raise _failed(name, result)
        return result


def _failed(name: str, result: RunResult) -> Refused:
    said = printable(result.stdout + result.stderr)[-500:].strip()
    how = f"status {result.exit_code}" if result.ending is Ending.EXIT else result.ending.value
    return Refused(
        Code.PREVIEW_FAILED,
        f"the {name} run of the preview ended with {how}" + (f": {said}" if said else ""),
        hint="a preview that fails is refused before any approval: mend its command",
    )


def _difference(first: bytes, second: bytes) -> str:
    """Which lines of what is digested changed, with control characters visible."""
    lines = difflib.unified_diff(
        printable(first).splitlines(), printable(second).splitlines(), "first", "second",
        lineterm="", n=0,
    )  # fmt: skip
    return "\n".join(lines)[:MAX_DIFFERENCE]


def as_facts(found: PreviewCheck) -> Mapping[str, object]:
    """What `remit tools check` prints of it."""
    return {
        "same": found.same,
        "first": found.first.digest,
        "second": found.second.digest,
        "text": found.first.text,
        "difference": found.difference,
    }
