"""What a server's annotations make of a tool: never less than what the operator said of it."""

from __future__ import annotations

from dataclasses import dataclass

from remit.model import RISK_OF, Effect, Risk
from remit.upstreams.definitions import Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How much a tool can do; each field may be raised, none is ever lowered."""

    effect: Effect = Effect.READ
    risk: Risk = Risk.LOW
    open_world: bool = False


def at_least(definition: Definition) -> Standing:
    """What the tool is at the least, by its annotations (MCP 2025-11-25 §ToolAnnotations).

    A tool that is said not to be read-only is destructive unless it is said not to be, which is the
    protocol's own default; one that is said to be destructive is so, whatever else is said. What
    promises harmlessness raises nothing. A tool of which nothing is said stands lowest: that is no
    promise that it is harmless, and an operator must say what it is.
    """
    said = definition.annotations.value() if definition.annotations else {}
    read_only, destructive = said.get("readOnlyHint"), said.get("destructiveHint")
    effect = Effect.READ
    if destructive is True or (read_only is False and destructive is None):
        effect = Effect.DESTRUCTIVE
    elif read_only is False:
        effect = Effect.WRITE
    return Standing(
        effect=effect, risk=RISK_OF[effect], open_world=said.get("openWorldHint") is True
    )


def raised(operators: Standing, definition: Definition) -> Standing:
    """The operator's word, raised to what the annotations say at the least."""
    least = at_least(definition)
    effects, risks = list(Effect), list(Risk)  # both are declared from least to most
    return Standing(
        effect=max(operators.effect, least.effect, key=effects.index),
        risk=max(operators.risk, least.risk, key=risks.index),
        open_world=operators.open_world or least.open_world,
    )
