"""Credentials lent from memory, and the contract that every `Credentials` must keep.

The fake lends what it was given, by the ledger's word alone: the run has to be started, with the
fence of the lease. It looks for a secret as it is and in base64, no further.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from remit.errors import Code, RunnerFault
from remit.model import HandedFile, Lease, Lent, Loan, RunState
from remit.ports import Credentials, Ledger

BLANK = b"[redacted]"
TRACES: tuple[Callable[[bytes], bytes], ...] = (
    lambda secret: secret,
    base64.b64encode,
    lambda secret: secret.hex().encode(),
    lambda secret: quote(secret, safe="").encode(),
    lambda secret: json.dumps(secret.decode()).encode()[1:-1],
)
"""The forms of a secret that output is searched for."""


class MemoryCredentials:
    """The `Credentials` port without a keeper. `asked` has what was asked of it, in order.

    Args:
        ledger: where runs, fences and plans are read.
        secrets: what there is to lend, by handle.
        files: which of them go into the run as files, by the file's name.
        broken: what to fail at: `lend`, `scrub` or `take_back`.
    """

    def __init__(
        self,
        ledger: Ledger,
        secrets: Mapping[str, str],
        *,
        files: Mapping[str, str] | None = None,
        broken: Sequence[str] = (),
    ) -> None:
        self._ledger = ledger
        self._secrets = secrets
        self._files = files or {}
        self.broken = list(broken)
        self._loans: dict[str, list[Loan]] = {}
        self.asked: list[tuple[str, str]] = []

    def digest(self, ref: str) -> str | None:
        if ref not in self._secrets:
            return None
        return "sha256:" + hashlib.sha256(ref.encode()).hexdigest()

    async def lend(self, lease: Lease) -> Lent:
        self._ask("lend", lease.id)
        run = await self._ledger.run(lease.id)
        if run is None or run.state is not RunState.STARTED or run.fence != lease.fence:
            raise _unavailable("the run is not one that may have credentials")
        plan = json.loads(await self._ledger.plan_text(run.plan_hash) or b"{}")
        refs = [rule["ref"] for rule in plan["credentials"]]
        loans = [self._loan(ref) for ref in refs]
        self._loans.setdefault(lease.id, []).extend(loans)
        handed = [(ref, self._files[ref]) for ref in refs if ref in self._files]
        return Lent(
            loans=tuple(loans),
            files=tuple(HandedFile(name=name, fd=self._file(ref)) for ref, name in handed),
        )

    def _loan(self, ref: str) -> Loan:
        if ref not in self._secrets:
            raise _unavailable("there is no such credential")
        how = "file" if ref in self._files else "proxy"
        return Loan(ref=ref, broker="memory", delivered=how, lent_ms=time.time_ns() // 1_000_000)

    def _file(self, ref: str) -> int:
        fd = os.memfd_create("credential", os.MFD_CLOEXEC)
        os.write(fd, self._secrets[ref].encode())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    async def take_back(self, lease: Lease) -> Sequence[Loan]:
        self._ask("take_back", lease.id)
        return self._end(lease.id)

    def _end(self, run_id: str) -> Sequence[Loan]:
        now = time.time_ns() // 1_000_000
        ended = [
            each if each.returned_ms else replace(each, returned_ms=now, revoked=True)
            for each in self._loans.get(run_id, [])
        ]
        if run_id in self._loans:
            self._loans[run_id] = ended
        return ended

    async def scrub(self, lease: Lease, data: bytes) -> tuple[bytes, int]:
        self._ask("scrub", lease.id)
        found = 0
        for loan in self._loans.get(lease.id, []):
            for form in TRACES:
                trace = form(self._secrets[loan.ref].encode())
                found += data.count(trace)
                data = data.replace(trace, BLANK)
        return data, found

    async def sweep(self, live: frozenset[str]) -> Sequence[Loan]:
        due = [
            run
            for run, loans in self._loans.items()
            if run not in live and any(each.returned_ms is None for each in loans)
        ]
        return [loan for run in due for loan in self._end(run)]

    async def keys(self) -> Mapping[str, Any]:
        return {"keys": []}

    def _ask(self, what: str, run_id: str) -> None:
        self.asked.append((what, run_id))
        if what in self.broken:
            raise _unavailable("the keeper does not answer")


def _unavailable(message: str) -> RunnerFault:
    return RunnerFault(Code.CREDENTIAL_UNAVAILABLE, message)


Started = Callable[[Sequence[str]], Awaitable[Lease]]
"""Makes a run that the ledger has as started, with a plan that names these credentials."""


class CredentialsContract:
    """What every `Credentials` must do: subclass, and override the three fixtures."""

    SECRET = 'hunter2/with=odd&bytes"and\\more'  # noqa: S105 - the contract's own
    """What the handle `contract` leads to."""

    @pytest.fixture
    def credentials(self) -> Credentials:
        """Has the handle `contract`, which goes into a run as the file `token`."""
        raise NotImplementedError

    @pytest.fixture
    def started(self) -> Started:
        raise NotImplementedError

    async def test_a_handle_has_a_digest_and_an_unknown_one_none(
        self, credentials: Credentials
    ) -> None:
        found = credentials.digest("contract")
        assert found is not None
        assert found.startswith("sha256:")
        assert found == credentials.digest("contract")
        assert credentials.digest("absent") is None

    async def test_a_started_run_is_lent_what_its_plan_names(
        self, credentials: Credentials, started: Started
    ) -> None:
        lease = await started(["contract"])
        lent = await credentials.lend(lease)
        (loan,), (file,) = lent.loans, lent.files
        assert (loan.ref, loan.delivered, loan.returned_ms) == ("contract", "file", None)
        assert loan.lent_ms > 0
        with os.fdopen(file.fd, "rb") as handed:
            assert (file.name, handed.read()) == ("token", self.SECRET.encode())
        await credentials.take_back(lease)

    @pytest.mark.threat("T-35")
    async def test_another_fence_is_lent_nothing(
        self, credentials: Credentials, started: Started
    ) -> None:
        lease = await started(["contract"])
        for fence in (lease.fence - 1, lease.fence + 1):
            with pytest.raises(RunnerFault) as refused:
                await credentials.lend(replace(lease, fence=fence))
            assert refused.value.code is Code.CREDENTIAL_UNAVAILABLE

    @pytest.mark.threat("T-38")
    async def test_a_run_that_the_ledger_does_not_have_is_lent_nothing(
        self, credentials: Credentials, started: Started
    ) -> None:
        lease = await started(["contract"])
        with pytest.raises(RunnerFault) as refused:
            await credentials.lend(replace(lease, id="run_never"))
        assert refused.value.code is Code.CREDENTIAL_UNAVAILABLE

    async def test_every_form_of_a_secret_is_blanked_and_counted(
        self, credentials: Credentials, started: Started
    ) -> None:
        lease = await started(["contract"])
        _close(await credentials.lend(lease))
        for form in TRACES:
            data = b"before " + form(self.SECRET.encode()) + b" after"
            after, found = await credentials.scrub(lease, data)
            assert form(self.SECRET.encode()) not in after
            assert after.startswith(b"before ")
            assert after.endswith(b" after")
            assert found >= 1
        assert await credentials.scrub(lease, b"nothing") == (b"nothing", 0)
        await credentials.take_back(lease)

    async def test_what_is_taken_back_is_ended_and_stays_so(
        self, credentials: Credentials, started: Started
    ) -> None:
        lease = await started(["contract"])
        _close(await credentials.lend(lease))
        (loan,) = await credentials.take_back(lease)
        assert loan.returned_ms is not None
        assert list(await credentials.take_back(lease)) in ([], [loan])

    @pytest.mark.threat("T-34")
    async def test_a_sweep_ends_the_loans_of_runs_that_are_not_live(
        self, credentials: Credentials, started: Started
    ) -> None:
        lease = await started(["contract"])
        _close(await credentials.lend(lease))
        assert not await credentials.sweep(frozenset({lease.id}))
        (loan,) = await credentials.sweep(frozenset())
        assert loan.returned_ms is not None
        assert not await credentials.sweep(frozenset())

    async def test_the_keys_are_a_set_of_public_ones(self, credentials: Credentials) -> None:
        keys = (await credentials.keys())["keys"]
        assert all("d" not in key for key in keys)


def _close(lent: Lent) -> None:
    for file in lent.files:
        os.close(file.fd)
