"""A decision as `remit policy` prints it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from remit.model import (
    Allow,
    ApprovalRule,
    Bound,
    CallLimits,
    Constraints,
    Decision,
    Deny,
    RequireApproval,
)


def facts_of(decision: Decision) -> dict[str, Any]:
    """A decision as JSON, with what would happen to the call."""
    facts: dict[str, Any] = {"decision": _VERDICT[type(decision)]}
    if isinstance(decision, Deny):
        facts["code"] = decision.code.value
        facts["retriable"] = decision.retriable
    facts["reasons"] = [
        {
            name: value
            for name in ("code", "message", "audience", "path", "rule", "layer")
            if (value := getattr(reason, name)) is not None
        }
        for reason in decision.reasons
    ]
    if not isinstance(decision, Deny):
        facts["constraints"] = _constraints(decision.constraints)
    if isinstance(decision, RequireApproval):
        facts["approvals"] = _approvals(decision.approvals)
    if not isinstance(decision, Deny) and (limits := _limits(decision.limits)):
        facts["limits"] = limits
    facts["obligations"] = [
        {"id": each.id, "type": each.type, "properties": each.properties.value()}
        for each in decision.obligations
    ]
    told = decision.evaluation
    facts["revision"] = told.revision
    facts["engine"] = told.engine
    facts["input_digest"] = told.input_digest
    facts["took_us"] = told.duration_us
    if len(told.layers) > 1:
        facts["layers"] = dict(told.layers)
    return facts


_VERDICT = {Allow: "allow", Deny: "deny", RequireApproval: "require_approval"}


def _approvals(rule: ApprovalRule) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "required": rule.required,
        "groups": list(rule.groups),
        "exclude": list(rule.exclude),
        "separation_of_duties": rule.separation_of_duties,
        "ttl_s": rule.ttl_s,
        "reason_required": rule.reason_required,
    }
    if rule.also:
        facts["also"] = [
            {"required": each.required, "groups": list(each.groups)} for each in rule.also
        ]
    return facts


_PLAIN = ("profile", "min_tier", "wall_s", "cpu_ms", "memory_mb", "output_max_bytes")
_LISTS = ("redact", "output_redact", "output_content_types")


def _constraints(constraints: Constraints) -> dict[str, Any]:
    """The constraints that say something, under the names that the plan's limits have."""
    found: dict[str, Any] = {
        name: value for name in _PLAIN if (value := getattr(constraints, name)) is not None
    }
    found |= {name: list(value) for name in _LISTS if (value := getattr(constraints, name))}
    if constraints.bounds:
        found["bounds"] = {name: _bound(bound) for name, bound in constraints.bounds.items()}
    if constraints.force:
        found["force"] = {name: value.value() for name, value in constraints.force.items()}
    for name in ("egress", "credentials"):
        rules = getattr(constraints, name)
        if rules is not None:
            found[name] = [_stated(asdict(rule)) for rule in rules]
    return found


def _limits(limits: CallLimits) -> dict[str, Any]:
    return {name: value for name, value in _stated(asdict(limits)).items() if value}


def _stated(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _bound(bound: Bound) -> dict[str, Any]:
    found = {
        "minimum": bound.minimum,
        "maximum": bound.maximum,
        "one_of": None if bound.one_of is None else list(bound.one_of),
    }
    return {name: value for name, value in found.items() if value is not None}


def text_of(facts: Mapping[str, Any]) -> str:
    """A decision for a person; `facts` are those of `facts_of`."""
    code = f" ({facts['code']})" if "code" in facts else ""
    lines = [f"{facts['decision']}{code}"]
    for reason in facts["reasons"]:
        place = f" at {reason['path']}" if reason.get("path") else ""
        layer = f" [{reason['layer']}]" if reason.get("layer") else ""
        lines.append(
            f"  {reason['audience']:5}  {reason['code']}{place}: {reason['message']}{layer}"
        )
    lines += [
        f"  {part}: {json.dumps(facts[part])}"
        for part in ("constraints", "approvals", "limits", "obligations")
        if facts.get(part)
    ]
    lines.append(f"  revision {facts['revision']}, {facts['engine']}, {facts['took_us']} us")
    return "\n".join(lines)
