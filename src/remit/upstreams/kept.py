"""A call of an MCP server in a session: no process is made for it, and none ends with it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import Destruction, HandedFile, Lease, RunResult, RunSpec, Traffic, UpstreamCall
from remit.ports import Runner
from remit.telemetry import logger
from remit.upstreams.answers import extra_of
from remit.upstreams.asked import Asked
from remit.upstreams.outcome import bare_result
from remit.upstreams.reports import Reports
from remit.upstreams.session import Session, reaches
from remit.upstreams.sessions import Sessions, refusal
from remit.upstreams.unmade import nothing_made

log = logger()


class SessionRun:
    """One call in a session; the time in which the session opens counts as the call's."""

    def __init__(
        self, inner: Runner, sessions: Sessions, lease: Lease, spec: RunSpec, call: UpstreamCall
    ) -> None:
        self._inner = inner
        self._sessions = sessions
        self._lease = lease
        self._spec = spec
        self._call = call
        self._session: Session | None = None
        self._age_ms = 0
        self._asked: Asked | None = None
        self._task: asyncio.Task[RunResult] | None = None
        self._inside = False
        self._attached = False
        self._left_open = False
        self._over = False
        self._unheard = Reports()

    async def provision(self) -> None:
        """Look whether it may be made in a session; one that may reach out waits for its turn.

        Raises:
            RunnerFault: `runner_lacks`; or `runner_unavailable`: there is no such profile, or its
                turn did not come in time.
        """
        if (refused := refusal(self._spec, by_turns=self._sessions.by_turns)) is not None:
            raise refused
        if self._inner.profile(self._spec.profile) is None:
            message = "there is no runner profile of that name"
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, message)
        if reaches(self._spec) and self._session is None:
            left_s = self._lease.deadline_ms / 1000 - time.time()
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._take_turn()
            except TimeoutError:
                message = "the turn of this call did not come in time"
                raise RunnerFault(Code.RUNNER_UNAVAILABLE, message) from None

    async def _take_turn(self) -> None:
        while not self._attached:
            session = self._session = self._sessions.take(self._spec)
            self._inside = True
            try:
                self._attached = await session.attach(self._lease, self._spec)
            except RunnerFault as fault:
                self._sessions.heard(session, fault.code)
                raise
            finally:
                if not self._attached:
                    self._leave()
                    self._session = None

    async def start(self, files: Sequence[HandedFile]) -> None:
        for file in files:
            with suppress(OSError):
                os.close(file.fd)
        if self._asked is not None:
            return
        if self._over:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "the run ended before its start")
        if files:
            message = "a process that is kept is given no credential in a file"
            raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, message)
        session = self._session or self._sessions.take(self._spec)
        self._session, self._inside, self._age_ms = session, True, session.age_ms
        until = asyncio.get_running_loop().time() + self._within_s()

        async def ask(asked: Asked) -> dict[str, Any]:
            return await self._ask(asked, session, until)

        self._asked = Asked(ask, self._spec)
        self._task = asyncio.ensure_future(self._through(self._asked, session))

    def _within_s(self) -> float:
        left_s = self._lease.deadline_ms / 1000 - time.time()
        return max(0.0, min(float(self._spec.limits.wall_s), left_s))

    async def _ask(self, asked: Asked, session: Session, until: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout_at(until):
                talk = await session.ready(self._call, changes=bool(self._spec.fence_key))
        except TimeoutError:
            message = "the server was not ready to be asked in time"
            raise UpstreamFault(Code.UPSTREAM_TIMEOUT, message) from None
        asked.sending(lambda: talk.cancel(self._lease.id))
        return await talk.call(
            self._call.tool,
            self._call.arguments.value(),
            progress=asked.reports.add,
            key=self._lease.id,
            method=self._call.method,
            extra=extra_of(self._call, talk.opened.revision),
            capabilities=self._call.capabilities.value(),
            within_s=max(0.0, until - asyncio.get_running_loop().time()),
        )

    async def _through(self, asked: Asked, session: Session) -> RunResult:
        began = time.monotonic()
        try:
            heard = await asked.heard()
            self._sessions.heard(session, heard.code)
            traffic = await self._detach()
        finally:
            await self._detach()
            self._leave()
        wall_ms = round((time.monotonic() - began) * 1000)
        result = bare_result(heard, wall_ms=wall_ms, runner=self._about(session))
        return replace(result, traffic=traffic)

    async def _detach(self) -> Traffic | None:
        """Give the way out back; where that fails, the evidence says so and the session ends."""
        if not self._attached or self._session is None:
            return None
        self._attached = False
        try:
            return await asyncio.shield(self._session.detach(self._lease))
        except Exception as fault:  # the outcome of the call must not be lost over it
            log.critical("way_out_not_closed", run=self._lease.id, exc_info=fault)
            self._left_open = True
            self._sessions.heard(self._session, Code.RUNNER_UNAVAILABLE)
            return None

    def _leave(self) -> None:
        if self._inside and self._session is not None:
            self._inside = False
            self._sessions.give_back(self._session)

    def _about(self, session: Session) -> dict[str, str]:
        found = self._inner.profile(self._spec.profile)
        facts = {"server": self._call.server, "session": session.id}
        facts["session_age_ms"] = str(self._age_ms)
        if session.revision is not None:
            facts["revision"] = session.revision
        if found is not None:
            facts |= {
                "name": found.name,
                "profile": found.profile,
                "tier": found.tier.value,
                "digest": found.digest,
                "version": found.version,
            }
        return facts

    @property
    def reports(self) -> Reports:
        """What the server reports on this call."""
        return self._unheard if self._asked is None else self._asked.reports

    async def stop(self, *, grace_s: float) -> None:
        """Cancel the call at the server; the process goes on."""
        self._over = True
        self._unheard.end()
        if self._asked is not None and self._task is not None:
            self._asked.give_up()
            await asyncio.wait([self._task])

    async def collect(self) -> RunResult | None:
        """None of a run that was never started."""
        return None if self._task is None else await asyncio.shield(self._task)

    async def destroy(self) -> Destruction:
        self._over = True
        self._unheard.end()
        if self._asked is not None and self._task is not None:
            self._task.cancel()
            self._asked.abandon()
            await asyncio.wait([self._task])
        await self._detach()
        self._leave()
        if self._session is None:
            return nothing_made(self._lease, note="nothing was made for it")
        note = "nothing was made for it: it was a call in a session"
        return replace(
            nothing_made(self._lease, note=note),
            session=self._session.facts,
            proxy_closed=not self._left_open,
        )
