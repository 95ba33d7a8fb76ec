"""A call of an MCP server over HTTP: no process is made for it, and it runs somewhere else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from remit.errors import Code, RunnerFault, UpstreamFault
from remit.model import HandedFile, Lease, RunResult, RunSpec, UpstreamCall
from remit.ports import Consents
from remit.profile import ELSEWHERE
from remit.upstreams.asked import Asked
from remit.upstreams.asking import HttpServers
from remit.upstreams.unmade import UnmadeRun

MAX_TOKEN_BYTES = 16_384

AGAIN = (
    "make the call again: what the person gave is got anew, or they are asked for what is missing, "
    "as far as the credential's section lets that be asked for"
)

NOTE = "nothing was made for it here: a server elsewhere was asked"


class ElsewhereRun(UnmadeRun):
    """One call of one server over HTTP."""

    def __init__(
        self,
        servers: HttpServers,
        lease: Lease,
        spec: RunSpec,
        call: UpstreamCall,
        consents: Consents | None = None,
    ) -> None:
        super().__init__(lease, spec, note=NOTE)
        self._servers = servers
        self._consents = consents
        self._call = call

    async def provision(self) -> None:
        """Look whether the plan lets the call go where it goes.

        Raises:
            RunnerFault: `runner_lacks`: it does not.
        """
        if self._spec.profile != ELSEWHERE:
            raise RunnerFault(Code.RUNNER_LACKS, "a server over HTTP is asked in no environment")
        self._check_way(self._call.url or "")

    async def start(self, files: Sequence[HandedFile]) -> None:
        token = token_of(files)
        if not self._begins():
            return
        if token is None and self._spec.credentials:
            raise RunnerFault(Code.CREDENTIAL_UNAVAILABLE, "the run was lent no token to show")

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

        self._begin(ask)

    async def _tell(self, fault: UpstreamFault) -> None:
        """Have it known that the server did not take what a person's consent gave."""
        consents, challenged = self._consents, fault.challenged
        if consents is None or challenged is None:
            return
        if any(consents.asks(rule.ref) for rule in self._spec.credentials):
            fault.hint = AGAIN
            with suppress(RunnerFault):  # the call has failed anyway, and the next one will too
                await consents.unaccepted(self._lease, challenged or None)

    async def collect(self) -> RunResult | None:
        """None of a run that was never started."""
        return await self._collected(self._servers.capabilities)


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
