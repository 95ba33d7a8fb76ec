"""What evaluates policy: the embedded engine, or an OPA server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rules gave, in the order they were asked for, as JSON; and the revision of it all.

    `decision_id` is the engine's own name for this answer, where it has one.
    """

    values: tuple[bytes, ...]
    revision: str
    decision_id: str | None = None


class Engine(Protocol):
    """One policy in force in one engine.

    The embedded engine, and an `opa` that Remit runs, hold one bundle from their making to their
    end: a new policy is a new `Engine`. An OPA server that others run may change its policy by
    itself; each answer names the revision it was given under.
    """

    @property
    def name(self) -> str:
        """The engine and its version, as recorded with each decision."""

    @property
    def revision(self) -> str:
        """The revision that answered last, or that was loaded; `none` before."""

    async def evaluate(self, rules: Sequence[str], document: bytes) -> Answer:
        """The values of these rules (`remit.decision`: the package and the rule) for this input.

        All of them from one revision, or none.

        Raises:
            PolicyFault: `policy_undefined` if one of them has no value; `policy_error`,
                `policy_unavailable`, `policy_not_ready` or `policy_bad_decision`.
        """

    async def probe(self) -> None:
        """Put the probes to the engine.

        Raises:
            PolicyFault: `policy_not_ready` or `policy_unavailable`.
        """

    async def aclose(self) -> None:
        """End all that belongs to the engine, once what it is being asked has been answered."""
