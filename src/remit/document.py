"""`remit.input/1`: the one document that policy sees, built from model values.

Every top-level key is always there, with an explicit empty value where there is nothing to say,
so that a rule never turns undefined because a field was left out. Facts about the tool come from
the operator's catalog; what the caller says of itself stands under `claims`, `verified: false`.
No number here is a float, save inside `arguments`, `answers`, a preview's `data` and a result's
`structured`.

These functions are pure: the same values give the same document. docs/policy-input.md is the
reference; the JSON Schema is `remit/schemas/remit.input-1.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from remit import canonical
from remit.history import NO_HISTORY, History, Trail
from remit.model import (
    Approval,
    Caller,
    Capabilities,
    Claims,
    CredentialRule,
    EgressRule,
    Frozen,
    Limits,
    NormalCall,
    Plan,
    PlanKind,
    PreviewResult,
    Round,
    Tier,
    Tool,
)
from remit.reach import credential_facts, egress_facts

SCHEMA = "remit.input/1"

MAX_TOOLS = 200
"""The most tools one `list` document may name."""

MAX_BYTES = 256 * 1024
"""A document larger than this is denied before it reaches an engine."""


def call_document(
    *,
    normal: NormalCall,
    plan: Plan,
    capabilities: Capabilities,
    now_ms: int,
    profiles: Mapping[str, Tier] | None = None,
    arguments: Frozen | None = None,
    preview: PreviewResult | None = None,
    approvals: Sequence[Approval] = (),
    history: History = NO_HISTORY,
    result: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document about one plan; its phase is `preview` for a preview's plan, `result` once it
    has run and the question is about its result, else `call`.

    Args:
        normal: the call in its one spelling.
        plan: what would run.
        capabilities: the runner that would run it.
        now_ms: the gateway's clock.
        profiles: the runner profiles that policy may name for it, by their tiers; None where
            there is only the plan's own.
        arguments: the plan's arguments where policy has forced some; else those of the call.
        preview: what the preview showed, once it has run.
        approvals: those the gateway has verified for this plan; their votes go in as
            `verified: true`, so the caller of this function must have checked them.
        history: what the subject did before.
        result: what came of it (`stages/review.py`).
    """
    call = normal.call
    final = normal.arguments if arguments is None else arguments
    document = _frame(
        phase="result" if result is not None else _PHASE[plan.kind],
        request_id=call.id,
        caller=call.caller,
        claims=call.claims,
        source_ip=call.source_ip,
        now_ms=now_ms,
        history=history,
    )
    document["tool"] = tool_facts(normal.tool)
    document["arguments"] = final.value()
    document["arguments_meta"] = {
        "digest": canonical.digest("remit.arguments/1", final.text),
        "bytes": len(final.text),
        "elided": [],
        "taint": [],
    }
    document["answers"] = _answers(normal.round)
    document["context"] |= {"environment": normal.environment, "call_digest": normal.digest}
    document["approvals"] = _votes(approvals)
    own = {plan.profile: capabilities.tier}
    document["plan"] = _plan(plan, capabilities, own if profiles is None else profiles)
    document["preview"] = None if preview is None else _preview(preview)
    document["result"] = None if result is None else dict(result)
    return document


_PHASE = {PlanKind.PREVIEW: "preview", PlanKind.MAIN: "call"}


def list_document(
    *,
    caller: Caller,
    tools: Sequence[Tool],
    now_ms: int,
    request_id: str = "",
    claims: Claims | None = None,
    source_ip: str | None = None,
) -> dict[str, Any]:
    """The document that asks which of these tools the caller may see.

    It tells nothing of earlier calls: what is visible is remembered for a while, and so must not
    depend on them. It may name more than `MAX_TOOLS`: the policy point puts them to the engine in batches.
    """
    document = _frame(
        phase="list",
        request_id=request_id,
        caller=caller,
        claims=Claims() if claims is None else claims,
        source_ip=source_ip,
        now_ms=now_ms,
    )
    document["tools"] = [tool_facts(tool) for tool in tools]
    return document


def tool_facts(tool: Tool) -> dict[str, Any]:
    """What policy may know of a tool: the operator's words, never the tool's own."""
    rule = tool.environment
    return {
        "server": "command",
        "name": tool.name,
        "digest": tool.digest,
        "pinned_digest": tool.digest,
        "risk": tool.risk.value,
        "effect": tool.effect.value,
        "idempotent": tool.idempotent,
        "open_world": tool.open_world,
        "source": "catalog",
        "system": tool.system,
        "returns": [taint.value for taint in tool.returns],
        "egress": [_egress(rule) for rule in tool.egress],
        "credentials": [_credential(rule) for rule in tool.credentials],
        "tags": list(tool.tags),
        # A tool that names no environment acts in "", as `context.environment` says then.
        "environments": [rule.fixed or ""] if rule.argument is None else list(rule.names),
    }


def rfc3339(at_ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 text in UTC, always with three decimals."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def _frame(
    *,
    phase: str,
    request_id: str,
    caller: Caller,
    claims: Claims,
    source_ip: str | None,
    now_ms: int,
    history: History = NO_HISTORY,
) -> dict[str, Any]:
    """Every top-level key, with an empty value where the phase has nothing to say."""
    return {
        "schema": SCHEMA,
        "request_id": request_id,
        "phase": phase,
        "caller": _caller(caller),
        "claims": _claims(claims),
        "tool": None,
        "tools": [],
        "arguments": {},
        "arguments_meta": {"digest": "", "bytes": 0, "elided": [], "taint": []},
        "answers": _answers(None),
        "context": {
            "environment": "",
            "time": rfc3339(now_ms),
            "source_ip": source_ip or "",
            "trace_id": claims.trace_id or "",
            "call_digest": "",
            "break_glass": False,
        },
        "usage": {},
        "estimate": {},
        "approvals": [],
        "plan": None,
        "preview": None,
        "history": _history(history),
        "result": None,
    }


def _answers(found: Round | None) -> dict[str, Any]:
    """What the caller answers to a server's questions; `content` is there also where it is not."""
    if found is None:
        return {"round": 0, "given": {}}
    given = {name: {"content": {}, **each} for name, each in found.answers.value().items()}
    return {"round": found.number, "given": given}


def _history(history: History) -> dict[str, Any]:
    return {
        **_trail(history.all),
        "since": "" if history.since_ms is None else rfc3339(history.since_ms),
        "session": _trail(history.session),
    }


def _trail(trail: Trail) -> dict[str, Any]:
    return {
        "calls": trail.calls,
        "systems": list(trail.systems),
        "effects": list(trail.effects),
        "untrusted": bool(trail.untrusted_from),
        "sensitive": bool(trail.sensitive_from),
        "untrusted_from": list(trail.untrusted_from),
        "sensitive_from": list(trail.sensitive_from),
    }


def _egress(rule: EgressRule) -> dict[str, Any]:
    """One destination; `methods` and `path_prefix` are there only where they bound it."""
    facts: dict[str, Any] = {"host": rule.host, "port": rule.port}
    if rule.methods is not None:
        facts["methods"] = list(rule.methods)
    if rule.path_prefix is not None:
        facts["path_prefix"] = rule.path_prefix
    return facts


def _credential(rule: CredentialRule) -> dict[str, Any]:
    return {"ref": rule.ref, "scopes": list(rule.scopes), "audience": rule.audience or ""}


def _caller(caller: Caller) -> dict[str, Any]:
    return {
        "tenant": caller.tenant,
        "subject": caller.subject,
        "kind": caller.kind.value,
        "issuer": caller.issuer,
        "groups": list(caller.groups),
        "roles": [],
        "amr": list(caller.amr),
        "acr": caller.acr,
        "auth_time": "" if caller.auth_ms is None else rfc3339(caller.auth_ms),
        "delegation": [
            {"subject": actor.subject, "kind": actor.kind.value} for actor in caller.chain
        ],
    }


def _claims(claims: Claims) -> dict[str, Any]:
    return {
        "purpose": claims.purpose or "",
        "ticket": claims.ticket or "",
        "client_name": claims.client_name or "",
        "client_version": claims.client_version or "",
        "session_id": claims.session_id or "",
        "verified": False,
    }


def _plan(plan: Plan, runner: Capabilities, profiles: Mapping[str, Tier]) -> dict[str, Any]:
    return {
        "hash": plan.hash,
        "kind": plan.kind.value,
        "runner": {
            "name": runner.name,
            "digest": runner.digest,
            "tier": runner.tier.value,
            "profile": plan.profile,
            "profiles": {name: tier.value for name, tier in profiles.items()},
        },
        "limits": limits_facts(plan.limits),
        "egress": egress_facts(plan.egress),
        "credentials": credential_facts(plan.credentials),
    }


def limits_facts(limits: Limits) -> dict[str, int]:
    """Limits as plans and policy documents name them."""
    return {
        "wall_s": limits.wall_s,
        "memory_mb": limits.memory_mb,
        "pids": limits.pids,
        "cpu_percent": limits.cpu_percent,
        "tmp_mb": limits.tmp_mb,
        "output_bytes": limits.output_bytes,
        "open_files": limits.open_files,
    }


def _preview(preview: PreviewResult) -> dict[str, Any]:
    return {
        "digest": preview.digest,
        "bytes": preview.bytes,
        "exit": preview.exit,
        "data": None if preview.data is None else preview.data.value(),
    }


def _votes(approvals: Sequence[Approval]) -> list[dict[str, Any]]:
    return [
        {
            "id": approval.id,
            "subject": vote.subject,
            "groups": list(vote.groups),
            "verdict": vote.verdict.value,
            "plan_hash": approval.plan_hash,
            "voted": rfc3339(vote.voted_ms),
            "expires": rfc3339(approval.expires_ms),
            "verified": True,
        }
        for approval in approvals
        for vote in approval.votes
    ]
