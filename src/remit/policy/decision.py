"""Reads `remit.decision/1`, the answer of policy, into values; refuses everything else.

The JSON Schema `remit/schemas/remit.decision-1.json` says the same for policy authors; a test
holds the two equal in both directions. Reading checks shape only: whether the parts agree with
each other, and whether Remit can enforce them, is `verdict.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from remit import canonical
from remit.model import (
    ApprovalRule,
    Bound,
    CallLimits,
    Constraints,
    CredentialRule,
    EgressRule,
    Frozen,
    Obligation,
    Reason,
    Tier,
)
from remit.policy.shape import (
    bad,
    choice,
    fields,
    flag,
    integer,
    items,
    mapping,
    number,
    pointers,
    scalar,
    text,
    texts,
)

SCHEMA = "remit.decision/1"

ALLOW = "allow"
DENY = "deny"
REQUIRE_APPROVAL = "require_approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A well-shaped answer. `denies` says that a reason forbids the call."""

    decision: str
    reasons: tuple[Reason, ...]
    denies: bool
    constraints: Constraints
    approvals: ApprovalRule | None
    limits: CallLimits
    obligations: tuple[Obligation, ...]


_NONE: frozenset[str] = frozenset()
_DECISIONS = frozenset({ALLOW, DENY, REQUIRE_APPROVAL})
_TOP = frozenset({"schema", "decision", "reasons"})
_TOP_OPTIONAL = frozenset({"constraints", "approvals", "limits", "obligations", "advice", "policy"})
_AUDIENCES = frozenset({"user", "admin"})
_TIERS = frozenset(tier.value for tier in Tier)
_OBLIGATIONS = frozenset({"log", "notify", "step_up", "quarantine"})
_CODE = re.compile(r"[a-z][a-z0-9_.-]*")
_NO_CONSTRAINTS = Constraints()
_NO_LIMITS = CallLimits()


def read(value: Any) -> Answer:
    """The answer in a `remit.decision/1` document.

    Raises:
        PolicyFault: `policy_bad_decision`, with the place of what is wrong and no value echoed.
    """
    top = fields(value, "", _TOP, _TOP_OPTIONAL)
    if top["schema"] != SCHEMA:
        raise bad("/schema", f"is not {SCHEMA}")
    decision = choice(top["decision"], "/decision", _DECISIONS)
    reasons = items(top["reasons"], "/reasons", _reason, 64, 1)
    denies = any(reason.get("denies") is True for reason in top["reasons"])
    if len(top) > len(_TOP):
        items(top.get("advice", []), "/advice", _advice, 32)
        if "policy" in top:
            _policy(top["policy"])
    return Answer(
        decision=decision,
        reasons=reasons,
        denies=denies,
        constraints=_constraints(top["constraints"]) if "constraints" in top else _NO_CONSTRAINTS,
        approvals=_approvals(top.get("approvals")),
        limits=_limits(top["limits"]) if "limits" in top else _NO_LIMITS,
        obligations=items(top.get("obligations", []), "/obligations", _obligation, 32),
    )


def code(value: Any, place: str) -> str:
    found = text(value, place, 64)
    if _CODE.fullmatch(found) is None:
        raise bad(place, "is not a code (lower-case letters, digits, . _ -)")
    return found


_REASON = frozenset({"code", "message"})
_REASON_OPTIONAL = frozenset({"audience", "path", "rule", "denies"})


def _reason(value: Any, place: str) -> Reason:
    found = fields(value, place, _REASON, _REASON_OPTIONAL)
    if "denies" in found:
        flag(found["denies"], f"{place}/denies")
    return Reason(
        code=code(found["code"], f"{place}/code"),
        message=text(found["message"], f"{place}/message", 1024, 1),
        audience=choice(found.get("audience", "admin"), f"{place}/audience", _AUDIENCES),
        path=text(found["path"], f"{place}/path", 512) if "path" in found else None,
        rule=text(found["rule"], f"{place}/rule", 256) if "rule" in found else None,
    )


_CONSTRAINTS = frozenset({"arguments", "runner", "egress", "credentials", "output"})
_ARGUMENTS = frozenset({"bounds", "force", "redact"})
_RUNNER = frozenset({"profile", "min_tier", "wall_s", "cpu_ms", "memory_mb"})
_OUTPUT = frozenset({"max_bytes", "redact", "content_types"})


def _constraints(value: Any) -> Constraints:
    found = fields(value, "/constraints", _NONE, _CONSTRAINTS)
    at = "/constraints/arguments"
    arguments = fields(found.get("arguments", {}), at, _NONE, _ARGUMENTS)
    bounds = _by_argument(arguments.get("bounds", {}), f"{at}/bounds")
    force = _by_argument(arguments.get("force", {}), f"{at}/force")
    redact = pointers(arguments.get("redact", []), f"{at}/redact")
    at = "/constraints/runner"
    runner = fields(found.get("runner", {}), at, _NONE, _RUNNER)
    profile = text(runner["profile"], f"{at}/profile", 64, 1) if "profile" in runner else None
    tier = choice(runner["min_tier"], f"{at}/min_tier", _TIERS) if "min_tier" in runner else None
    at_output = "/constraints/output"
    output = fields(found.get("output", {}), at_output, _NONE, _OUTPUT)
    return Constraints(
        bounds={key: _bound(item, "/constraints/arguments/bounds") for key, item in bounds.items()},
        force={key: Frozen(canonical.encode(item)) for key, item in force.items()},
        redact=redact,
        profile=profile,
        min_tier=tier,
        wall_s=_positive(runner, at, "wall_s"),
        cpu_ms=_positive(runner, at, "cpu_ms"),
        memory_mb=_positive(runner, at, "memory_mb"),
        egress=_egress(found["egress"]) if "egress" in found else None,
        credentials=_credentials(found["credentials"]) if "credentials" in found else None,
        output_max_bytes=_positive(output, at_output, "max_bytes"),
        output_redact=pointers(output.get("redact", []), f"{at_output}/redact"),
        output_content_types=_content_types(output, f"{at_output}/content_types"),
    )


def _positive(found: dict[str, Any], place: str, name: str) -> int | None:
    return integer(found[name], f"{place}/{name}", 1) if name in found else None


def _by_argument(value: Any, place: str) -> dict[str, Any]:
    found = mapping(value, place)
    if len(found) > 64:
        raise bad(place, "has more than 64 fields")
    for key in found:
        if key.startswith("/"):  # a pointer would name no argument, and so bound nothing
            raise bad(place, "names an argument with a slash")
        text(key, place, 128, 1)
    return found


_BOUND = frozenset({"minimum", "maximum", "one_of"})


def _bound(value: Any, place: str) -> Bound:
    found = fields(value, place, _NONE, _BOUND)
    if not found:
        raise bad(place, "has a bound that says nothing")
    return Bound(
        minimum=number(found["minimum"], place) if "minimum" in found else None,
        maximum=number(found["maximum"], place) if "maximum" in found else None,
        one_of=items(found["one_of"], place, scalar, 256, 1) if "one_of" in found else None,
    )


_EGRESS = frozenset({"host", "port"})
_EGRESS_OPTIONAL = frozenset({"methods", "path_prefix"})


def _egress(value: Any) -> tuple[EgressRule, ...]:
    def rule(item: Any, place: str) -> EgressRule:
        found = fields(item, place, _EGRESS, _EGRESS_OPTIONAL)
        return EgressRule(
            host=text(found["host"], f"{place}/host", 253, 1),
            port=integer(found["port"], f"{place}/port", 1, 65535),
            methods=items(found["methods"], f"{place}/methods", _method, 16)
            if "methods" in found
            else None,
            path_prefix=text(found["path_prefix"], f"{place}/path_prefix", 512)
            if "path_prefix" in found
            else None,
        )

    return items(value, "/constraints/egress", rule, 64)


def _method(value: Any, place: str) -> str:
    return text(value, place, 16, 1)


_CREDENTIAL = frozenset({"ref"})
_CREDENTIAL_OPTIONAL = frozenset({"scopes", "ttl_s", "audience"})


def _credentials(value: Any) -> tuple[CredentialRule, ...]:
    def rule(item: Any, place: str) -> CredentialRule:
        found = fields(item, place, _CREDENTIAL, _CREDENTIAL_OPTIONAL)
        return CredentialRule(
            ref=text(found["ref"], f"{place}/ref", 256, 1),
            scopes=texts(found.get("scopes", []), f"{place}/scopes", 64),
            ttl_s=_positive(found, place, "ttl_s"),
            # Empty as in `input.tool.credentials`: whoever the catalog lets it be for.
            audience=(text(found["audience"], f"{place}/audience", 256) or None)
            if "audience" in found
            else None,
        )

    return items(value, "/constraints/credentials", rule, 32)


def _content_types(output: dict[str, Any], place: str) -> tuple[str, ...] | None:
    if "content_types" not in output:
        return None
    return items(output["content_types"], place, lambda item, at: text(item, at, 128, 1), 32)


_APPROVALS = frozenset({"required"})
_APPROVALS_OPTIONAL = frozenset(
    {
        "groups",
        "exclude",
        "separation_of_duties",
        "ttl_s",
        "reason_required",
        "on_timeout",
        "assurance",
    }
)
_ASSURANCE = frozenset({"acr", "max_age_s"})


def _approvals(value: Any) -> ApprovalRule | None:
    """`required` below 1 is well-shaped: `verdict.py` calls it inconsistent."""
    if value is None:
        return None
    at = "/approvals"
    found = fields(value, at, _APPROVALS, _APPROVALS_OPTIONAL)
    if found.get("on_timeout", DENY) != DENY:
        raise bad(f"{at}/on_timeout", "is not deny")
    if "assurance" in found:
        assurance = fields(found["assurance"], f"{at}/assurance", _NONE, _ASSURANCE)
        text(assurance.get("acr", ""), f"{at}/assurance/acr", 256)
        _positive(assurance, f"{at}/assurance", "max_age_s")
    rule = ApprovalRule()
    return ApprovalRule(
        required=integer(found["required"], f"{at}/required", None, 5),
        groups=texts(found.get("groups", []), f"{at}/groups", 32, 1),
        exclude=texts(found.get("exclude", []), f"{at}/exclude", 64, 1),
        separation_of_duties=flag(
            found.get("separation_of_duties", rule.separation_of_duties),
            f"{at}/separation_of_duties",
        ),
        ttl_s=integer(found["ttl_s"], f"{at}/ttl_s", 1, 604_800) if "ttl_s" in found else None,
        reason_required=flag(found.get("reason_required", False), f"{at}/reason_required"),
    )


_LIMITS = frozenset({"calls_per_minute", "concurrent", "budget", "cache_ttl_s"})
_BUDGET = frozenset({"usd_minor", "tokens"})


def _limits(value: Any) -> CallLimits:
    at = "/limits"
    found = fields(value, at, _NONE, _LIMITS)
    budget = fields(found.get("budget", {}), f"{at}/budget", _NONE, _BUDGET)
    return CallLimits(
        calls_per_minute=_positive(found, at, "calls_per_minute"),
        concurrent=_positive(found, at, "concurrent"),
        budget={key: integer(item, f"{at}/budget/{key}", 0) for key, item in budget.items()},
        cache_ttl_s=integer(found.get("cache_ttl_s", 0), f"{at}/cache_ttl_s", 0),
    )


_OBLIGATION = frozenset({"id", "type"})
_PROPERTIES = frozenset({"properties"})


def _obligation(value: Any, place: str) -> Obligation:
    found = fields(value, place, _OBLIGATION, _PROPERTIES)
    return Obligation(
        id=text(found["id"], f"{place}/id", 128, 1),
        type=choice(found["type"], f"{place}/type", _OBLIGATIONS),
        properties=Frozen(
            canonical.encode(mapping(found.get("properties", {}), f"{place}/properties"))
        ),
    )


def _advice(value: Any, place: str) -> None:
    found = fields(value, place, _OBLIGATION, _PROPERTIES)
    text(found["id"], f"{place}/id", 128)
    text(found["type"], f"{place}/type", 64)
    mapping(found.get("properties", {}), f"{place}/properties")


_POLICY = frozenset({"package", "revision"})


def _policy(value: Any) -> None:
    found = fields(value, "/policy", _NONE, _POLICY)
    for name, item in found.items():
        text(item, f"/policy/{name}", 256)
