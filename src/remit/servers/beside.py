"""What a server has beside its tools, as entries of the catalog: prompts, resources, completion.

Each is asked for by a method of its own, and by no `tools/call`: its name begins with the method,
which no tool's name can. It reads; nothing that the server says of it raises or lowers that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from remit.catalog.server_spec import ServerSpec, ServerToolSpec
from remit.model import PROMPT, RISK_OF, Effect, Method, SessionMode, Tool
from remit.servers.tools import ServerTools, digest
from remit.upstreams.definitions import Definition, Written
from remit.upstreams.hints import Standing
from remit.upstreams.names import offered_name

_READS = ServerToolSpec(name="-", effect=Effect.READ)

_STRING: Mapping[str, Any] = MappingProxyType({"type": "string", "maxLength": 8_192})
_URI: Mapping[str, Any] = MappingProxyType({"type": "string", "minLength": 1, "maxLength": 2_048})


class ServerPrompts(ServerTools):
    """Makes entries of one server's prompts, which `lists.prompt_item` made definitions of."""

    def said(self, name: str) -> ServerToolSpec:
        """What the operator says of a prompt: that it is offered, and no more."""
        return _READS

    def hidden(self, name: str) -> bool:
        return False

    def offered_as(self, name: str) -> str:
        """How it is called; agents know it by what stands behind the method."""
        return PROMPT + offered_name(self.prefix, name.removeprefix(PROMPT))

    def check_name(self, name: str) -> None:
        super().check_name(name.removeprefix(PROMPT))

    def standing(self, said: ServerToolSpec, definition: Definition) -> Standing:
        return _standing(self)

    def method_of(self, name: str) -> Method:
        return Method.PROMPTS_GET


class ServerMethods(ServerTools):
    """Makes the entries by which one server's resources are read, and arguments completed."""

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(spec)
        self._made: dict[Method, Tool] = {}

    def said(self, name: str) -> ServerToolSpec:
        return _READS

    def hidden(self, name: str) -> bool:
        return False

    def offered_as(self, name: str) -> str:
        return f"{name}:{self.spec.name}"

    def check_name(self, name: str) -> None:
        """It is Remit's own, and fits."""

    def standing(self, said: ServerToolSpec, definition: Definition) -> Standing:
        return _standing(self)

    def method_of(self, name: str) -> Method:
        return Method(name)

    def of(self, method: Method) -> Tool:
        """The entry of one method, made once; its schema is Remit's."""
        made = self._made.get(method)
        if made is None:
            made = self._made[method] = self._make(method)
        return made

    def _make(self, method: Method) -> Tool:
        definition = Definition(
            server=self.spec.name,
            name=method.value,
            description=_DESCRIBED[method],
            input_schema=Written(json.dumps(_SCHEMAS[method], separators=(",", ":"))),
        )
        made = self.tool(definition)
        return watched(made) if method is Method.RESOURCES_SUBSCRIBE else made


def watched(tool: Tool) -> Tool:
    """An entry that is carried out on a connection of the gateway's own: whoever calls it lends it
    nothing, gives a process of it no way out, and gets nothing of the server's back."""
    upstream = tool.upstream
    assert upstream is not None
    own = replace(upstream, authorization=None, session=SessionMode.PER_CALL)
    egress = () if upstream.url is None else tool.egress
    made = replace(tool, upstream=own, egress=egress, credentials=(), returns=(), digest="")
    return replace(made, digest=digest(made))


def _standing(made: ServerTools) -> Standing:
    return Standing(effect=Effect.READ, risk=RISK_OF[Effect.READ], open_world=made.spec.open_world)


_DESCRIBED: Mapping[Method, str] = {
    Method.RESOURCES_READ: "Reads one resource of the server.",
    Method.RESOURCES_SUBSCRIBE: "Has the caller told whenever one resource of the server changes.",
    Method.COMPLETE: "Completes an argument of a prompt, or of a template of resources.",
}

_SCHEMAS: Mapping[Method, dict[str, Any]] = {
    Method.RESOURCES_READ: {
        "type": "object",
        "properties": {"uri": dict(_URI)},
        "required": ["uri"],
        "additionalProperties": False,
    },
    Method.RESOURCES_SUBSCRIBE: {
        "type": "object",
        "properties": {"uri": dict(_URI)},
        "required": ["uri"],
        "additionalProperties": False,
    },
    Method.COMPLETE: {
        "type": "object",
        "properties": {
            "ref": {
                "type": "object",
                "properties": {
                    "type": {"enum": ["ref/prompt", "ref/resource"]},
                    "name": {"type": "string", "minLength": 1, "maxLength": 128},
                    "uri": dict(_URI),
                },
                "required": ["type"],
                "additionalProperties": False,
            },
            "argument": {
                "type": "object",
                "properties": {"name": dict(_STRING), "value": dict(_STRING)},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
            "context": {
                "type": "object",
                "properties": {
                    "arguments": {
                        "type": "object",
                        "maxProperties": 100,
                        "additionalProperties": dict(_STRING),
                    }
                },
                "additionalProperties": False,
            },
        },
        "required": ["ref", "argument"],
        "additionalProperties": False,
    },
}
