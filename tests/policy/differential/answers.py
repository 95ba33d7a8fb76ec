"""One question put to two engines, and what each makes of it as a whole decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from remit import canonical
from remit.errors import Code, PolicyFault
from remit.model import Decision, Deny
from remit.policy.engine import Engine
from remit.policy.verdict import denial, judge
from tests.policy.world import EVALUATION


async def decided(engine: Engine, entry: str, document: dict[str, Any]) -> Decision:
    """The decision of an entry, as the policy point would read it, without its circumstances."""
    try:
        answer = await engine.evaluate((f"{entry}.decision",), canonical.encode(document))
        decision = judge(canonical.parse(answer.values[0]), EVALUATION)
    except PolicyFault as fault:
        decision = denial(fault, EVALUATION)
    if isinstance(decision, Deny) and decision.code is not Code.POLICY_DENIED:
        # What an engine says of its fault is its own; that it is one, and which, is not.
        return replace(decision, reasons=())
    return decision


async def shown(engine: Engine, entry: str, document: dict[str, Any]) -> Any:
    """What an entry's `visible` says, or the code of why it says nothing."""
    try:
        answer = await engine.evaluate((f"{entry}.visible",), canonical.encode(document))
    except PolicyFault as fault:
        return fault.code
    return canonical.parse(answer.values[0])
