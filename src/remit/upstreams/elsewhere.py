"""A call of an MCP server over HTTP: no process is made for it, and it runs somewhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import Destruction, HandedFile, Lease, RunResult, RunSpec, UpstreamCall
from remit.ports import Consents
from remit.profile import ELSEWHERE
from remit.upstreams.asked import Asked
from remit.upstreams.asking import HttpServers
from remit.upstreams.outcome import bare_result
from remit.upstreams.reports import Reports

MAX_TOKEN_BYTES = 16_384

AGAIN = (
    "make the call again: what the person gave is got anew, or they are asked for what is missing, "
    "as far as the credential's section lets that be asked for"
)

NOTHING_MADE = "nothing was made for it here: a server elsewhere was asked"


class ElsewhereRun:
    """One call of one server over HTTP."""

    def __init__(
        self,
        servers: HttpServers,
        lease: Lease,
        spec: RunSpec,
        call: UpstreamCall,
        consents: Consents | None = None,
    ) -> None:
        self._servers = servers
        self._consents = consents
        self._lease = lease
        self._spec = spec
        self._call = call
        self._asked: Asked | None = None
        self._ended = False
        self._began = 0.0
        self._unheard = Reports()

    async def provision(self) -> None:
        """Look whether the plan lets the call go where it goes.

        Raises:
            RunnerFault: `runner_lacks`: it does not.
        """
        parts = urlsplit(self._call.url or "")
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        if self._spec.profile != ELSEWHERE:
            raise RunnerFault(Code.RUNNER_LACKS, "a server over HTTP is asked in no environment")
        named = any(rule.host == parts.hostname and rule.port == port for rule in self._spec.egress)
        if not named:
            message = "the plan does not let the call go to its server"
            raise RunnerFault(Code.RUNNER_LACKS, message, hint="policy has to give the egress")

    async def start(self, files: Sequence[HandedFile]) -> None:
        token = token_of(files)
        if self._asked is not None:
            return
        if self._ended:
            raise RunnerFault(Code.RUNNER_UNAVAILABLE, "the run ended before its start")
        if token is None and self._spec.credentials:
            raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "the run was lent no token to show")
        self._began = time.monotonic()

        async def ask(asked: Asked) -> dict[str, Any]:
            # Nobody here sees when its first byte goes, so all of it counts as sent.
            asked.sending(asked.abandon)
            try:
                return await self._servers.call(
                    self._spec,
                    self._lease,
                    token,
                    within_s=self._within_s(),
                    progress=asked.reports.add,
                )
            except UpstreamFault as fault:
                await self._tell(fault)
                raise

        self._asked = Asked(ask, self._spec)

    async def _tell(self, fault: UpstreamFault) -> None:
        """Have it known that the server did not take what a person's consent gave."""
        consents, challenged = self._consents, fault.challenged
        if consents is None or challenged is None:
            return
        if any(consents.asks(rule.ref) for rule in self._spec.credentials):
            fault.hint = AGAIN
            with suppress(RunnerFault):  # the call has failed anyway, and the next one will too
                await consents.unaccepted(self._lease, challenged or None)

    def _within_s(self) -> float:
        left_s = self._lease.deadline_ms / 1000 - time.time()
        return max(0.0, min(float(self._spec.limits.wall_s), left_s))

    @property
    def reports(self) -> Reports:
        """What the server reports."""
        return self._unheard if self._asked is None else self._asked.reports

    async def stop(self, *, grace_s: float) -> None:
        self._ended = True
        self._unheard.end()
        if self._asked is not None:
            self._asked.give_up()
            await self._asked.heard()

    async def collect(self) -> RunResult | None:
        """None of a run that was never started."""
        if self._asked is None:
            return None
        heard = await self._asked.heard()
        found = self._servers.capabilities
        about = {
            "name": found.name,
            "profile": found.profile,
            "tier": found.tier.value,
            "digest": found.digest,
            "version": found.version,
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
        return nothing_made(self._lease, note=NOTHING_MADE)


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


def token_of(files: Sequence[HandedFile]) -> bytes | None:
    """The bearer token that a run was lent, read from its one file; None if it has none.

    Raises:
        RunnerFault: `credential_unavailable`: it is none that could stand in a header.
    """
    try:
        if len(files) > 1:
            raise _unusable("a server over HTTP is shown one token, and the run was lent more")
        return _read(files[0].fd) if files else None
    finally:
        for file in files:
            with suppress(OSError):
                os.close(file.fd)


def _read(fd: int) -> bytes:
    with suppress(OSError):
        os.lseek(fd, 0, os.SEEK_SET)
    pieces, size = [], 0
    try:
        while size <= MAX_TOKEN_BYTES and (piece := os.read(fd, MAX_TOKEN_BYTES + 1 - size)):
            pieces.append(piece)
            size += len(piece)
    except OSError:
        raise _unusable("the token that the run was lent cannot be read") from None
    token = b"".join(pieces).strip()
    if size > MAX_TOKEN_BYTES or not token or any(byte <= 0x20 or byte > 0x7E for byte in token):
        raise _unusable("what the run was lent is no token that could stand in a header")
    return token


def _unusable(message: str) -> RunnerFault:
    return RunnerFault(Code.CREDENTIAL_UNAVAILABLE, message)
