"""How the runner says that it cannot, in one place so that every refusal reads alike."""

from __future__ import annotations

from remit.errors import Code, RunnerFault

ASK_DOCTOR = "run: remit doctor"


def unavailable(message: str, *, hint: str | None = None, started: bool = False) -> RunnerFault:
    """A fault to raise; `started` says whether the command may have run."""
    return RunnerFault(Code.RUNNER_UNAVAILABLE, message, hint=hint, started=started)
