"""Step 10: the caller hears what happened: bounded, redacted, with a code and the receipt.

The machine part is the same everywhere: `code`, `decision_id`, `policy_revision` and what else
applies. Agents often see only the text, so code and id stand there too. What policy said to
operators, what a tool wrote on standard error and why a tool is hidden never leave by here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from remit.canonical import encode, short
from remit.errors import Code, Refused, RemitError
from remit.model import (
    Ending,
    Frozen,
    Outcome,
    Permitted,
    Planned,
    Receipt,
    Reply,
    ResultFile,
    Run,
    RunResult,
    RunState,
    Tool,
    Unenforced,
)
from remit.stages.consent_pages import ConsentRequired
from remit.stages.files import file_facts
from remit.stages.reached import way_out_said
from remit.stages.redact import UNSCRUBBED
from remit.telemetry import mask
from remit.visible import visible

MAX_ERROR_TAIL = 2_000
"""How much of a failed command's output its caller sees, in characters, from the end."""

NEWLINE = "\n"
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

_GENERIC = frozenset(
    {
        Code.POLICY_ERROR,
        Code.POLICY_NOT_READY,
        Code.POLICY_UNAVAILABLE,
        Code.LEDGER_UNAVAILABLE,
        Code.LEDGER_FULL,
        Code.RUNNER_UNAVAILABLE,
        Code.RUNNER_DEGRADED,
        Code.INTERNAL,
    }
)
"""Where Remit itself could not go on; these are protocol errors and say nothing of the inside."""

_OF_STATE = frozenset(
    {
        Code.INPUT_STATE_INVALID,
        Code.INPUT_STATE_FOREIGN,
        Code.INPUT_STATE_EXPIRED,
        Code.INPUT_STATE_MISMATCH,
        Code.INPUT_STATE_SPENT,
    }
)

_TOLD = (
    *("decision_id", "policy_revision", "approval_id", "plan_hash", "expires_at", "run_id"),
    *("place", "retry_after_ms"),
)
"""What a refusal says for programs beside its code, as far as it has it."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(data: bytes) -> str:
    """Output as text: UTF-8 or replacement characters, controls visible, credentials masked."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    return mask(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text))


def masked(value: Any) -> Any:
    """A JSON value with the credentials in its strings masked; otherwise as the tool gave it."""
    match value:
        case str():
            return mask(value)
        case list():
            return [masked(item) for item in value]
        case dict():
            return {mask(name): masked(item) for name, item in value.items()}
        case _:
            return value


def as_text(value: Any) -> str:
    """A JSON value as text for people and models, controls escaped as JSON escapes them."""
    text = json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def block_shown(block: dict[str, Any]) -> Any:
    """A content block as it may leave: text printable, credentials masked wherever they stand."""
    if block.get("type") == "text":
        block = {**block, "text": printable(block["text"].encode())}
    return masked(block)


def content_of(content: list[Any], structured: Any, *, error: bool) -> Frozen:
    """MCP content as it is stored and answered."""
    return Frozen(encode({"content": content, "structured": structured, "is_error": error}))


def question_of(server: str, requests: Mapping[str, Any], state: str | None) -> Frozen:
    """What a server asks before it goes on, as it is stored; each question says whose it is."""
    shown = {masked(name): _question_shown(server, each) for name, each in requests.items()}
    text = f"The MCP server {server} asks for input before it goes on. [input_required]"
    stored = content_of([{"type": "text", "text": text}], None, error=False).value()
    return Frozen(encode({**stored, "asks": {"requests": shown, "state": state}}))


def _question_shown(server: str, question: Mapping[str, Any]) -> dict[str, Any]:
    params = dict(question["params"])
    asks = f"The MCP server {server} asks"
    if params["mode"] == "url":
        asks += f" to open a page of {urlsplit(params['url']).hostname}"
    params["message"] = f"{asks}: {visible(params['message'], keep=NEWLINE)}"
    shown: dict[str, Any] = masked(params)
    if shown.get("url") != params.get("url"):
        raise ValueError("a page whose address holds a credential is not shown")
    return {"method": question["method"], "params": shown}


def with_files(reply: Frozen, files: tuple[ResultFile, ...]) -> Frozen:
    """A stored reply that also names the files that the run left."""
    return Frozen(encode({**reply.value(), "files": file_facts(files)}))


def failure_content(
    tool: Tool,
    state: RunState,
    code: Code,
    result: RunResult,
    *,
    hidden: bool = False,
    why: str = "",
) -> Frozen:
    """The content for a run that did not succeed: what is known, and what may have happened.

    `hidden` says that policy does not let its output back, `why` what it said of that.
    """
    what = _WHAT.get(code, "The action failed.")
    if tool.upstream is not None:
        what = _OF_SERVER.get(code, what)
    if UNSCRUBBED in result.limits_hit:
        what, hidden = _NOT_SEARCHED, False
    effect = _UNASKED if result.ending is Ending.UNASKED else _EFFECT[state]
    parts = [what, effect, f"[{code}]"]
    if code is Code.RUN_FAILED:
        parts.insert(1, f"Exit status {result.exit_code}.")
    text = " ".join(parts)
    if hidden and state is not RunState.NEVER_STARTED and code is not Code.OUTPUT_WITHHELD:
        text += "\nPolicy does not let its output back."
    if why:
        text += "\n" + mask(why)
    shown = code in _MAYBE_EGRESS and not hidden and UNSCRUBBED not in result.limits_hit
    if shown and (said := way_out_said(result.traffic, declared=bool(tool.egress))):
        text += "\n" + mask(said)
    tail = printable(result.stdout + result.stderr)[-MAX_ERROR_TAIL:].strip()
    if tail and code not in _NO_TAIL and state is not RunState.NEVER_STARTED:
        text += "\n" + tail
    return content_of([{"type": "text", "text": text}], None, error=True)


_NOT_SEARCHED = (
    "The command's output could not be searched for the credentials that it had, and is withheld."
)

_NO_TAIL = frozenset({Code.OUTPUT_INVALID, Code.OUTPUT_WITHHELD})
_MAYBE_EGRESS = frozenset({Code.RUN_FAILED, Code.RUN_TIMED_OUT})

_WHAT: Mapping[Code, str] = {
    Code.RUN_FAILED: "The command failed.",
    Code.RUN_TIMED_OUT: "The command ran past its deadline and was ended.",
    Code.RUN_OUT_OF_MEMORY: "The command used more memory than it may and was ended.",
    Code.OUTPUT_TOO_LARGE: "The command printed more than it may and was ended.",
    Code.OUTPUT_INVALID: "The command's output is not what the tool declares, and is withheld.",
    Code.OUTPUT_WITHHELD: "Policy does not let the command's output back, and it is withheld.",
    Code.RUN_KILLED: "The command was ended by a signal.",
    Code.CANCELLED: "The run was cancelled.",
    Code.RUNNER_UNAVAILABLE: "No runner could be made for this action.",
    Code.CREDENTIAL_UNAVAILABLE: "A credential that this action needs could not be had.",
    Code.CONSENT_REQUIRED: "A person's consent has ended; call again, and they are asked for it.",
    Code.FROZEN: "An operator stopped all actions before this one was started.",
    Code.DEADLINE_PASSED: "This action's deadline passed before it was started.",
    Code.OUTCOME_UNKNOWN: "The runner was lost.",
}

_OF_SERVER: Mapping[Code, str] = {
    Code.UPSTREAM_ERROR: "The server answered with an error.",
    Code.UPSTREAM_INVALID: "The server does not keep to its protocol.",
    Code.UPSTREAM_GONE: "The server ended before it answered.",
    Code.UPSTREAM_TIMEOUT: "The server did not answer in time.",
    Code.TOOL_CHANGED: "The server's tool is another than the one that was reviewed.",
    Code.RUN_TIMED_OUT: "The server did not answer in time and was ended.",
    Code.RUN_OUT_OF_MEMORY: "The server used more memory than it may and was ended.",
    Code.OUTPUT_TOO_LARGE: "The server's answer is larger than it may be.",
    Code.OUTPUT_INVALID: "The server's answer is not what the tool declares, and is withheld.",
    Code.OUTPUT_WITHHELD: "Policy does not let the server's answer back, and it is withheld.",
    Code.CANCELLED: "The call was cancelled.",
}

_UNASKED = "The server was not asked, so nothing was done."

_EFFECT: Mapping[RunState, str] = {
    RunState.SUCCEEDED: "The action itself was carried out; do not repeat it for its output.",
    RunState.FAILED: "It ended by itself or had no effect to leave; read the output.",
    RunState.NEVER_STARTED: "Nothing ran.",
    RunState.UNKNOWN: "Whether it took effect is unknown; a person has to look before a retry.",
    RunState.INTENDED: "Nothing ran.",
    RunState.STARTED: "It is still running.",
}


def finished(
    planned: Planned,
    outcome: Outcome,
    decision: Permitted,
    receipt: Receipt | None,
    *,
    unsafe: tuple[str, ...] = (),
) -> Reply:
    """The reply to a call that ran."""
    frozen = outcome.reply or content_of([], None, error=True)
    machine: dict[str, Any] = {
        "code": "ok" if outcome.code is None else outcome.code.value,
        "decision_id": decision.evaluation.decision_id,
        "policy_revision": decision.evaluation.revision,
        "run_id": outcome.run_id,
        "plan_hash": planned.plan.hash,
        "outcome": outcome.state.value,
    }
    note = None
    if isinstance(decision, Unenforced):
        machine |= {"enforced": False, "verdict": decision.verdict}
        unsafe = (*unsafe, SHADOW)
    if outcome.review is not None:
        machine["result_decision_id"] = outcome.review.evaluation.decision_id
    if planned.plan.narrowed_from is not None:
        machine["narrowed_from"] = planned.plan.narrowed_from
    if planned.arguments != planned.admitted.normal.arguments:
        machine["executed_arguments"] = planned.arguments.value()
        note = "Policy changed the arguments. What ran: " + planned.arguments.text.decode()
    code = outcome.code
    return _reply(
        frozen,
        machine,
        receipt=receipt,
        unsafe=unsafe,
        note=note,
        jsonrpc_error=INTERNAL_ERROR if code is Code.RUNNER_UNAVAILABLE else None,
    )


def replayed(
    run: Run, reply: Frozen | None, receipt: Receipt | None, *, unsafe: tuple[str, ...] = ()
) -> Reply:
    """The stored result of an earlier run of the same call, marked as such."""
    machine = {
        "code": "ok" if run.code is None else run.code.value,
        "run_id": run.id,
        "plan_hash": run.plan_hash,
        "outcome": run.state.value,
        "replayed": True,
    }
    if run.resolved_as == "succeeded":
        machine |= {"code": "ok", "resolved_as": run.resolved_as}
        reply = content_of([{"type": "text", "text": _RESOLVED}], None, error=False)
    frozen = reply or content_of([], None, error=True)
    return _reply(
        frozen,
        machine,
        receipt=receipt,
        unsafe=unsafe,
        replayed=True,
        note="Stored result of an earlier run.",
    )


SHADOW = "shadow"
"""What is unsafe about a call on which policy was not enforced."""

_RESOLVED = (
    "A person looked at what this action did and found that it was carried out; it is not repeated."
)


def _reply(
    frozen: Frozen,
    machine: Mapping[str, Any],
    *,
    receipt: Receipt | None,
    unsafe: tuple[str, ...],
    note: str | None = None,
    replayed: bool = False,
    jsonrpc_error: int | None = None,
) -> Reply:
    stored = frozen.value()
    content = stored["content"]
    if note is not None:
        content = [*content, {"type": "text", "text": note}]
    structured = stored["structured"]
    if stored.get("files"):
        machine = {**machine, "files": stored["files"]}
    if stored["is_error"]:
        # A tool's own words on its error may not pose as Remit's decision.
        own = structured if isinstance(structured, dict) else {}
        structured = {**own, "decision": dict(machine)}
    return Reply(
        content=Frozen(encode(content)),
        structured=None if structured is None else Frozen(encode(structured)),
        is_error=stored["is_error"],
        decision=machine,
        receipt=receipt,
        unsafe=unsafe,
        replayed=replayed,
        jsonrpc_error=jsonrpc_error,
    )


def as_refusal(exc: Exception) -> Refused:
    """Whatever ended the path, as a refusal; what was not foreseen says nothing of itself."""
    match exc:
        case Refused():
            return exc
        case RemitError():
            return Refused(exc.code, exc.message, place=exc.place, hint=exc.hint)
        case _:
            return Refused(Code.INTERNAL, "an unforeseen error")


def refusal(refused: Refused) -> Reply:
    """The reply to a refused call: a text the model can act on, and the machine part."""
    machine: dict[str, Any] = {"code": refused.code.value}
    told = {name: getattr(refused, name) for name in _TOLD}
    if refused.code is Code.UNKNOWN_TOOL:
        # Byte for byte the same whether the tool is hidden or does not exist.
        return _refusal(refused.message, {"code": refused.code.value}, INVALID_PARAMS)
    machine |= {name: value for name, value in told.items() if value is not None}
    if isinstance(refused, ConsentRequired):
        machine["consent"] = refused.facts
    if refused.code in _OF_STATE:
        # A state that is not taken is a protocol error (MCP 2026-07-28, multi-round requests).
        return _refusal(_sentence(refused), machine, INVALID_PARAMS)
    if refused.code in _GENERIC:
        return _refusal(_generic(refused), machine, INTERNAL_ERROR)
    return _refusal(_sentence(refused), machine, None)


def _generic(refused: Refused) -> str:
    where = f"; decision {refused.decision_id}" if refused.decision_id else ""
    return f"Remit could not decide on or carry out this call; nothing ran [{refused.code}{where}]"


def _sentence(refused: Refused) -> str:
    opening = {
        Code.POLICY_DENIED: "Denied by policy: ",
        Code.INVALID_ARGUMENTS: "Invalid arguments: ",
        Code.APPROVAL_REQUIRED: "Approval required: ",
        Code.CONSENT_REQUIRED: "Consent required: ",
        Code.OUTCOME_UNKNOWN: "Outcome unknown: ",
    }.get(refused.code, "Refused: ")
    place = f" (at {refused.place})" if refused.place else ""
    parts = [f"{opening}{refused.message.rstrip('.')}{place}."]
    if refused.hint:
        parts.append(refused.hint[:1].upper() + refused.hint[1:] + ".")
    elif refused.code is Code.POLICY_DENIED:
        parts.append("Do not retry unchanged.")
    ids = [str(refused.code)]
    if refused.decision_id:
        ids.append(f"decision {refused.decision_id}")
    if refused.approval_id:
        ids.append(f"approval {refused.approval_id}")
    if refused.plan_hash:
        ids.append(f"plan {short(refused.plan_hash)}")
    return " ".join(parts) + f" [{'; '.join(ids)}]"


def _refusal(text: str, machine: Mapping[str, Any], jsonrpc_error: int | None) -> Reply:
    return Reply(
        content=Frozen(encode([{"type": "text", "text": mask(text)}])),
        structured=Frozen(encode({"decision": dict(machine)})),
        is_error=True,
        decision=machine,
        jsonrpc_error=jsonrpc_error,
    )
