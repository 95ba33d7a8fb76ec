"""A call that subscribes to a resource: the gateway's own connection to the server is asked.

The caller lends it nothing and gets no environment for it; what it leaves behind is that the server
is heard, which ends by itself where nobody waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from remit.errors import Code, RunnerFault
from remit.model import Capabilities, Destruction, HandedFile, Lease, RunResult, RunSpec
from remit.ports import Watches
from remit.upstreams.asked import Asked
from remit.upstreams.elsewhere import nothing_made, token_of
from remit.upstreams.outcome import bare_result
from remit.upstreams.reports import Reports

NOTE = "nothing was made for it: the gateway's own connection to the server was asked"


class WatchedRun:
    """One call of `resources/subscribe`.

    Args:
        profile: what holds of the profile that the plan names, in which a server is watched too.
    """

    def __init__(
        self, watches: Watches, lease: Lease, spec: RunSpec, profile: Capabilities | None
    ) -> None:
        assert spec.upstream is not None
        self._watches = watches
        self._lease = lease
        self._spec = spec
        self._call = spec.upstream
        self._profile = profile
        self._asked: Asked | None = None
        self._ended = False
        self._began = 0.0
        self._unheard = Reports()

    async def provision(self) -> None:
        """Look whether the plan has what the connection is made with, and nothing else.

        Raises:
            RunnerFault: `runner_lacks`.
        """
        if self._profile is None:
            raise RunnerFault(Code.RUNNER_LACKS, "there is no such runner profile here")
        if self._spec.credentials:
            raise RunnerFault(Code.RUNNER_LACKS, "a subscription is lent no credential")
        if self._call.url is None:
            return
        parts = urlsplit(self._call.url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        if not any(rule.host == parts.hostname and rule.port == port for rule in self._spec.egress):
            message = "the plan does not let the call go to its server"
            raise RunnerFault(Code.RUNNER_LACKS, message, hint="policy has to give the egress")

    async def start(self, files: Sequence[HandedFile]) -> None:
        token_of(files)  # closes what was handed over, of which nothing is used
        if self._ended:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "the run ended before its start")
        if self._asked is None:
            self._began = time.monotonic()
            self._asked = Asked(self._ask, self._spec)

    async def _ask(self, asked: Asked) -> dict[str, Any]:
        asked.sending(asked.abandon)
        left_s = self._lease.deadline_ms / 1000 - time.time()
        uri = self._call.arguments.value()["uri"]
        await self._watches.subscribe(
            self._call.server, uri, within_s=max(0.0, min(float(self._spec.limits.wall_s), left_s))
        )
        return {}

    @property
    def reports(self) -> Reports:
        """Nothing is reported on it."""
        return self._unheard if self._asked is None else self._asked.reports

    async def stop(self, *, grace_s: float) -> None:
        self._ended = True
        self._unheard.end()
        if self._asked is not None:
            self._asked.give_up()
            await self._asked.heard()

    async def collect(self) -> RunResult | None:
        """None of a run that was never started."""
        if self._asked is None or self._profile is None:
            return None
        heard = await self._asked.heard()
        about = {
            "name": self._profile.name,
            "profile": self._spec.profile,
            "tier": self._profile.tier.value,
            "digest": self._profile.digest,
            "version": self._profile.version,
            "server": self._call.server,
        }
        wall_ms = round((time.monotonic() - self._began) * 1000)
        return bare_result(heard, wall_ms=wall_ms, runner=about)

    async def destroy(self) -> Destruction:
        self._ended = True
        self._unheard.end()
        if self._asked is not None:
            self._asked.abandon()
            await self._asked.heard()
        return nothing_made(self._lease, note=NOTE)
