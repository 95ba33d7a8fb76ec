"""A run for which nothing is made here: one question to a server, from its start to its end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from remit.errors import Code, RunnerFault
from remit.model import Capabilities, Destruction, Lease, RunResult, RunSpec
from remit.upstreams.asked import Asked
from remit.upstreams.outcome import bare_result
from remit.upstreams.reports import Reports


class UnmadeRun:
    """What such runs have in common; who is asked, and with what, each says itself.

    Args:
        note: what the evidence says of it.
    """

    def __init__(self, lease: Lease, spec: RunSpec, *, note: str) -> None:
        self._lease = lease
        self._spec = spec
        self._note = note
        self._asked: Asked | None = None
        self._ended = False
        self._began = 0.0
        self._unheard = Reports()

    def _check_way(self, url: str) -> None:
        """Look whether the plan lets the call go there.

        Raises:
            RunnerFault: `runner_lacks`: it does not.
        """
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        if not any(rule.host == parts.hostname and rule.port == port for rule in self._spec.egress):
            message = "the plan does not let the call go to its server"
            raise RunnerFault(Code.RUNNER_LACKS, message, hint="policy has to give the egress")

    def _begins(self) -> bool:
        """Whether this start is the first.

        Raises:
            RunnerFault: `runner_unavailable`: the run has ended.
        """
        if self._asked is None and self._ended:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "the run ended before its start")
        return self._asked is None

    def _begin(self, ask: Callable[[Asked], Awaitable[dict[str, Any]]]) -> None:
        self._began = time.monotonic()
        self._asked = Asked(ask, self._spec)

    def _within_s(self) -> float:
        left_s = self._lease.deadline_ms / 1000 - time.time()
        return max(0.0, min(float(self._spec.limits.wall_s), left_s))

    @property
    def reports(self) -> Reports:
        """What the server reports."""
        return self._unheard if self._asked is None else self._asked.reports

    async def stop(self, *, grace_s: float) -> None:
        """Give the question up; one that has its answer keeps it."""
        self._ended = True
        self._unheard.end()
        if self._asked is not None:
            self._asked.give_up()
            await self._asked.heard()

    async def _collected(self, held: Capabilities) -> RunResult | None:
        """What came of it, made where this holds; None of a run that was never started."""
        if self._asked is None:
            return None
        heard = await self._asked.heard()
        assert self._spec.upstream is not None
        about = {
            "name": held.name,
            "profile": self._spec.profile,
            "tier": held.tier.value,
            "digest": held.digest,
            "version": held.version,
            "server": self._spec.upstream.server,
        }
        wall_ms = round((time.monotonic() - self._began) * 1000)
        return bare_result(heard, wall_ms=wall_ms, runner=about)

    async def destroy(self) -> Destruction:
        """End it however it stands; the evidence says that there was nothing to destroy."""
        self._ended = True
        self._unheard.end()
        if self._asked is not None:
            self._asked.abandon()
            await self._asked.heard()
        return nothing_made(self._lease, note=self._note)


def nothing_made(lease: Lease, *, note: str) -> Destruction:
    """The evidence for a run that had no environment of its own."""
    return Destruction(
        lease_id=lease.id,
        processes_left=0,
        cgroup_removed=True,
        directory_removed=True,
        mounts_left=0,
        destroyed_ms=time.time_ns() // 1_000_000,
        took_us=0,
        note=note,
    )
