"""Step 2: a call gets its one spelling, and from here on nothing changes it.

The tool is found as this caller may see it: a tool that policy hides is looked for, refused and
answered exactly like one that does not exist. Then the arguments are checked and frozen, the
environment is read from the catalog's rule, and the call digest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from remit.canonical import digest_of
from remit.command import environment_of
from remit.model import Call, Caller, Frozen, NormalCall, Round, Tool
from remit.ports import ArgumentCheck
from remit.stages.rounds import Rounds, spends
from remit.stages.visibility import Visibility


async def normalise(visibility: Visibility, check: ArgumentCheck, call: Call) -> NormalCall:
    """A call in its one spelling.

    Raises:
        Refused: `unknown_tool`, `invalid_arguments`.
    """
    tool = await visibility.find(call.caller, call.tool_name, call.source_ip, call.method)
    arguments = check.normalise(tool, call.arguments)
    environment = environment_of(tool, arguments.value())
    return normal_call(call, tool, arguments, environment)


def answered(normal: NormalCall, rounds: Rounds, now_ms: int) -> NormalCall:
    """The call with what it answers; one that answers is another call than the one before it.

    What a person says when Remit itself asks them to consent is no answer to anybody: the call stays
    the one that it was.

    Its digest covers the answers as it covers arguments, and not which run asked: where the
    outcome of an answered call is unknown, being asked anew does not make it a call that may run.

    A key of the caller's own named the call that was interrupted. From here on the answer has the
    key of the question, so that it is given once, also across a restart.

    Raises:
        Refused: the state that it brings is not this call's; `rounds.Rounds.opened` says how. Or
            `consent_declined`.
        InputError: the answers are none.
    """
    resumed = rounds.resumed(normal, now_ms)
    if resumed is None:
        found = rounds.opened(normal, now_ms)
    else:
        call = replace(normal.call, answers=None, request_state=None)
        normal = replace(normal, call=call, consenting=resumed.consenting)
        found = resumed.round
    if found is None:
        return normal
    call = normal.call
    if found.run_id is not None:
        call = replace(call, idempotency_key=spends(found.run_id))
    said = {"call": normal.digest, "answers": found.answers.value(), "number": found.number}
    digest = digest_of("remit.answered-call/1", said)
    return replace(normal, call=call, round=found, digest=digest)


def round_facts(found: Round) -> dict[str, Any]:
    """A round as plans name it."""
    return {
        "answers": found.answers.value(),
        "number": found.number,
        "run": found.run_id,
        "state": found.state,
    }


def normal_call(call: Call, tool: Tool, arguments: Frozen, environment: str) -> NormalCall:
    """The normal call of checked arguments, with its call digest."""
    return NormalCall(
        call=call,
        tool=tool,
        arguments=arguments,
        environment=environment,
        digest=call_digest(call.caller, tool, arguments.value(), environment),
    )


def call_digest(caller: Caller, tool: Tool, arguments: Mapping[str, Any], environment: str) -> str:
    """SHA-256 over who asks (with the whole chain) and what for; the same call, the same digest."""
    return digest_of(
        "remit.call/1",
        {
            "tenant": caller.tenant,
            "caller": caller_facts(caller),
            "tool": tool.digest,
            "arguments": arguments,
            "environment": environment,
        },
    )


def caller_facts(caller: Caller) -> dict[str, Any]:
    """A caller as plans and digests name it: who, and for whom; no key, no expiry."""
    return {
        "subject": caller.subject,
        "kind": caller.kind.value,
        "chain": [{"subject": actor.subject, "kind": actor.kind.value} for actor in caller.chain],
    }
