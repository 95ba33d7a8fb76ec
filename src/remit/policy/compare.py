"""What changes between two policies: both are asked the same questions, whole decisions compared.

Each question is decided as the gateway decides it, in the embedded engine, by both policies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.model import Allow, Decision, Deny, RequireApproval
from remit.policy.bundle import PolicyBundle
from remit.policy.point import PolicyPoint

DEADLINE_MS = 5_000

_VERDICTS = {Allow: "allow", Deny: "deny", RequireApproval: "require_approval"}


@dataclass(frozen=True, slots=True)
class Change:
    """A question that the two policies decide differently; `number` counts questions from 1."""

    number: int
    question: Mapping[str, Any]
    old: Decision
    new: Decision

    @property
    def transition(self) -> tuple[str, str]:
        """The verdict before and after; equal where only reasons or constraints changed."""
        return verdict(self.old), verdict(self.new)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many questions were asked, and those that came out otherwise."""

    asked: int
    changes: tuple[Change, ...]

    @property
    def transitions(self) -> dict[tuple[str, str], int]:
        """How often each verdict turned into which; the most frequent first."""
        return dict(Counter(change.transition for change in self.changes).most_common())


def verdict(decision: Decision) -> str:
    """The verdict, and for a denial that policy did not mean the code of what went wrong."""
    name = _VERDICTS[type(decision)]
    if isinstance(decision, Deny) and decision.code.value != "policy_denied":
        return f"{name} ({decision.code.value})"
    return name


async def compare(
    old: PolicyBundle, new: PolicyBundle, questions: Sequence[Mapping[str, Any]]
) -> Comparison:
    """Put each `remit.input/1` document to both policies.

    Raises:
        PolicyFault: one of them does not load.
    """
    before = await PolicyPoint.start(old, deadline_ms=DEADLINE_MS)
    try:
        after = await PolicyPoint.start(new, deadline_ms=DEADLINE_MS)
        try:
            changes = []
            for number, question in enumerate(questions, 1):
                one = await before.decide(question, decision_id="dec_old")
                other = await after.decide(question, decision_id="dec_new")
                if _content(one) != _content(other):
                    changes.append(Change(number, question, one, other))
        finally:
            await after.aclose()
    finally:
        await before.aclose()
    return Comparison(len(questions), tuple(changes))


def _content(decision: Decision) -> dict[str, Any]:
    """All of a decision but the circumstances of its making."""
    content: dict[str, Any] = {"verdict": type(decision).__name__}
    for name in type(decision).__dataclass_fields__:
        if name != "evaluation":
            content[name] = getattr(decision, name)
    return content
