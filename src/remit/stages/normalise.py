"""Step 2: a call gets its one spelling, and from here on nothing changes it.

The tool is found as this caller may see it: a tool that policy hides is looked for, refused and
answered exactly like one that does not exist. Then the arguments are checked and frozen, the
environment is read from the catalog's rule, and the call digest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remit.canonical import digest_of
from remit.command import environment_of
from remit.model import Call, Caller, Frozen, NormalCall, Tool
from remit.ports import ArgumentCheck
from remit.stages.visibility import Visibility


async def normalise(visibility: Visibility, check: ArgumentCheck, call: Call) -> NormalCall:
    """A call in its one spelling.

    Raises:
        Refused: `unknown_tool`, `invalid_arguments`.
    """
    tool = await visibility.find(call.caller, call.tool_name, call.source_ip)
    arguments = check.normalise(tool, call.arguments)
    environment = environment_of(tool, arguments.value())
    return normal_call(call, tool, arguments, environment)


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
