"""The journal of loans: what was asked for and lent, so that whoever comes next can end it.

One file for each run, a JSON line for each step, durable before the step is taken. What a broker
needs to revoke a loan and nobody may see stands in it sealed (AES-256-GCM) with a key of the
keeper's.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag

from remit.keeper.sealed import seal_of
from remit.keeper.state import StateDirectory

_RUN = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NONCE = 12


@dataclass(slots=True, kw_only=True)
class Owed:
    """One loan, as long as it may have to be ended. Times as in `model.Loan`.

    `lent` false: it was asked for, and nobody knows whether it was given.
    """

    loan_id: str
    ref: str
    broker: str
    delivered: str
    lent_ms: int
    ends_ms: int
    lent: bool = False
    expires_ms: int | None = None
    lease: str | None = None
    key: str | None = field(default=None, repr=False)
    note: str | None = None


class Journal:
    """The files of loans in `<state>/loans`."""

    def __init__(self, state: StateDirectory) -> None:
        self._files = state.below("loans")
        self._seal = seal_of(state)

    def give(self, uid: int) -> None:
        """Make its files this user's."""
        self._files.give(uid)

    def asked(self, run_id: str, loans: Sequence[Owed]) -> None:
        """Write down what is about to be asked of brokers; durable when it returns."""
        if not _RUN.fullmatch(run_id):
            raise ValueError("not the name of a run")
        lines = [self._line("asked", each) for each in loans]
        self._append(run_id, b"".join(lines))

    def lent(self, run_id: str, loan: Owed) -> None:
        """Write down what a broker gave."""
        self._append(run_id, self._line("lent", loan))

    def closed(self, run_id: str) -> None:
        """All loans of the run have ended."""
        self._files.remove(run_id)

    def left(self) -> dict[str, list[Owed]]:
        """What earlier keepers did not end, by run."""
        found: dict[str, list[Owed]] = {}
        for run_id in self._files.names():
            loans: dict[str, Owed] = {}
            for line in (self._files.read(run_id) or b"").split(b"\n"):
                owed = self._read(line)
                if owed is not None:
                    loans[owed.loan_id] = owed
            if loans:
                found[run_id] = list(loans.values())
            else:
                self._files.remove(run_id)  # cut short before anything was asked for
        return found

    def _append(self, run_id: str, data: bytes) -> None:
        with self._files.appending(run_id) as fd:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fdatasync(fd)

    def _line(self, step: str, owed: Owed) -> bytes:
        facts: dict[str, Any] = {
            "step": step,
            "id": owed.loan_id,
            "ref": owed.ref,
            "broker": owed.broker,
            "delivered": owed.delivered,
            "lent_ms": owed.lent_ms,
            "ends_ms": owed.ends_ms,
            "expires_ms": owed.expires_ms,
            "lease": owed.lease,
            "note": owed.note,
        }
        if owed.key is not None:
            nonce = os.urandom(_NONCE)
            sealed = self._seal.encrypt(nonce, owed.key.encode(), owed.loan_id.encode())
            facts["key"] = base64.b64encode(nonce + sealed).decode("ascii")
        return json.dumps(facts).encode("ascii") + b"\n"

    def _read(self, line: bytes) -> Owed | None:
        try:
            facts = json.loads(line)
            return Owed(
                loan_id=str(facts["id"]),
                ref=str(facts["ref"]),
                broker=str(facts["broker"]),
                delivered=str(facts["delivered"]),
                lent_ms=int(facts["lent_ms"]),
                ends_ms=int(facts["ends_ms"]),
                lent=facts["step"] == "lent",
                expires_ms=facts["expires_ms"],
                lease=facts["lease"],
                key=self._opened(facts.get("key"), str(facts["id"])),
                note=facts["note"],
            )
        except (ValueError, KeyError, TypeError):
            return None  # the last line, cut short

    def _opened(self, text: str | None, loan_id: str) -> str | None:
        if text is None:
            return None
        data = base64.b64decode(text)
        try:
            return self._seal.decrypt(data[:_NONCE], data[_NONCE:], loan_id.encode()).decode()
        except InvalidTag:
            return None  # sealed with a key that is no more there
