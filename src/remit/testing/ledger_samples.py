"""Small whole values for ledger tests, and the few steps that most of them take."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from remit.canonical import digest, digest_of, encode
from remit.model import (
    Activation,
    Allow,
    ApprovalDraft,
    ApprovalRule,
    Caller,
    CallerKind,
    Claims,
    Decision,
    Deny,
    Effect,
    Ending,
    EntryDraft,
    Evaluation,
    Frozen,
    Grant,
    Intent,
    Limits,
    Outcome,
    Permitted,
    Plan,
    PlanKind,
    RequireApproval,
    RunResult,
    RunState,
    Unenforced,
    Verdict,
    Vote,
)
from remit.ports import Ledger

START_MS = 1_790_000_000_000
REVISION = "rev-1"
TOOL = "restart_service"
TOOL_DIGEST = digest_of("remit.tool/1", TOOL)
KEY = "key-1"
NOTHING: tuple[EntryDraft, ...] = ()


class SetClock:
    """A clock that stands still until it is moved, and numbers the names it gives."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now = start_ms
        self._given = 0
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        return self._now

    def new_id(self, prefix: str) -> str:
        with self._lock:
            self._given += 1
            return f"{prefix}_{self._given:026d}"

    def move(self, milliseconds: int) -> None:
        self._now += milliseconds


def caller(subject: str = "agent-7", *, key_id: str = KEY) -> Caller:
    return Caller(tenant="acme", subject=subject, kind=CallerKind.AGENT, key_id=key_id)


def activation(revision: str = REVISION) -> Activation:
    return Activation(revision=revision, tools={TOOL: TOOL_DIGEST}, keys=frozenset({KEY}))


def plan(
    service: str = "web",
    *,
    call: str | None = None,
    kind: PlanKind = PlanKind.MAIN,
    note: str = "",
    mode: str | None = None,
) -> Plan:
    """A plan of the call on one service; another note makes another plan of the same call."""
    call_digest = call or digest_of("remit.call/1", service)
    upstream = {} if mode is None else {"upstream": {"mode": mode}}
    text = encode(
        {"call": call_digest, "service": service, "kind": kind.value, "note": note, **upstream}
    )
    return Plan(
        kind=kind,
        text=text,
        hash=digest("remit.plan/1", text),
        call_digest=call_digest,
        limits=Limits(),
    )


def evaluation(clock: SetClock, *, revision: str = REVISION) -> Evaluation:
    return Evaluation(
        decision_id=clock.new_id("dec"),
        revision=revision,
        engine="sample",
        input=Frozen(b"{}"),
        input_digest=digest("remit.input/1", b"{}"),
        decided_ms=clock.now_ms(),
    )


def allow(clock: SetClock, *, revision: str = REVISION) -> Allow:
    return Allow(evaluation=evaluation(clock, revision=revision), reasons=())


def require(clock: SetClock, rule: ApprovalRule | None = None) -> RequireApproval:
    return RequireApproval(
        evaluation=evaluation(clock), reasons=(), approvals=rule or ApprovalRule()
    )


def unenforced(clock: SetClock, answer: Decision | None = None) -> Unenforced:
    """An answer, a denial unless another is given, from which nothing follows."""
    return Unenforced(answer=answer or Deny(evaluation=evaluation(clock), reasons=()))


def decision_entry(a_plan: Plan, decision: Permitted) -> EntryDraft:
    """The entry that the pipeline writes for this decision, as far as verifying needs it."""
    left_aside = {"enforced": False} if isinstance(decision, Unenforced) else {}
    return EntryDraft(
        event="decision",
        public=left_aside
        | {
            "decision": decision.evaluation.decision_id,
            "verdict": decision.verdict,
            "plan_hash": a_plan.hash,
            "call_digest": a_plan.call_digest,
            "policy": {"revision": decision.evaluation.revision, "engine": "sample"},
        },
        sealed={"input": decision.evaluation.input.text},
    )


def intent(clock: SetClock, **changes: Any) -> Intent:
    """An intent that every check lets through, once `activation()` is in force."""
    a_plan = changes.get("plan") or plan()
    fields: dict[str, Any] = {
        "run_id": clock.new_id("run"),
        "plan": a_plan,
        "call_id": clock.new_id("call"),
        "call_digest": a_plan.call_digest,
        "caller": caller(),
        "tool_name": TOOL,
        "tool_digest": TOOL_DIGEST,
        "effect": Effect.WRITE,
        "idempotent": False,
        "environment": "staging",
        "decision": changes.get("decision") or allow(clock),
        "approval_id": None,
        "idempotency_key": None,
        "now_ms": clock.now_ms(),
        "deadline_ms": clock.now_ms() + 40_000,
        "claims": Claims(purpose="restart it"),
    }
    return Intent(**(fields | changes))


def outcome(
    clock: SetClock,
    grant: Grant,
    state: RunState = RunState.SUCCEEDED,
    *,
    reply: Mapping[str, Any] | None = None,
) -> Outcome:
    result = RunResult(ending=Ending.EXIT, exit_code=0, stdout=b"done\n", wall_ms=5)
    return Outcome(
        run_id=grant.run_id,
        fence=grant.fence,
        state=state,
        code=None,
        result=result if state is RunState.SUCCEEDED else None,
        reply=None if reply is None else Frozen(encode(reply)),
        settled_ms=clock.now_ms(),
    )


def outcome_entry(stdout: bytes = b"done\n") -> EntryDraft:
    return EntryDraft(event="call.outcome", public={"exit_code": 0}, sealed={"stdout": stdout})


def approval_draft(clock: SetClock, a_plan: Plan | None = None, **changes: Any) -> ApprovalDraft:
    chosen = a_plan or plan()
    fields: dict[str, Any] = {
        "id": clock.new_id("apr"),
        "plan": chosen,
        "call_digest": chosen.call_digest,
        "caller": caller(),
        "tool_name": TOOL,
        "environment": "production",
        "rule": ApprovalRule(),
        "decision_id": clock.new_id("dec"),
        "revision": REVISION,
        "opened_ms": clock.now_ms(),
        "expires_ms": clock.now_ms() + 900_000,
        "shown": Frozen(b'{"service":"web"}'),
    }
    return ApprovalDraft(**(fields | changes))


def vote(
    clock: SetClock,
    subject: str = "olga",
    verdict: Verdict = Verdict.APPROVE,
    *,
    groups: tuple[str, ...] = ("sre",),
) -> Vote:
    return Vote(subject=subject, verdict=verdict, voted_ms=clock.now_ms(), groups=groups)


async def events(ledger: Ledger) -> list[str]:
    return [json.loads(each.text)["event"] for each in await ledger.entries(0, 1000)]


async def document(ledger: Ledger, index: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await ledger.entries(index, index + 1))[0].text)
    return found


async def granted(ledger: Ledger, clock: SetClock, **changes: Any) -> Grant:
    return await ledger.commit_intent(intent(clock, **changes), NOTHING)


async def ended(ledger: Ledger, clock: SetClock, state: RunState, **changes: Any) -> Grant:
    grant = await granted(ledger, clock, **changes)
    await ledger.start(grant, clock.now_ms())
    await ledger.settle(outcome(clock, grant, state), outcome_entry())
    return grant
