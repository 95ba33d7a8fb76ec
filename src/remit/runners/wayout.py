"""A run's way out, from the gateway's side: prepared before its sandbox, opened with the rules of
its plan once the sandbox stands, closed for good when it has ended.

The listening socket is made inside the run's network namespace by the spawner and handed to the
egress proxy; this process holds it only in between, and never takes a connection. If the proxy
dies, the runs it served have no way out any more; a new one serves later runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from remit.model import EgressRule, Lease, RunSpec, Traffic
from remit.profile import Profile, Tls
from remit.reach import meet_egress, normal_egress
from remit.runners.egress.client import EgressProxy
from remit.runners.evidence import now_ms
from remit.runners.faults import unavailable
from remit.runners.messages import EGRESS_PORT, TRUST_FILE
from remit.runners.trust import TrustStore

_PROXY = f"http://127.0.0.1:{EGRESS_PORT}"
_PROXIED = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_TRUSTING = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"),
    *("NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE"),
)
ENVIRONMENT: tuple[tuple[str, str], ...] = (
    *((name, _PROXY) for name in _PROXIED),
    *(("NO_PROXY", ""), ("no_proxy", "")),
    *((name, TRUST_FILE) for name in _TRUSTING),
    *(("NODE_USE_ENV_PROXY", "1"), ("REMIT_EGRESS_URL", _PROXY)),
)
"""What a run with egress finds set before its tool's own variables, which win."""

LATE_MS = 5_000
"""How long after a run's deadline the proxy closes it by itself, if nobody else did."""


class WayOut:
    """Gives runs their ways out by one egress proxy.

    Args:
        proxy: asked for all of it.
        trust: makes what runs trust.
    """

    def __init__(self, proxy: EgressProxy, trust: TrustStore | None = None) -> None:
        self._proxy = proxy
        self._trust = trust or TrustStore()

    @property
    def digest(self) -> str:
        """Over what decides, beside profile and plan, what runs can reach."""
        return self._proxy.digest

    async def prepare(self, name: str, profile: Profile) -> tuple[Way, bytes]:
        """A way out for a run or slot of that name, not open yet, and its trust file.

        Raises:
            RunnerFault: there is no proxy.
        """
        own = await self._proxy.prepare(name)
        way = Way(self._proxy, name, terminate=profile.tls is Tls.TERMINATE)
        return way, self._trust.file(own if way.terminate else b"")

    async def sweep(self, live: Iterable[str]) -> None:
        """Close what is open of no live run."""
        await self._proxy.sweep(live)


class Way:
    """One run's way out. Opened once at most, closed once; what is closed stays closed.

    With `kept` its authority is left for the next run of the same environment.
    """

    def __init__(
        self, proxy: EgressProxy, name: str, *, terminate: bool, kept: bool = False
    ) -> None:
        self._proxy = proxy
        self._name = name
        self._life = proxy.pid
        self._kept = kept
        self._run: str | None = None
        self._closing: asyncio.Future[Traffic] | None = None
        self.terminate = terminate
        self.closed_ms: int | None = None

    @property
    def usable(self) -> bool:
        """Whether the proxy that it was prepared with still lives."""
        return self._life is not None and self._proxy.pid == self._life

    def turn(self) -> Way:
        """The same way, for one run of an environment that is kept. This one is never opened."""
        way = Way(self._proxy, self._name, terminate=self.terminate, kept=True)
        way._life = self._life
        return way

    async def open(self, lease: Lease, spec: RunSpec, listener: int) -> None:
        """Let the run's connections through by the rules of its plan.

        Raises:
            RunnerFault: the proxy refused (a later fence of the same call is one reason), or is
                gone; nothing is open.
        """
        if self._run is not None or self._closing is not None or listener < 0 or not self.usable:
            raise unavailable("the way out of this run cannot be opened")
        if self._kept:
            self._run = lease.id  # whoever gives up meanwhile closes it all the same
        await self._proxy.open_run(
            lease.id,
            prepared=self._name,
            fence=lease.fence,
            key=spec.fence_key,
            rules=spec.egress,
            listener_fd=listener,
            ends_ms=lease.deadline_ms + LATE_MS,
            terminate=self.terminate,
            kept=self._kept,
        )
        self._run = lease.id

    async def close(self) -> Traffic:
        """Close it and give its record, the same to whoever asks.

        Never raises a fault: a proxy that does not answer is ended, and with it every connection.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        return await asyncio.shield(self._closing)

    async def _close(self) -> Traffic:
        if self._run is not None:
            traffic = await self._proxy.close_run(self._run)
        else:
            if not self._kept:
                await self._proxy.discard(self._name)
            traffic = Traffic(closed_ms=now_ms())
        self.closed_ms = traffic.closed_ms or now_ms()
        return traffic


def check_within(rules: Sequence[EgressRule], profile: Profile) -> None:
    """What a plan's egress was narrowed to, looked at again where it is given.

    Raises:
        RunnerFault: the profile gives less.
    """
    if profile.egress is not None and meet_egress(rules, profile.egress) != normal_egress(rules):
        raise unavailable("the plan reaches further than its profile")
