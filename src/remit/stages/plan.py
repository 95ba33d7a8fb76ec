"""Step 4: a call becomes a plan, the frozen statement of exactly what would run.

A plan holds all that decides the effect and nothing else: no time, nonce, token id or
idempotency key, so that the same call against the same state of the world gives the same hash.
What is stored, shown, approved and executed is this one byte string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from remit.canonical import digest, encode
from remit.command import RenderedCommand, render_command
from remit.document import limits_facts
from remit.errors import Code, Refused
from remit.model import (
    SHOWN_AS,
    AdmittedCall,
    Command,
    Effect,
    Frozen,
    Method,
    NormalCall,
    Outcome,
    Plan,
    PlanKind,
    Planned,
    Preview,
    PreviewDigest,
    PreviewResult,
    ResultKind,
    RunResult,
    RunState,
    SessionMode,
    Upstream,
)
from remit.reach import egress_facts
from remit.stages.means import Means
from remit.stages.narrow import Terms
from remit.stages.normalise import caller_facts, round_facts
from remit.stages.respond import printable
from remit.stages.rounds import may_ask

PLAN = "remit.plan/1"
MAX_PREVIEW_SHOWN = 16_384
"""Most of a preview's output that is shown to a person, in characters."""


def terms_of(planned: Planned) -> Terms:
    """The terms of a plan, as policy finds them."""
    plan = planned.plan
    return Terms(
        arguments=planned.arguments,
        profile=plan.profile,
        limits=plan.limits,
        egress=plan.egress,
        credentials=plan.credentials,
    )


def printed(planned: Planned) -> ResultKind:
    """What the plan's command prints; of a preview, text for people."""
    previews = planned.plan.kind is PlanKind.PREVIEW
    return ResultKind.TEXT if previews else planned.admitted.normal.tool.result


def main_plan(
    admitted: AdmittedCall,
    means: Means,
    *,
    terms: Terms,
    preview: PreviewResult | None,
    narrowed_from: str | None = None,
) -> Planned:
    """The plan of the call itself.

    Args:
        means: what it would be run with.
        terms: those that `means` finds declared, or what policy narrowed them to.
        preview: what the tool's preview gave; its digest becomes part of the plan.
        narrowed_from: hash of the plan that policy narrowed to this one.

    Raises:
        Refused: `invalid_arguments` if the arguments cannot be put into the command;
            `runner_unavailable` or `runner_lacks` if there is no such profile or credential.
    """
    tool = admitted.normal.tool
    rendered = render_command(tool.command, terms.arguments.value())
    facts = _facts(admitted, means, tool.command, rendered=rendered, terms=terms)
    facts |= {
        "kind": PlanKind.MAIN.value,
        "result": tool.result.value,
        "collect": list(tool.result_files),
        "preview": None if preview is None else preview.digest,
        "narrowed_from": narrowed_from,
    }
    if tool.upstream is not None:
        facts["upstream"] = _upstream_facts(tool.upstream, tool.effect) | _asking(admitted.normal)
    plan = _freeze(
        facts, admitted, terms, kind=PlanKind.MAIN, preview=preview, narrowed_from=narrowed_from
    )
    return Planned(admitted=admitted, plan=plan, arguments=terms.arguments, preview=preview)


def preview_plan(
    admitted: AdmittedCall, means: Means, preview: Preview, *, arguments: Frozen
) -> Planned:
    """The plan of the tool's preview: a plan like any other, with its own hash and decision.

    Nothing is declared that a preview could reach, so it reaches nothing.
    """
    terms = means.previewed(admitted, arguments, preview.limits)
    rendered = render_command(preview.command, arguments.value())
    facts = _facts(admitted, means, preview.command, rendered=rendered, terms=terms)
    facts |= _PREVIEW
    if preview.digest_file is not None:
        facts["collect"] = [preview.digest_file]
    return _preview(facts, admitted, terms)


def narrowed_preview(planned: Planned, means: Means, terms: Terms) -> Planned:
    """A preview's plan with the limits that policy lowered, in the profile that it named.

    Raises:
        Refused: `policy_unsupported` if policy wants other arguments in a preview: it has to say
            so of the call itself, which is then previewed again.
    """
    if terms.arguments != planned.arguments:
        raise Refused(
            Code.POLICY_UNSUPPORTED, "policy may not force arguments in the preview phase"
        )
    facts = json.loads(planned.plan.text)
    facts |= {
        "runner": _runner_facts(means, terms.profile),
        "limits": limits_facts(terms.limits),
        "narrowed_from": planned.plan.hash,
    }
    return _preview(facts, planned.admitted, terms, planned.plan.hash)


def normaliser_plan(planned: Planned, preview: Preview, *, text: bytes) -> Planned:
    """The plan that passes a preview's output through the operator's normaliser."""
    facts = json.loads(planned.plan.text)
    facts["collect"] = []
    facts["command"] = {
        "argv": list(preview.normaliser or ()),
        "env": {},
        "stdin": _text(text),
        "files": {},
        "mounts": [],
    }
    return _preview(facts, planned.admitted, terms_of(planned))


_PREVIEW: Mapping[str, Any] = {
    "kind": PlanKind.PREVIEW.value,
    "result": ResultKind.TEXT.value,
    "collect": [],
    "preview": None,
    "narrowed_from": None,
}


def _preview(
    facts: Mapping[str, Any],
    admitted: AdmittedCall,
    terms: Terms,
    narrowed_from: str | None = None,
) -> Planned:
    plan = _freeze(
        facts, admitted, terms, kind=PlanKind.PREVIEW, preview=None, narrowed_from=narrowed_from
    )
    return Planned(admitted=admitted, plan=plan, arguments=terms.arguments)


def _facts(
    admitted: AdmittedCall,
    means: Means,
    command: Command,
    *,
    rendered: RenderedCommand,
    terms: Terms,
) -> dict[str, Any]:
    normal = admitted.normal
    return {
        "schema": PLAN,
        "call_digest": normal.digest,
        "tenant": normal.call.caller.tenant,
        "caller": caller_facts(normal.call.caller),
        "tool": {"name": normal.tool.name, "digest": normal.tool.digest},
        "effect": normal.tool.effect.value,
        "environment": normal.environment,
        "arguments": terms.arguments.value(),
        "command": {
            "argv": list(rendered.argv),
            "env": {**dict(rendered.env), **means.variables(terms.credentials)},
            "stdin": _text(rendered.stdin),
            "files": {path: _text(content) for path, content in rendered.files},
            "mounts": [
                {"name": mount.name, "source": mount.source, "writable": mount.writable}
                for mount in command.mounts
            ],
        },
        "runner": _runner_facts(means, terms.profile),
        "limits": limits_facts(terms.limits),
        "egress": egress_facts(terms.egress),
        "credentials": means.credential_facts(terms.credentials),
    }


def _upstream_facts(upstream: Upstream, effect: Effect) -> dict[str, Any]:
    """Which tool of which server is called, and in what: only reads are let into a session."""
    kept = effect is Effect.READ or upstream.unsafe_session_writes
    return {
        "server": upstream.server,
        "tool": upstream.tool,
        "definition": upstream.definition,
        "url": upstream.url,
        "authorization": upstream.authorization,
        **({} if upstream.header == SHOWN_AS else {"header": upstream.header}),
        "session": (upstream.session if kept else SessionMode.PER_CALL).value,
        "idle_s": upstream.idle_s,
        "age_s": upstream.age_s,
        "mode": "shadow" if upstream.shadow else "enforce",
        **({} if upstream.method is Method.TOOLS_CALL else {"method": upstream.method.value}),
    }


def _asking(normal: NormalCall) -> dict[str, Any]:
    """What the server is told that its caller can be asked, and what it is answered, if anything."""
    facts: dict[str, Any] = {}
    capabilities = normal.call.capabilities.value()
    if capabilities and may_ask(normal.tool):
        facts["capabilities"] = capabilities
    if normal.round is not None:
        facts["round"] = round_facts(normal.round)
    return facts


def _runner_facts(means: Means, profile: str) -> dict[str, str]:
    runner = means.runner(profile)
    return {
        "profile": profile,
        "name": runner.name,
        "tier": runner.tier.value,
        "digest": runner.digest,
    }


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(
            Code.PLAN_NOT_CANONICAL, "a preview's output is not valid UTF-8 and cannot be planned"
        ) from None


def _freeze(
    facts: Mapping[str, Any],
    admitted: AdmittedCall,
    terms: Terms,
    *,
    kind: PlanKind,
    preview: PreviewResult | None,
    narrowed_from: str | None,
) -> Plan:
    text = encode(facts)
    return Plan(
        kind=kind,
        text=text,
        hash=digest(PLAN, text),
        call_digest=admitted.normal.digest,
        limits=terms.limits,
        preview_digest=None if preview is None else preview.digest,
        narrowed_from=narrowed_from,
        profile=terms.profile,
        egress=terms.egress,
        credentials=terms.credentials,
    )


def preview_subject(preview: Preview, stdout: bytes, files: Mapping[str, bytes]) -> bytes:
    """The bytes of a preview's run that bind it to the run that follows.

    For `normalised` these are the output, which then goes through the normaliser.

    Raises:
        Refused: `preview_failed` if the file that should be digested was not made.
    """
    match preview.digest:
        case PreviewDigest.OUTPUT | PreviewDigest.NORMALISED:
            return stdout
        case PreviewDigest.FILE:
            content = files.get(preview.digest_file or "")
            if content is None:
                raise Refused(
                    Code.PREVIEW_FAILED,
                    "the preview did not leave the file that should be digested",
                    hint="check `digest_file` of the tool's preview with `remit tools check`",
                )
            return content


def preview_result(run_id: str, result: RunResult, subject: bytes) -> PreviewResult:
    """What a preview showed: text for people, bounded and masked, and the digest that binds."""
    text = printable(result.stdout)
    return PreviewResult(
        digest=digest("remit.preview/1", subject),
        text=text[:MAX_PREVIEW_SHOWN],
        bytes=len(result.stdout),
        exit=result.exit_code or 0,
        run_id=run_id,
        truncated=len(text) > MAX_PREVIEW_SHOWN,
    )


def preview_failed(outcome: Outcome, result: RunResult) -> Refused:
    """The refusal of a call whose preview did not succeed; its own action was never planned."""
    if outcome.state is RunState.NEVER_STARTED:
        return Refused(
            outcome.code or Code.RUNNER_UNAVAILABLE,
            "the preview of this action could not be started, so the action was not planned",
            run_id=outcome.run_id,
        )
    tail = printable(result.stdout + result.stderr)[-500:].strip()
    return Refused(
        Code.PREVIEW_FAILED,
        "the preview of this action failed, so the action was not planned"
        + (f": {tail}" if tail else ""),
        run_id=outcome.run_id,
        detail=None if outcome.code is None else outcome.code.value,
    )
