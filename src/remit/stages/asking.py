"""The gateway's own two tools: what they take, and how their answers read.

They are no tools of the catalog: no plan, no runner and no effect belongs to them, and no name of
a catalog begins as theirs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from remit.canonical import digest_of, encode
from remit.errors import Code, Refused
from remit.model import (
    AccessRequest,
    Call,
    Command,
    Decided,
    Effect,
    EntryDraft,
    Frozen,
    NormalCall,
    Operator,
    Reply,
    RequireApproval,
    Tool,
)
from remit.stages import respond
from remit.stages.record import caller_public

MAX_REASON = 1_000
"""Longest reason that a caller may give, in characters."""

_ABOUT = {
    "tool": {
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "description": "The name of the tool.",
    },
    "arguments": {
        "type": "object",
        "additionalProperties": True,
        "description": "The arguments you would call it with.",
    },
}


def _own(name: str, description: str, effect: Effect, schema: Mapping[str, Any]) -> Tool:
    whole = {"type": "object", "additionalProperties": False, **schema}
    return Tool(
        name=name,
        description=description,
        input_schema=Frozen(encode(whole)),
        command=Command(argv=()),
        effect=effect,
        idempotent=True,
        digest=digest_of("remit.own-tool/1", [name, description, effect.value, whole]),
    )


CAN_I = _own(
    "remit_can_i",
    "Asks what policy says of a call, without making it: allow, deny or require_approval. It has "
    "no effect and is not a promise: policy decides again when you make the call.",
    Effect.READ,
    {"properties": _ABOUT, "required": ["tool"]},
)

REQUEST_ACCESS = _own(
    "remit_request_access",
    "Asks a person for access to a tool whose call policy denies. It grants nothing: a person "
    "reads it and may change the policy. Asking twice for the same is asking once.",
    Effect.WRITE,
    {
        "properties": {
            **_ABOUT,
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_REASON,
                "description": "Why you need it, for the person who reads this.",
            },
        },
        "required": ["tool", "reason"],
    },
)

OWN = (CAN_I, REQUEST_ACCESS)

NO_PROMISE = "This is not a promise: policy decides again when you make the call."
NO_PREVIEW = "The preview was not run, so policy has not seen what it would show."


HINT = f"do not retry unchanged; {REQUEST_ACCESS.name} asks a person"


def hinted(why: Refused) -> Refused:
    """The refusal of a call, with what its caller can do about it where policy denied."""
    if why.code is Code.POLICY_DENIED and why.hint is None:
        why.hint = HINT
    return why


def permitted(asked: NormalCall, decided: Decided) -> Reply:
    """The answer where policy would let the call go on: what it said for the caller's ears."""
    decision = decided.decision
    waits = isinstance(decision, RequireApproval)
    told = [reason.message for reason in decision.reasons if reason.audience == "user"]
    answer: dict[str, Any] = {
        "decision": "require_approval" if waits else "allow",
        "tool": asked.tool.name,
        "environment": asked.environment,
        "reasons": told,
        "promise": False,
    }
    says = "a person must agree to this call first" if waits else "policy allows this call now"
    sentences = [each if each.endswith((".", "!", "?")) else f"{each}." for each in [says, *told]]
    text = [f"{answer['decision']}: {' '.join(sentences)}"]
    if decided.planned.arguments != asked.arguments:
        answer["arguments"] = decided.planned.arguments.value()
        text.append("Policy changes the arguments to: " + decided.planned.arguments.text.decode())
    return _answer(asked, answer, [*text], _machine(decided))


def refused(asked: NormalCall, why: Refused) -> Reply:
    """The answer where the call would be refused, in the words of that refusal.

    Where Remit itself could not decide, it is that refusal.
    """
    reply = respond.refusal(why)
    if reply.jsonrpc_error is not None:
        return reply
    says = reply.content.value()[0]["text"]
    answer: dict[str, Any] = {
        "decision": "deny",
        "tool": asked.tool.name,
        "environment": asked.environment,
        "reasons": [says],
        "promise": False,
    }
    return _answer(asked, answer, [f"deny: {says}"], reply.decision)


def _answer(
    asked: NormalCall, answer: dict[str, Any], text: list[str], machine: Mapping[str, Any]
) -> Reply:
    if asked.tool.preview is not None:
        answer["preview"] = "not_run"
        text.append(NO_PREVIEW)
    answer |= {name: machine[name] for name in ("code", "place") if name in machine}
    return _reply(" ".join([*text, NO_PROMISE]), answer, machine)


def _machine(decided: Decided) -> dict[str, Any]:
    evaluation = decided.decision.evaluation
    return {
        "code": "ok",
        "decision_id": evaluation.decision_id,
        "policy_revision": evaluation.revision,
    }


def needless(decided: Decided) -> Reply:
    """The answer to a request for what policy permits as it is."""
    waits = isinstance(decided.decision, RequireApproval)
    says = (
        "No request was filed: policy permits this call once a person agrees to it. Make the call; "
        "that asks a person."
        if waits
        else "No request was filed: policy allows this call. Make it."
    )
    return _reply(says, {"filed": False}, _machine(decided))


def filed(request: AccessRequest, *, anew: bool) -> Reply:
    """The answer to a request that a person will see."""
    was = "is filed" if anew else "waits already"
    says = (
        f"Request {request.id} {was}; a person will see it. It grants nothing by itself, and asking "
        "again does not hurry it."
    )
    answer = {"filed": True, "request": request.id, "state": request.state.value}
    machine = {"code": "ok", "access_request": request.id}
    if request.decision_id:
        machine["decision_id"] = request.decision_id
    return _reply(says, answer, machine)


def unknown(why: Refused, name: str) -> Reply:
    """The answer about a tool that is hidden or does not exist: that of a call to it."""
    reply = respond.refusal(why)
    return replace(reply, decision={**reply.decision, "tool": name})


def _reply(text: str, answer: Mapping[str, Any], machine: Mapping[str, Any]) -> Reply:
    content = [{"type": "text", "text": respond.printable(text.encode())}]
    return Reply(
        content=Frozen(encode(content)),
        structured=Frozen(encode(dict(answer))),
        is_error=False,
        decision=machine,
    )


# ------------------------------------------------------------------------------------ the record


def as_questions(
    drafts: Sequence[EntryDraft], asked_by: Operator | None = None
) -> list[EntryDraft]:
    """Answers of policy to what was only asked: told as `question`, on which nothing can run.

    Args:
        asked_by: the enforcement point outside that asked, if it was one.
    """
    named = {} if asked_by is None else {"asked_by": asked_by.subject}
    return [replace(one, event="question", public={**one.public, **named}) for one in drafts]


def question_entry(
    call: Call, asked: NormalCall | None, code: str, asked_by: Operator | None = None
) -> EntryDraft:
    """The entry of a question that never reached policy; the tool is named if the caller sees it.

    Args:
        call: of the gateway's own tool, with what was asked; or, where an enforcement point
            outside asked, the call that it asked about.
        asked: the call that was asked about, where it is one that could be made.
        asked_by: that point.
    """
    told: dict[str, Any] = dict(call.arguments)
    if asked_by is not None:
        told = {"tool": call.tool_name, "arguments": told}
    return EntryDraft(
        event="question",
        public={
            "call": call.id,
            "own_tool": call.tool_name if asked_by is None else None,
            "asked_by": None if asked_by is None else asked_by.subject,
            "code": code,
            "tenant": call.caller.tenant,
            "caller": caller_public(call.caller),
            "tool": None
            if asked is None
            else {"name": asked.tool.name, "digest": asked.tool.digest},
            "call_digest": None if asked is None else asked.digest,
        },
        sealed={"asked": encode(told)[:65_536]},
    )
