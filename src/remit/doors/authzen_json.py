"""AuthZEN's words as Remit's, and back: subject, action, resource and context, and the decision.

Nothing that a request says of its subject, of the time or of the environment is taken as a fact
where Remit has one of its own. An answer is `true` only where nothing of it is lost on whoever
enforces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, assert_never

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from remit.doors.claims import PURPOSE, Client, read_claims
from remit.doors.protocol import session_claim
from remit.errors import Code, InputError, Refused, RemitError
from remit.model import (
    Allow,
    Asserted,
    CallerKind,
    CallLimits,
    Claims,
    Constraints,
    Decided,
    Frozen,
    Permitted,
    Reason,
    RequireApproval,
    Unenforced,
)

MAX_EVALUATIONS = 50
ACTIONS = ("call", "tools/call")
KINDS = {
    "user": CallerKind.HUMAN,
    "human": CallerKind.HUMAN,
    "agent": CallerKind.AGENT,
    "service": CallerKind.SERVICE,
}
FIELDS = ("subject", "action", "resource", "context")

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Group = Annotated[str, Field(min_length=1, max_length=128)]


class _Part(BaseModel):
    # Fields that are not known are left out, as §5 has it for extensions.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Known(_Part):
    """The properties of a subject that mean something here."""

    groups: list[_Group] = Field(default_factory=list, max_length=64)
    tenant: _Name | None = None
    key: _Name | None = None


class _Subject(_Part):
    type: _Name
    id: _Name
    properties: _Known = Field(default_factory=_Known)


class _Action(_Part):
    name: _Name


class _Call(_Part):
    arguments: dict[str, Any] = Field(default_factory=dict)


class _Resource(_Part):
    type: _Name
    id: _Name
    properties: _Call = Field(default_factory=_Call)


class _Context(_Part):
    purpose: str | None = None
    ticket: str | None = None
    session_id: Annotated[str, Field(max_length=1_000)] | None = None
    traceparent: str | None = None
    # By this a point says that it performs the constraints, limits and obligations of an answer.
    dev_remit_constraints: bool = False


class _Evaluation(_Part):
    subject: _Subject
    action: _Action
    resource: _Resource
    context: _Context = Field(default_factory=_Context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question. `performs`: whoever enforces the answer performs what comes with it."""

    who: Asserted
    tool_name: str
    arguments: Mapping[str, Any]
    claims: Claims
    performs: bool


# ------------------------------------------------------------------------------------- questions


def question(body: Mapping[str, Any]) -> Asked:
    """The question of one evaluation request.

    Raises:
        InputError: it is none; names the place, echoes nothing.
    """
    try:
        read = _Evaluation.model_validate({name: body[name] for name in FIELDS if name in body})
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _invalid(first["msg"], "/" + "/".join(map(str, first["loc"]))) from None
    if read.subject.type not in KINDS:
        raise _invalid("must be one of " + ", ".join(KINDS), "/subject/type")
    if read.action.name not in ACTIONS:
        raise _invalid("must be one of " + ", ".join(ACTIONS), "/action/name")
    if read.resource.type != "tool":
        raise _invalid("must be tool", "/resource/type")
    if len(read.resource.id) > 128:
        raise _invalid("must have at most 128 characters", "/resource/id")
    known = read.subject.properties
    return Asked(
        who=Asserted(
            subject=read.subject.id,
            kind=KINDS[read.subject.type],
            tenant=known.tenant,
            groups=tuple(known.groups),
            key_id=known.key,
        ),
        tool_name=read.resource.id,
        arguments=read.resource.properties.arguments,
        claims=_claims(read.context),
        performs=read.context.dev_remit_constraints,
    )


def _claims(context: _Context) -> Claims:
    said = {"purpose": context.purpose, "ticket": context.ticket}
    meta = {PURPOSE: {name: text for name, text in said.items() if text is not None}}
    try:
        return read_claims(
            {**meta, "traceparent": context.traceparent},
            Client(),
            session_id=session_claim(context.session_id),
        )
    except InputError as exc:
        raise InputError(exc.code, exc.message, place="/context") from None


def boxcar(body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The evaluations of a request, each with its defaults (§7.1.1); None if it is a single one.

    Raises:
        InputError: they are none, or more than 50.
    """
    items = body.get("evaluations", [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _invalid("must be a list of objects", "/evaluations")
    if len(items) > MAX_EVALUATIONS:
        raise _invalid(f"must hold at most {MAX_EVALUATIONS}", "/evaluations")
    defaults = {name: body[name] for name in FIELDS if name in body}
    return [{**defaults, **item} for item in items] or None


def semantics(body: Mapping[str, Any]) -> bool | None:
    """The decision after which no more are made (§7.1.2), None for none.

    Raises:
        InputError: the semantic is not one of the three.
    """
    options = body.get("options", {})
    named = options.get("evaluations_semantic", "execute_all") if isinstance(options, dict) else ""
    known = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
    if not isinstance(named, str) or named not in known:
        raise _invalid("must be one of " + ", ".join(known), "/options/evaluations_semantic")
    return known[named]


def _invalid(message: str, place: str) -> InputError:
    return InputError(Code.INVALID_ARGUMENTS, message, place=place)


# --------------------------------------------------------------------------------------- answers


def answer_of(decided: Decided, *, performs: bool) -> dict[str, Any]:
    """The answer to a question that policy did not deny (§5.5).

    True only for an allow of which nothing is lost: where constraints, limits or obligations come
    with it, or arguments were narrowed, only for a point that performs them.
    """
    decision = decided.decision
    context = _told(decision)
    match decision:
        case RequireApproval():
            rule = _plain(decision.approvals)
            return _no("approval_required", {**context, "approvals": rule})
        case Allow():
            normal = decided.planned.admitted.normal
            if decided.planned.arguments != normal.arguments:
                context["arguments"] = decided.planned.arguments.value()
            if _bare(decided) or performs:
                return {"decision": True, "context": context}
            return _no("constraints_not_understood", context)
        case Unenforced():  # what only Remit leaves aside holds for whoever enforces by itself
            return _no(Code.POLICY_DENIED.value, context)
        case _:
            assert_never(decision)


def _bare(decided: Decided) -> bool:
    """Whether an allow says nothing but that: whoever enforces it has nothing to add."""
    decision, planned = decided.decision, decided.planned
    return (
        decision.constraints == Constraints()
        and decision.limits == CallLimits()
        and not decision.obligations
        and planned.plan.narrowed_from is None
    )


def _told(decision: Permitted) -> dict[str, Any]:
    evaluation = decision.evaluation
    told = {
        "decision_id": evaluation.decision_id,
        "policy_revision": evaluation.revision,
        "reasons": [_reason(one) for one in decision.reasons if one.audience == "user"],
        "constraints": _plain(decision.constraints),
        "limits": {} if decision.limits == CallLimits() else _plain(decision.limits),
        "obligations": [_plain(one) for one in decision.obligations],
    }
    return {name: value for name, value in told.items() if value}


def _reason(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "message": reason.message}


def refusal(refused: Refused) -> dict[str, Any]:
    """The answer where policy, or a check before it, refused."""
    said = {
        "message": refused.message,
        "place": refused.place,
        "decision_id": refused.decision_id,
        "policy_revision": refused.policy_revision,
    }
    return _no(refused.code.value, {name: text for name, text in said.items() if text})


def failure(exc: RemitError) -> dict[str, Any]:
    """The answer in the place of an evaluation that could not be made (§7.2.1)."""
    status = 429 if exc.code is Code.RATE_LIMITED else 400
    return {"decision": False, "context": {"error": {"status": status, "message": str(exc)}}}


def _no(reason: str, context: Mapping[str, Any]) -> dict[str, Any]:
    return {"decision": False, "context": {"reason": reason, **context}}


def _plain(value: Any) -> Any:
    """A value of the model as JSON, without what says nothing."""
    if isinstance(value, Frozen):
        return value.value()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _plain(one) for name, one in found.items() if one not in (None, (), {}, "")}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
