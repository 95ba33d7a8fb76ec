"""Step 2: a call gets its one spelling, and from here on nothing changes it.

The tool is found as this caller may see it: a tool that policy hides is looked for, refused and
answered exactly like one that does not exist. Then the arguments are checked and frozen, the
environment is read from the catalog's rule, and the call digest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remit.canonical import digest_of
from remit.command import environment_of
from remit.document import list_document
from remit.errors import Code, Refused
from remit.model import Call, Caller, Frozen, NormalCall, Tool
from remit.ports import ArgumentCheck, Catalog, Clock, Policy

VISIBILITY_TTL_MS = 10_000
"""Longest time an answer of the policy's `visible` rule is used again."""

MAX_CACHED_VIEWS = 1024


class Visibility:
    """Which tools a caller may see: policy's answer, kept for at most ten seconds.

    Kept by policy revision and by everything about the caller that policy is shown, so that two
    callers share an answer only where policy could not tell them apart.
    """

    def __init__(self, catalog: Catalog, policy: Policy, clock: Clock) -> None:
        self._catalog = catalog
        self._policy = policy
        self._clock = clock
        self._views: dict[tuple[str, Caller], tuple[int, frozenset[str]]] = {}

    async def names(self, caller: Caller) -> frozenset[str]:
        """The names of all tools this caller may see."""
        key = (self._policy.revision, caller)
        now = self._clock.now_ms()
        known = self._views.get(key)
        if known is not None and now - known[0] < VISIBILITY_TTL_MS:
            return known[1]
        tools = self._catalog.tools()
        document = list_document(caller=caller, tools=tools, now_ms=now)
        names = await self._policy.visible(document, [tool.name for tool in tools])
        if names:  # an empty answer may be a fault of policy, which must not last ten seconds
            if len(self._views) >= MAX_CACHED_VIEWS:
                self._views.clear()
            self._views[key] = (now, names)
        return names

    async def tools(self, caller: Caller) -> Sequence[Tool]:
        """All tools this caller may see, sorted by name."""
        names = await self.names(caller)
        return [tool for tool in self._catalog.tools() if tool.name in names]

    async def find(self, caller: Caller, name: str) -> Tool:
        """The tool of that name.

        Raises:
            Refused: `unknown_tool`, whether it does not exist or is hidden from this caller.
        """
        names = await self.names(caller)
        tool = self._catalog.tool(name) if name in names else None
        if tool is None:
            hidden = self._catalog.tool(name) is not None
            raise Refused(
                Code.UNKNOWN_TOOL,
                f"Unknown tool: {name[:128]}",
                detail="hidden from this caller" if hidden else "not in the catalog",
            )
        return tool


async def normalise(visibility: Visibility, check: ArgumentCheck, call: Call) -> NormalCall:
    """A call in its one spelling.

    Raises:
        Refused: `unknown_tool`, `invalid_arguments`.
    """
    tool = await visibility.find(call.caller, call.tool_name)
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
