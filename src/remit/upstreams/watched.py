"""A call that subscribes to a resource: the gateway's own connection to the server is asked.

The caller lends it nothing and gets no environment for it; what it leaves behind is that the server
is heard, which ends by itself where nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remit.errors import Code, RunnerFault
from remit.model import Capabilities, HandedFile, Lease, RunResult, RunSpec
from remit.ports import Watches
from remit.upstreams.asked import Asked
from remit.upstreams.elsewhere import token_of
from remit.upstreams.unmade import UnmadeRun

NOTE = "nothing was made for it: the gateway's own connection to the server was asked"


class WatchedRun(UnmadeRun):
    """One call of `resources/subscribe`.

    Args:
        profile: what holds of the profile that the plan names, in which a server is watched too.
    """

    def __init__(
        self, watches: Watches, lease: Lease, spec: RunSpec, profile: Capabilities | None
    ) -> None:
        super().__init__(lease, spec, note=NOTE)
        assert spec.upstream is not None
        self._watches = watches
        self._call = spec.upstream
        self._profile = profile

    async def provision(self) -> None:
        """Look whether the plan has what the connection is made with, and nothing else.

        Raises:
            RunnerFault: `runner_lacks`.
        """
        if self._profile is None:
            raise RunnerFault(Code.RUNNER_LACKS, "there is no such runner profile here")
        if self._spec.credentials:
            raise RunnerFault(Code.RUNNER_LACKS, "a subscription is lent no credential")
        if self._call.url is not None:
            self._check_way(self._call.url)

    async def start(self, files: Sequence[HandedFile]) -> None:
        token_of(files)  # closes what was handed over, of which nothing is used
        if self._begins():
            self._begin(self._ask)

    async def _ask(self, asked: Asked) -> dict[str, Any]:
        asked.sending(asked.abandon)
        uri = self._call.arguments.value()["uri"]
        await self._watches.subscribe(self._call.server, uri, within_s=self._within_s())
        return {}

    async def collect(self) -> RunResult | None:
        """None of a run that was never started."""
        return None if self._profile is None else await self._collected(self._profile)
