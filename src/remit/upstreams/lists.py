"""The lists that a server can be asked for, and a prompt of one as a definition that is pinned.

A prompt's words go to a model as a tool's do, so they are held against what was accepted in the
same way: a prompt is read as an item of `tools/list` whose name begins with `prompts/get:`, and
whose schema says which arguments it takes. Nothing of a prompt gets lost in that but its icons,
`_meta` and fields that MCP does not name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from remit.model import PROMPT
from remit.upstreams.messages import invalid

MAX_ARGUMENTS = 100


class Kind(Enum):
    """A list: its method, the member of the result that holds it, and what its items differ in."""

    TOOLS = ("tools/list", "tools", "name", "tools")
    PROMPTS = ("prompts/list", "prompts", "name", "prompts")
    RESOURCES = ("resources/list", "resources", "uri", "resources")
    TEMPLATES = ("resources/templates/list", "resourceTemplates", "uriTemplate", "templates")

    def __init__(self, method: str, member: str, key: str, noun: str) -> None:
        self.method = method
        self.member = member
        self.key = key
        self.noun = noun


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a server lists beside its tools; None where it was not asked, or says it has none.

    `prompts` are items as `prompt_item` makes them; the others are as the server sent them.
    """

    prompts: Sequence[dict[str, Any]] | None = None
    resources: Sequence[dict[str, Any]] | None = None
    templates: Sequence[dict[str, Any]] = ()
    completes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator offers of a server beside its tools."""

    prompts: bool = False
    resources: bool = False


Ask = Callable[[Kind], Awaitable[list[dict[str, Any]]]]
"""Gives a whole list of a server; raises UpstreamFault."""


async def words_of(ask: Ask, capabilities: Mapping[str, Any], wanted: Wanted) -> Words:
    """The lists that are wanted and that the server says it has.

    Raises:
        UpstreamFault: one of them could not be had whole.
    """
    prompts = resources = None
    templates: Sequence[dict[str, Any]] = ()
    if wanted.prompts and "prompts" in capabilities:
        prompts = [prompt_item(each) for each in await ask(Kind.PROMPTS)]
    if wanted.resources and "resources" in capabilities:
        resources = await ask(Kind.RESOURCES)
        templates = await ask(Kind.TEMPLATES)
    return Words(
        prompts=prompts,
        resources=resources,
        templates=templates,
        completes="completions" in capabilities,
    )


def prompt_book(server: str) -> str:
    """The name under which a server's prompts are kept: no server can have it."""
    return f"{server}.prompts"


def prompt_item(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt of `prompts/list` as an item of `tools/list`.

    Raises:
        UpstreamFault: `upstream_invalid`: its arguments are none that it could be asked with.
    """
    properties: dict[str, Any] = {}
    required = []
    for each in _arguments(prompt.get("arguments")):
        name = each.get("name")
        if not isinstance(name, str) or not name or name in properties:
            raise invalid("the server lists a prompt whose arguments have no names of their own")
        told = {part: each[part] for part in ("title", "description") if each.get(part) is not None}
        properties[name] = {"type": "string", **told}
        if each.get("required") is True:
            required.append(name)
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    item: dict[str, Any] = {"name": f"{PROMPT}{prompt['name']}", "inputSchema": schema}
    return item | {part: prompt[part] for part in ("title", "description") if part in prompt}


def _arguments(value: object) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid("the server lists a prompt whose arguments are no list")
    if len(value) > MAX_ARGUMENTS:
        raise invalid(f"the server lists a prompt of more than {MAX_ARGUMENTS} arguments")
    return value
