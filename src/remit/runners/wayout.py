"""The way out of runs: the proxy is told of a run before its command goes, and closed with it.

The run's trust store holds the system's authorities, the operator's, and the one that the proxy
made for this run alone. Without an open way out a run has only its own loopback.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from remit.model import EgressRule, Lease, RunSpec, Traffic
from remit.profile import Profile, Tls
from remit.runners.attempt import Attempt
from remit.runners.egress.client import EgressProxy
from remit.runners.faults import unavailable
from remit.runners.messages import EGRESS_PORT, TRUST_FILE

_PROXY = f"http://127.0.0.1:{EGRESS_PORT}"

ENVIRONMENT = (
    *((name, _PROXY) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")),
    *((name, "") for name in ("NO_PROXY", "no_proxy")),
    *(
        (name, TRUST_FILE)
        for name in (
            *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
            *("PIP_CERT", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE"),
        )
    ),
    ("NODE_USE_ENV_PROXY", "1"),
    ("REMIT_EGRESS_URL", _PROXY),
)
"""What the usual clients go by; a tool's own environment comes after it, and wins."""

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

Make = Callable[[RunSpec, bytes | None], Awaitable[Attempt]]
"""Has a sandbox made, with this trust store; gives what is held of it."""


class WayOut:
    """Which runs have a way out now, and what went through it.

    Args:
        proxy: the proxy; None where no run may have a way out.
        authorities: further authorities (PEM) that runs trust.
    """

    def __init__(self, proxy: EgressProxy | None, authorities: bytes = b"") -> None:
        self._proxy = proxy
        self._authorities = _system() + authorities if proxy is not None else b""
        self._opening: dict[str, asyncio.Future[None]] = {}
        self._open: set[str] = set()
        self._traffic: dict[str, Traffic] = {}

    @property
    def digest(self) -> str | None:
        """What decides, beside its plan, what a run can reach; None where none has a way out."""
        return None if self._proxy is None else self._proxy.digest

    async def open(
        self,
        lease: Lease,
        spec: RunSpec,
        profile: Profile,
        make: Make,
        rules: Sequence[EgressRule],
    ) -> None:
        """Make a sandbox whose connections go by these rules, once for a lease.

        Raises:
            RunnerFault: it was not made, or is not let out; then no connection of it is taken.
        """
        if (known := self._opening.get(lease.id)) is not None:
            await asyncio.shield(known)
            if lease.id not in self._open:
                raise unavailable("this run's way out could not be opened")
            return
        if self._proxy is None:
            raise unavailable("runs have no way out here", hint="run: remit doctor")
        done = self._opening[lease.id] = asyncio.get_running_loop().create_future()
        try:
            await self._made(self._proxy, lease, spec, profile, make=make, rules=rules)
            self._open.add(lease.id)
        except BaseException:
            await asyncio.shield(self._given_up(self._proxy, lease.id))
            raise
        finally:
            done.set_result(None)

    async def _made(
        self,
        proxy: EgressProxy,
        lease: Lease,
        spec: RunSpec,
        profile: Profile,
        *,
        make: Make,
        rules: Sequence[EgressRule],
    ) -> None:
        authority = await proxy.prepare(lease.id)
        env = tuple({**dict(ENVIRONMENT), **dict(spec.env)}.items())
        attempt = await make(replace(spec, env=env), self._authorities + authority)
        listener = attempt.listening()
        if listener < 0:
            raise unavailable("the sandbox stands without its way out")
        try:
            await proxy.open_run(
                lease.id,
                prepared=lease.id,
                fence=lease.fence,
                key=spec.call_digest or lease.id,
                rules=rules,
                listener_fd=listener,
                ends_ms=lease.deadline_ms,
                terminate=profile.tls is Tls.TERMINATE,
            )
        finally:
            os.close(listener)

    async def _given_up(self, proxy: EgressProxy, lease_id: str) -> None:
        await proxy.close_run(lease_id)
        await proxy.discard(lease_id)

    async def close(self, lease_id: str) -> Traffic | None:
        """Close the run's way out; what went through it, or None if it had none. Idempotent."""
        if self._proxy is None or lease_id not in self._opening:
            return None
        if lease_id in self._open:
            self._open.discard(lease_id)
            self._traffic[lease_id] = await self._proxy.close_run(lease_id)
        return self._traffic.get(lease_id)

    def forget(self, lease_id: str) -> None:
        """The run is gone and its traffic was handed on."""
        self._opening.pop(lease_id, None)
        self._traffic.pop(lease_id, None)

    async def sweep(self, live: frozenset[str]) -> None:
        """Close the ways out of runs that are not live; those that are held here are."""
        if self._proxy is not None:
            await self._proxy.sweep(live | frozenset(self._opening))


def _system() -> bytes:
    """The system's authorities; none where it has no bundle, and then only the run's own count."""
    named = ssl.get_default_verify_paths().cafile
    for path in (*_BUNDLES, *((named,) if named else ())):
        try:
            return Path(path).read_bytes().rstrip(b"\n") + b"\n"
        except OSError:
            continue
    return b""
