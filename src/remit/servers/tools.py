"""From what the operator wrote and what a server's tool was accepted as, to a `Tool`.

The operator's word comes first; the server's annotations may raise what a tool is, never lower it.
Title, description and schemas are the server's own, exactly as they were accepted: people saw those
and no others, and a model is best served by what the server's author wrote. That they are a
server's words and not the operator's is told to policy and people by `Tool.upstream`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from enum import Enum
from functools import lru_cache
from typing import Any

from remit import canonical
from remit.catalog.command import RESERVED, consequence, environment_rule
from remit.catalog.safety import invalid
from remit.catalog.server_means import command_of, credentials_of, egress_of, prefix_of, profile_of
from remit.catalog.server_spec import Mode, ServerSpec, ServerToolSpec, Unlisted
from remit.catalog.spec import LimitsSpec
from remit.model import (
    RISK_OF,
    SHOWN_AS,
    Command,
    CredentialRule,
    Effect,
    EgressRule,
    Frozen,
    Limits,
    Method,
    Mount,
    ResultKind,
    Tool,
    Upstream,
)
from remit.upstreams.definitions import NAME, Definition
from remit.upstreams.hints import Standing, raised
from remit.upstreams.names import offered_name, skeleton

DOMAIN = "remit.server-tool/1"
_UNSAID = ServerToolSpec(name="-")


class ServerTools:
    """Makes tools of one server's definitions.

    Args:
        spec: what the operator says of the server.
    """

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self.prefix = prefix_of(spec)
        self._said = {each.name: each for each in spec.tools}
        self._egress = egress_of(spec)
        self._credentials = credentials_of(spec)
        self._limits = limits(spec.limits)
        self._commands = {writes: command_of(spec, writes=writes) for writes in (False, True)}

    def said(self, name: str) -> ServerToolSpec:
        """What the operator says of a tool; of one that is not listed, nothing."""
        return self._said.get(name, _UNSAID)

    def hidden(self, name: str) -> bool:
        """Whether the operator does not want the tool offered."""
        said = self._said.get(name)
        return self.spec.unlisted is Unlisted.HIDE if said is None else said.hidden

    def offered_as(self, name: str) -> str:
        """What agents call a tool by."""
        return self.said(name).alias or offered_name(self.prefix, name)

    def tool(self, definition: Definition) -> Tool:
        """The tool of an accepted definition.

        Raises:
            ConfigError: `catalog_invalid`: it does not fit what the operator says of it.
        """
        said, spec = self.said(definition.name), self.spec
        name = self.offered_as(definition.name)
        self.check_name(name)
        standing = self.standing(said, definition)
        schema: dict[str, Any] = definition.input_schema.value()
        output = definition.output_schema
        tool = Tool(
            name=name,
            title=definition.title,
            description=definition.description or "",
            input_schema=Frozen(definition.input_schema.text.encode()),
            output_schema=None if output is None else Frozen(output.text.encode()),
            command=self._commands[standing.effect is not Effect.READ],
            effect=standing.effect,
            risk=standing.risk,
            idempotent=said.idempotent,
            on_cancel=said.on_cancel,
            environment=environment_rule(said.environment or spec.environment, schema),
            result=ResultKind.MCP,
            consequence=consequence(said.consequence, schema),
            runner=profile_of(spec),
            limits=self._limits if said.limits is None else limits(said.limits),
            tags=tuple(sorted(set(said.tags))),
            system=spec.system or spec.name,
            open_world=standing.open_world,
            returns=tuple(sorted(set(spec.returns if said.returns is None else said.returns))),
            egress=self._egress,
            credentials=self._credentials,
            upstream=self._upstream(said, definition, standing.effect),
        )
        return replace(tool, digest=digest(tool))

    def check_name(self, name: str) -> None:
        """Raise ConfigError where nothing may be offered under this name."""
        if not NAME.fullmatch(name):
            raise invalid("its name would be too long with the prefix", "alias", "give it an alias")
        if skeleton(name).startswith(RESERVED):
            raise invalid(f"names that begin with {RESERVED} are the gateway's own", "alias")

    def standing(self, said: ServerToolSpec, definition: Definition) -> Standing:
        """How much the tool can do: the operator's word, raised by the annotations."""
        effect = said.effect or self.spec.effect
        open_world = self.spec.open_world if said.open_world is None else said.open_world
        operators = Standing(
            effect=effect, risk=said.risk or RISK_OF[effect], open_world=open_world
        )
        return raised(operators, definition)

    def _upstream(self, said: ServerToolSpec, definition: Definition, effect: Effect) -> Upstream:
        spec = self.spec
        shadow = spec.mode is Mode.SHADOW and (effect is not Effect.DESTRUCTIVE or said.shadow)
        return Upstream(
            server=spec.name,
            tool=definition.name,
            definition=definition.digest,
            url=spec.url,
            authorization=spec.authorization,
            header=spec.header,
            session=spec.session,
            idle_s=spec.session_idle_s,
            age_s=spec.session_age_s,
            unsafe_session_writes=spec.unsafe_session_writes,
            shadow=shadow,
            method=self.method_of(definition.name),
        )

    def method_of(self, name: str) -> Method:
        """By which method what has this name at the server is asked for."""
        return Method.TOOLS_CALL


def limits(spec: LimitsSpec) -> Limits:
    """The most a call may use."""
    return Limits(**dict(spec))


def digest(tool: Tool) -> str:
    """SHA-256 over a server's tool: title, description and schemas by the definition's digest,
    which covers them, and every other field but the digest itself."""
    upstream = tool.upstream
    assert upstream is not None
    rule = tool.environment
    facts: dict[str, Any] = {
        "name": tool.name,
        "means": _means(tool.command, tool.limits, tool.egress, tool.credentials),
        "effect": tool.effect.value,
        "risk": tool.risk.value,
        "idempotent": tool.idempotent,
        "on_cancel": tool.on_cancel.value,
        "environment": [rule.fixed, rule.argument, list(rule.names)],
        "consequence": tool.consequence,
        "runner": tool.runner,
        "tags": list(tool.tags),
        "system": tool.system,
        "open_world": tool.open_world,
        "returns": [each.value for each in tool.returns],
        "upstream": _plain(upstream),
    }
    if upstream.method is Method.TOOLS_CALL:
        del facts["upstream"]["method"]
    if upstream.header == SHOWN_AS:
        del facts["upstream"]["header"]
    return canonical.digest_of(DOMAIN, facts)


@lru_cache(maxsize=4_096)
def _means(
    command: Command,
    limits: Limits,
    egress: tuple[EgressRule, ...],
    credentials: tuple[CredentialRule, ...],
) -> str:
    """A digest over what calls are made with, which most tools of a server have in common."""
    facts = {
        "argv": list(command.argv),
        "env": [list(each) for each in command.env],
        "mounts": [_plain(each) for each in command.mounts],
        "limits": _plain(limits),
        "egress": [_plain(each) for each in egress],
        "credentials": [_plain(each) for each in credentials],
    }
    return canonical.digest_of("remit.server-means/1", facts)


def _plain(value: Mount | Limits | EgressRule | CredentialRule | Upstream) -> dict[str, Any]:
    return {each.name: _exact(getattr(value, each.name)) for each in fields(value)}


def _exact(value: Any) -> Any:
    """The same JSON of exact types, of which canonical JSON is written four times as fast."""
    if isinstance(value, Enum):
        return value.value
    return [_exact(each) for each in value] if isinstance(value, tuple) else value
