"""A recorded decision held against what policy answers to its input now.

The same revision must give the same answer: verdict, code, reasons and obligations, and the words
of the reasons where they are still there. Where the record says that policy gave no answer in time,
there is none to compare with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from remit.cli.policy.evaluate import point_of
from remit.model import Decision, Deny
from remit.visible import visible

if TYPE_CHECKING:
    from remit.ledger.decisions import RecordedDecision
    from remit.policy.bundle import PolicyBundle

DEADLINE_MS = 5_000

_PASSING = frozenset({"policy_unavailable", "policy_not_ready"})
_FAULTS = _PASSING | {
    "policy_undefined", "policy_bad_decision", "policy_error", "policy_inconsistent",
    "policy_unsupported",
}  # fmt: skip


class Outcome(StrEnum):
    """How a replay ended."""

    SAME = "same"
    DIFFERENT = "different"
    OTHER_POLICY = "other_policy"
    NONE_RECORDED = "none_recorded"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A recorded decision, and the decision of these layers on its input.

    `differs` names the parts that are not as recorded. `layers` is name and revision of each
    layer here, in the order of the record.
    """

    recorded: RecordedDecision
    decision: Decision
    layers: tuple[tuple[str, str], ...]
    differs: tuple[str, ...]

    @property
    def revision(self) -> str:
        """The one revision of the layers here."""
        return self.decision.evaluation.revision

    @property
    def outcome(self) -> Outcome:
        """Whether the record was met, and if not why."""
        if self.revision != self.recorded.revision:
            return Outcome.OTHER_POLICY
        if not self.differs:
            return Outcome.SAME
        if isinstance(self.decision, Deny) and self.decision.code.value in _PASSING:
            return Outcome.NO_ANSWER
        return Outcome.NONE_RECORDED if _passing(self.recorded) else Outcome.DIFFERENT


def in_order(
    bundles: Mapping[str, PolicyBundle], recorded: RecordedDecision
) -> dict[str, PolicyBundle]:
    """The layers as the record orders them, if they have its names: their revision tells the
    order, which their decision does not depend on."""
    names = [name for name, _ in recorded.layers]
    ordered = names if sorted(names) == sorted(bundles) else list(bundles)
    return {name: bundles[name] for name in ordered}


async def replay(
    bundles: Mapping[str, PolicyBundle], recorded: RecordedDecision, document: Mapping[str, Any]
) -> Replay:
    """Put a recorded input to these layers, as the gateway puts it, in the embedded engine.

    Raises:
        PolicyFault: a policy does not load.
    """
    point = await point_of(bundles, DEADLINE_MS)
    try:
        decision = await point.decide(document, decision_id=recorded.id)
    finally:
        await point.aclose()
    return compared(recorded, decision)


def compared(recorded: RecordedDecision, decision: Decision) -> Replay:
    """A recorded decision beside another on the same input."""
    from remit.policy.compare import verdict

    reasons = [(each.code, each.message) for each in decision.reasons]
    pairs: dict[str, tuple[Any, Any]] = {
        "verdict": (told_verdict(recorded), verdict(decision)),
        "reasons": (list(recorded.reasons), [code for code, _ in reasons]),
        "obligations": (list(recorded.obligations), [one.type for one in decision.obligations]),
    }
    if recorded.told is not None:
        pairs["messages"] = (_meant(recorded.told), _meant(reasons))
    return Replay(
        recorded=recorded,
        decision=decision,
        layers=decision.evaluation.layers,
        differs=tuple(name for name, (old, new) in pairs.items() if old != new),
    )


def told_verdict(recorded: RecordedDecision) -> str:
    """The recorded verdict as a verdict is printed: with the code of a denial nobody meant."""
    meant = recorded.code in (None, "policy_denied")
    return recorded.verdict if meant else f"{recorded.verdict} ({recorded.code})"


def _meant(reasons: Any) -> list[tuple[str, str]]:
    """Reasons that policy gave; the words for a fault are the engine's, and each has its own."""
    return [(code, message) for code, message in reasons if code not in _FAULTS]


def _passing(recorded: RecordedDecision) -> bool:
    """Whether policy, or one layer of it, gave no answer for a reason that has passed."""
    several = len(recorded.layers) > 1
    return recorded.code in _PASSING or (several and not _PASSING.isdisjoint(recorded.reasons))


# ------------------------------------------------------------------------------------ what is told


def lines(found: Replay) -> Iterator[str]:
    """What was recorded, and how the policy here stands to it."""
    recorded = found.recorded
    yield visible(f"{recorded.id}, entry {recorded.index}, {recorded.time}")
    yield visible(f"  recorded: {_said(told_verdict(recorded), recorded.reasons)}")
    yield visible(f"  revision {recorded.revision}, {recorded.engine}")
    match found.outcome:
        case Outcome.SAME:
            yield "  the policy here has the same revision and gives the same answer"
        case Outcome.DIFFERENT:
            yield f"  THE POLICY HERE HAS THE SAME REVISION AND GIVES ANOTHER ANSWER: {_now(found)}"
        case Outcome.NO_ANSWER:
            yield "  the policy here has the same revision, but gave no answer now"
        case Outcome.NONE_RECORDED:
            yield "  the policy here has the same revision, but gave no answer then to compare with"
        case Outcome.OTHER_POLICY:
            yield f"  the policy here is another: {found.revision}"
            yield "    (--configured asks all that remit.yaml has, `use` and `layers` too)"
            yield from _others(found)
            yield f"  it answers {'otherwise' if found.differs else 'the same'}: {_now(found)}"
    if found.differs:
        yield f"  not as recorded: {', '.join(found.differs)}"


def _now(found: Replay) -> str:
    from remit.policy.compare import verdict

    return visible(_said(verdict(found.decision), [each.code for each in found.decision.reasons]))


def _said(verdict: str, reasons: Any) -> str:
    return f"{verdict}: {', '.join(reasons) or 'no reasons'}"


def _others(found: Replay) -> Iterator[str]:
    """The layers that are not as recorded, where the record names layers."""
    was, here = dict(found.recorded.layers), dict(found.layers)
    for name in [*was, *(name for name in here if name not in was)] if was else ():
        if was.get(name) != here.get(name):
            yield visible(f"    {name}: {was.get(name, 'absent')}, here {here.get(name, 'absent')}")


def facts(found: Replay) -> dict[str, Any]:
    """The same for programs."""
    recorded = found.recorded
    return {
        "decision_id": recorded.id,
        "entry": recorded.index,
        "time": recorded.time,
        "decision": told_verdict(recorded),
        "reasons": list(recorded.reasons),
        "revision": recorded.revision,
        "engine": recorded.engine,
        "layers": dict(recorded.layers),
        "revision_here": found.revision,
        "outcome": found.outcome.value,
        "differs": list(found.differs),
    }
