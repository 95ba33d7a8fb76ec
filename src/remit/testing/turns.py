"""Which run has which kept environment, for a runner without a network."""

from __future__ import annotations

from remit.errors import Code, RunnerFault
from remit.model import Lease, RunSpec, Traffic


class Turns:
    """One run at a time for each environment. `taken` lists who had which, in order."""

    def __init__(self) -> None:
        self._kept: dict[str, RunSpec] = {}
        self._turns: dict[str, tuple[str, RunSpec]] = {}
        self.taken: list[tuple[str, str]] = []

    def keep(self, session_id: str, spec: RunSpec) -> None:
        """From here on runs can have it."""
        self._kept.setdefault(session_id, spec)

    def attach(self, session: Lease, lease: Lease, spec: RunSpec) -> None:
        """Raises RunnerFault where another has it, or it is not kept for such a run."""
        if self._turns.get(lease.id, ("", spec))[0] == session.id:
            return
        kept = self._kept.get(session.id)
        if kept is None or kept.profile != spec.profile or (spec.egress and not kept.egress):
            raise _unavailable("this environment is not kept for such runs")
        if lease.id in self._turns or session.id in {name for name, _ in self._turns.values()}:
            raise _unavailable("another run has this environment now")
        self._turns[lease.id] = session.id, spec
        self.taken.append((session.id, lease.id))

    def detach(self, lease: Lease) -> Traffic | None:
        """An empty record of a run that was let out."""
        found = self._turns.pop(lease.id, None)
        return Traffic() if found is not None and found[1].egress else None

    def destroy(self, session_id: str) -> None:
        """Nobody can have it any more."""
        self._kept.pop(session_id, None)


def _unavailable(message: str) -> RunnerFault:
    return RunnerFault(Code.RUNNER_UNAVAILABLE, message)
