"""Step 8, for a run that has credentials: lent when it has started, taken back when it has ended.

What the run printed and left goes by the keeper before anybody else sees it. Where that fails,
nothing of it is kept or shown: a secret must not get out because the keeper was not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from remit.errors import Code, RunnerFault
from remit.model import Amount, Destruction, Lease, Lent, Loan, RunResult, Traffic
from remit.ports import Clock, Credentials, Progress
from remit.stages.redact import UNSCRUBBED, withheld
from remit.telemetry import logger

LEND_WITHIN_S = 30.0
SCRUB_WITHIN_S = 30.0
TAKE_BACK_WITHIN_S = 15.0

log = logger()


async def lend(credentials: Credentials, lease: Lease) -> Lent:
    """What the run is lent.

    Raises:
        RunnerFault: `credential_unavailable`; the run must not be let go.
    """
    try:
        async with asyncio.timeout(LEND_WITHIN_S):
            return await credentials.lend(lease)
    except RunnerFault:
        raise
    except TimeoutError:
        raise _unavailable("a credential was not lent in time") from None
    except Exception as fault:
        raise _unavailable("a credential could not be lent") from fault


def _unavailable(message: str) -> RunnerFault:
    return RunnerFault(Code.CREDENTIAL_UNAVAILABLE, message)


def close_files(lent: Lent) -> None:
    """Let go of files that no runner was given."""
    for file in lent.files:
        with contextlib.suppress(OSError):
            os.close(file.fd)


async def scrubbed(credentials: Credentials, lease: Lease, result: RunResult) -> RunResult:
    """The result without a trace of what the run was lent, or without anything that it printed or
    named."""
    try:
        async with asyncio.timeout(SCRUB_WITHIN_S):
            stdout, out = await _clean(credentials, lease, result.stdout)
            stderr, err = await _clean(credentials, lease, result.stderr)
            files: dict[str, bytes] = {}
            found = out + err
            for path, data in result.files.items():
                files[path], more = await _clean(credentials, lease, data)
                found += more
            traffic, named = await _clean_hosts(credentials, lease, result.traffic)
            found += named
    except Exception as fault:  # whatever it is, what was not searched is not kept
        log.critical("output_not_scrubbed", run=lease.id, exc_info=fault)
        traffic = _named(result.traffic, None)
        marks = (*result.limits_hit, UNSCRUBBED)
        return replace(withheld(result), limits_hit=marks, traffic=traffic)
    if found:
        log.warning("secret_in_output", run=lease.id, traces=found)
    return replace(
        result, stdout=stdout, stderr=stderr, files=files, traffic=traffic, blanked=found
    )


async def _clean(credentials: Credentials, lease: Lease, data: bytes) -> tuple[bytes, int]:
    return await credentials.scrub(lease, data) if data else (data, 0)


async def _clean_hosts(
    credentials: Credentials, lease: Lease, traffic: Traffic | None
) -> tuple[Traffic | None, int]:
    """The record of where it went: the hosts that it asked for are its own words too."""
    hosts = [] if traffic is None else [each.host for each in traffic.connections]
    if not any(hosts):
        return traffic, 0
    data, found = await _clean(credentials, lease, "\n".join(hosts).encode())
    return _named(traffic, data.decode("utf-8", "replace").split("\n")), found


def _named(traffic: Traffic | None, hosts: Sequence[str] | None) -> Traffic | None:
    """With these hosts, one for each connection, or with none."""
    if traffic is None:
        return None
    pairs = zip(traffic.connections, hosts or [""] * len(traffic.connections), strict=True)
    return replace(traffic, connections=tuple(replace(each, host=host) for each, host in pairs))


@dataclass(frozen=True, slots=True)
class Searched:
    """Progress of a run that was lent something: the keeper looks through each message before it
    is told. Raises, and tells nothing, where that cannot be done."""

    progress: Progress
    credentials: Credentials
    lease: Lease

    @property
    def wanted(self) -> bool:
        return self.progress.wanted

    async def report(self, message: str, amount: Amount | None = None) -> None:
        data = b""
        if message:
            data, _ = await self.credentials.scrub(self.lease, message.encode())
        await self.progress.report(data.decode("utf-8", "replace"), amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """How the loans of a run ended; `at_ms` is when that was known, None if it is not."""

    loans: tuple[Loan, ...]
    at_ms: int | None = None
    note: str | None = None

    @property
    def left(self) -> int:
        return sum(1 for loan in self.loans if loan.returned_ms is None and not loan.revoked)


async def take_back(
    credentials: Credentials, lease: Lease, lent: Sequence[Loan], clock: Clock
) -> Returned:
    """End what was lent. Never raises: what did not end is counted, and a sweep looks again."""
    try:
        async with asyncio.timeout(TAKE_BACK_WITHIN_S):
            loans = tuple(await credentials.take_back(lease))
    except Exception as fault:  # the outcome of the run must not be lost over it
        log.critical("credentials_not_taken_back", run=lease.id, exc_info=fault)
        note = "its credentials were not taken back; a sweep looks again"
        return Returned(loans=tuple(lent), note=note)
    return Returned(loans=loans or tuple(lent), at_ms=clock.now_ms())


def with_loans(evidence: Destruction, returned: Returned) -> Destruction:
    """The evidence of a destruction, with that of its credentials."""
    seen = dict(evidence.seen_ms)
    if returned.at_ms is not None and not returned.left:
        seen["credentials"] = returned.at_ms
    notes = [note for note in (evidence.note, returned.note) if note]
    return replace(
        evidence,
        credentials_left=evidence.credentials_left + returned.left,
        seen_ms=seen,
        note="; ".join(notes) or None,
    )
