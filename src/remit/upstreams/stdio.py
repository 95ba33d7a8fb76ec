"""A call of an MCP server that is started for this call alone, and ended after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from remit.errors import Code
from remit.model import Destruction, HandedFile, Lease, RunResult, RunSpec, UpstreamCall
from remit.ports import Runner
from remit.upstreams.answers import extra_of
from remit.upstreams.asked import Asked
from remit.upstreams.asking import Seen, checked
from remit.upstreams.conversation import Conversation
from remit.upstreams.limits import Limits
from remit.upstreams.outcome import Heard, result_of
from remit.upstreams.reports import Reports
from remit.upstreams.spoken import Eras, processed

SLACK_S = 5.0
"""How long after the time limit of the run itself a question to it is given up."""

GONE_WITHIN_S = 5.0
"""How long a server that closed its output has to end, so that its own end is what is told."""

WRITES_WITHIN_S = 2.0
"""How long a server whose call may have changed something has to end once its input is closed."""

WRITTEN_WITHIN_S = 1.0
"""How long a server has to take what it is told last, a cancel above all."""

_KEY = "call"
_FRAME_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every run of a server is made with."""

    inner: Runner
    seen: Seen
    eras: Eras


def limits_of(spec: RunSpec) -> Limits:
    """The bounds on a conversation with a process of these limits.

    The process is ended at its own limits, so that the times here only hold where that fails.
    """
    own = Limits()
    line_bytes = max(own.line_bytes, spec.limits.output_bytes + _FRAME_BYTES)
    wall = spec.limits.wall_s + SLACK_S
    return replace(
        own,
        line_bytes=line_bytes,
        # Every process is asked for its list, and JSON takes many times its length in memory.
        list_bytes=min(own.list_bytes, line_bytes),
        open_s=wall,
        list_s=wall,
        call_s=wall,
        unanswered_s=min(own.unanswered_s, spec.limits.wall_s / 2),
    )


class ProcessRun:
    """One run of one server: made, spoken with, ended.

    The time in which the server starts counts as the run's.
    """

    def __init__(self, means: Means, lease: Lease, spec: RunSpec, call: UpstreamCall) -> None:
        self._means = means
        self._lease = lease
        self._spec = spec
        self._call = call
        self._conversation: Conversation | None = None
        self._asked: Asked | None = None
        self._task: asyncio.Task[RunResult] | None = None
        self._unheard = Reports()
        self._grace_s = 0.0

    async def provision(self) -> None:
        await self._means.inner.provision(self._lease, processed(self._spec))

    async def start(self, files: Sequence[HandedFile]) -> None:
        await self._means.inner.start(self._lease, files)
        if self._task is None:
            self._asked = Asked(self._ask, self._spec)
            self._task = asyncio.ensure_future(self._through(self._asked))

    @property
    def reports(self) -> Reports:
        """What the server reports; nothing of a run that was not started."""
        return self._unheard if self._asked is None else self._asked.reports

    async def stop(self, *, grace_s: float) -> None:
        """Cancel the call at the server; one that does not end in the grace is ended."""
        if self._task is None or self._asked is None:
            await self._means.inner.stop(self._lease, grace_s=grace_s)
            self._unheard.end()
            return
        self._grace_s = grace_s
        self._asked.give_up()
        await asyncio.wait([self._task])

    async def collect(self) -> RunResult:
        if self._task is None:
            return await self._means.inner.collect(self._lease)
        return await asyncio.shield(self._task)

    async def destroy(self) -> Destruction:
        self._unheard.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._asked is not None:
            self._asked.abandon()
        return await self._means.inner.destroy(self._lease)

    async def _ask(self, asked: Asked) -> dict[str, Any]:
        call, limits = self._call, limits_of(self._spec)
        with self._means.eras.of(self._spec, call.server) as era:
            talk = self._conversation = await Conversation.open(
                self._means.inner.dialogue(self._lease),
                capabilities={},
                limits=limits,
                revisions=era.revisions,
            )
            era.agreed(talk.opened.revision)
        await checked(call, talk.items, self._means.seen)
        asked.sending(lambda: talk.cancel(_KEY))
        return await talk.call(
            call.tool,
            call.arguments.value(),
            progress=asked.reports.add,
            key=_KEY,
            method=call.method,
            extra=extra_of(call, talk.opened.revision),
            capabilities=call.capabilities.value(),
        )

    async def _through(self, asked: Asked) -> RunResult:
        try:
            heard = await asked.heard()
            await self._end(heard)
            process = await self._means.inner.collect(self._lease)
        finally:
            if self._conversation is not None:
                await self._conversation.close()
        return self._told(result_of(heard, process))

    async def _end(self, heard: Heard) -> None:
        """Close its input, let it end by itself for a while where that matters, then end it."""
        inner, talk = self._means.inner, self._conversation
        if talk is not None:
            with suppress(TimeoutError):  # who does not read what it is sent is not waited for
                async with asyncio.timeout(WRITTEN_WITHIN_S):
                    await talk.written()
        inner.dialogue(self._lease).close_input()
        grace_s = self._patience_s(heard)
        ending = asyncio.ensure_future(inner.collect(self._lease))
        try:
            if grace_s:
                await asyncio.wait([ending], timeout=grace_s)
            if not ending.done():
                await inner.stop(self._lease, grace_s=grace_s)
        finally:
            ending.cancel()

    def _patience_s(self, heard: Heard) -> float:
        if heard.code is Code.CANCELLED:
            return self._grace_s
        if heard.code is Code.UPSTREAM_GONE:
            return GONE_WITHIN_S
        return WRITES_WITHIN_S if self._spec.fence_key else 0.0

    def _told(self, result: RunResult) -> RunResult:
        facts = {"server": self._call.server}
        if self._conversation is not None:
            facts["revision"] = self._conversation.opened.revision.value
        return replace(result, runner={**result.runner, **facts})
