"""Step 7: one transaction checks everything once more and writes the intent, before any effect.

This is the only place that asks the ledger for a grant. No intent, no run.
"""

from __future__ import annotations

from remit.model import Effect, Grant, Intent, Obliged, PlanKind
from remit.ports import Clock, Ledger
from remit.profile import ELSEWHERE
from remit.stages.history import Histories
from remit.stages.record import Record
from remit.telemetry import annotate

START_ALLOWANCE_MS = 10_000
"""Time between intent and deadline beyond the plan's own wall time, for making the runner."""


async def commit(
    ledger: Ledger,
    clock: Clock,
    obliged: Obliged,
    record: Record,
    histories: Histories,
    *,
    parent_run_id: str | None = None,
) -> Grant:
    """The single-use permission to run this plan, once its intent is durable and remembered.

    The ledger checks, in that one transaction: freeze, policy revision, age of the decision,
    tool pin, caller, approval (unspent, unexpired, for this hash) and earlier runs of the call.

    Raises:
        Refused: with the code of the first check that does not hold; nothing was written then
            but the refusal.
    """
    approved = obliged.approved
    planned = approved.decided.planned
    normal = planned.admitted.normal
    now = clock.now_ms()
    intent = Intent(
        run_id=clock.new_id("run"),
        plan=planned.plan,
        call_id=normal.call.id,
        call_digest=normal.digest,
        caller=normal.call.caller,
        tool_name=normal.tool.name,
        tool_digest=normal.tool.digest,
        effect=Effect.READ if planned.plan.kind is PlanKind.PREVIEW else normal.tool.effect,
        idempotent=normal.tool.idempotent,
        environment=normal.environment,
        decision=approved.decided.decision,
        approval_id=None if approved.approval is None else approved.approval.id,
        idempotency_key=normal.call.idempotency_key,
        now_ms=now,
        deadline_ms=now + 1000 * planned.plan.limits.wall_s + START_ALLOWANCE_MS,
        claims=normal.call.claims,
        parent_run_id=parent_run_id,
        system=normal.tool.system,
        taints=normal.tool.returns,
        starts=planned.plan.profile == ELSEWHERE,  # nothing is made for it that could fail first
    )
    annotate(run_id=intent.run_id, plan_hash=planned.plan.hash)
    with record.handed_over() as drafts:
        grant = await ledger.commit_intent(intent, drafts)
    histories.committed(intent)
    return grant
