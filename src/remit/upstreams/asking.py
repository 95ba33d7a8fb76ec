"""What is asked of whoever speaks with MCP servers over HTTP, and what holds for every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from remit.errors import Code, InputError, UpstreamFault
from remit.model import SHOWN_AS, Capabilities, Lease, Method, RunSpec, Tier, UpstreamCall
from remit.profile import ELSEWHERE
from remit.upstreams.definitions import read_definition
from remit.upstreams.lists import Ask, Kind, Wanted, Words, prompt_book, prompt_item
from remit.upstreams.messages import Progress
from remit.upstreams.notices import Hearing, Hears

Seen = Callable[[str, Sequence[dict[str, Any]]], None]
"""Told the server's name and its list of tools, as it sent them, each time one was read; or
`lists.prompt_book` of it, and its prompts as `lists.prompt_item` makes them.

Must return at once and not raise. Comparing it with what is pinned is its job, not the runner's.
"""


class HttpServers(Protocol):
    """MCP servers that listen on HTTP, asked by the gateway itself.

    Every method ends within the time it is given. Cancelling the task that awaits one gives the
    request up and closes its stream. A connection that was used with one authorization is never
    used with another.
    """

    @property
    def capabilities(self) -> Capabilities:
        """The profile `http`; see `elsewhere`."""

    def doing(self, server: str) -> tuple[str, str | None] | None:
        """How calls of a server go (`up`, `failing`, or `down` while none is let through), and the
        code of the last fault; None as long as nothing is known of it."""

    async def call(
        self,
        spec: RunSpec,
        lease: Lease,
        authorization: bytes | None,
        *,
        within_s: float,
        progress: Callable[[Progress], None],
    ) -> dict[str, Any]:
        """Make the one call that `spec.upstream` names, and give the result object as it came.

        The definition of the tool was compared with the plan's before (`check_definition`), in a
        list that this server gave under the same authorization and that was still fresh.

        Args:
            spec: with `upstream.url`; the limits bound what is read.
            lease: the run's; its id is the name by which records know this call.
            authorization: the token that the run was lent, None if its plan has none; it is
                shown in the plan's header.
            within_s: seconds that all of it may take, connecting included.
            progress: called with each report; returns at once and does not raise.

        Raises:
            UpstreamFault: there is no result; `sent` says whether any byte of the call had gone
                out. Its code is `tool_changed` where the definition is another.
        """

    async def list_tools(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> list[dict[str, Any]]:
        """Every tool that the server lists now, as it sent them; nothing kept is given.

        Args:
            header: in which the token is shown, as `UpstreamCall.header`.

        Raises:
            UpstreamFault: there is no whole list.
        """

    async def words(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        wanted: Wanted,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> Words:
        """What the server lists now beside its tools, as far as that is wanted.

        Raises:
            UpstreamFault: there is no whole list.
        """

    async def hear(
        self,
        server: str,
        url: str,
        authorization: bytes | None,
        lists: frozenset[str],
        hears: Hears,
        *,
        within_s: float,
        header: str = SHOWN_AS,
    ) -> Hearing:
        """A connection that is held open to hear what the server tells; whoever gets it closes it.

        Args:
            lists: of whose changes is to be heard.

        Raises:
            UpstreamFault: there is none.
        """

    def offers(self, server: str) -> Mapping[str, Any]:
        """What a server said last that it can do; nothing of one that was not asked."""

    async def aclose(self) -> None:
        """Close every connection; what is under way ends with a fault. Idempotent."""


def elsewhere(*, digest: str, version: str) -> Capabilities:
    """What holds of a call over HTTP: nothing is isolated, and it goes where its plan says.

    Args:
        digest: `sha256:` and hex over all that identifies the asking side.
        version: of the client.
    """
    return Capabilities(
        name=ELSEWHERE,
        tier=Tier.NONE,
        digest=digest,
        version=version,
        holds={"egress": True},
        profile=ELSEWHERE,
    )


def has_tools(capabilities: Mapping[str, Any]) -> bool:
    """Whether a server is asked for its tools: also where it does not say that it has any, unless
    it says that it has something else."""
    return "tools" in capabilities or not {"prompts", "resources"} & capabilities.keys()


async def checked(call: UpstreamCall, ask: Ask, seen: Seen) -> None:
    """That a server whose tools nobody has listed yet still has what is called as planned.

    A tool or prompt is held against what the server lists; whether it has a resource, the server
    says itself.

    Args:
        ask: gives a list of the server as it is now.
        seen: told the list that was read.

    Raises:
        UpstreamFault: `tool_changed`, or there is no list; nothing was sent.
    """
    match call.method:
        case Method.TOOLS_CALL:
            items = await ask(Kind.TOOLS)
            seen(call.server, items)
            check_definition(call, items)
        case Method.PROMPTS_GET:
            await check_prompt(call, ask, seen)
        case Method.RESOURCES_READ | Method.RESOURCES_SUBSCRIBE | Method.COMPLETE:
            return


async def check_prompt(call: UpstreamCall, ask: Ask, seen: Seen | None = None) -> None:
    """That a server still lists the prompt that is asked for as the plan has it.

    Raises:
        UpstreamFault: `tool_changed`, or there is no list; nothing was sent.
    """
    items = [prompt_item(each) for each in await ask(Kind.PROMPTS)]
    if seen is not None:
        seen(prompt_book(call.server), items)
    check_definition(call, items)


def check_definition(call: UpstreamCall, items: Sequence[dict[str, Any]]) -> None:
    """That a server still lists the called tool as the plan has it.

    Args:
        call: what the plan says.
        items: the server's list, each item with a name of its own.

    Raises:
        UpstreamFault: `tool_changed`; nothing was sent.
    """
    item = next((each for each in items if each.get("name") == call.tool), None)
    if item is None:
        raise _changed("the server does not have this tool any more")
    try:
        found = read_definition(call.server, item).digest
    except InputError:
        raise _changed("the server's definition of this tool cannot be read any more") from None
    if found != call.definition:
        raise _changed("the server's definition of this tool is another than the one planned with")


def _changed(message: str) -> UpstreamFault:
    return UpstreamFault(
        Code.TOOL_CHANGED,
        message,
        hint="an operator compares the definitions: remit tools diff",
    )
