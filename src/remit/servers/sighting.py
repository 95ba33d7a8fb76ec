"""One definition of a tool as it was seen: what it says, what is odd about it, whether it is of use."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from remit.catalog.foreign import prepare_foreign
from remit.errors import ConfigError
from remit.model import ToolSign
from remit.upstreams.definitions import Definition
from remit.upstreams.names import Skeleton
from remit.upstreams.suspicions import suspicions
from remit.visible import shown

MAX_SIGNS = 32
"""Signs of one definition that are kept; a text that has more has said enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A definition, the signs in it, and why it cannot be used (None: it can).

    `unchecked` names the patterns of its schemas that only the server itself checks.
    """

    definition: Definition
    signs: tuple[ToolSign, ...] = ()
    fault: str | None = None
    unchecked: tuple[str, ...] = ()


def examine(definition: Definition, others: AbstractSet[Skeleton]) -> Sighting:
    """Look at a definition: takes milliseconds, and is done once for each.

    Args:
        others: names of the catalog's other tools, as `suspicions` takes them.
    """
    found = suspicions(definition, others)[:MAX_SIGNS]
    fault, unchecked = _schemas(definition)
    return Sighting(
        definition=definition,
        signs=tuple(
            ToolSign(sign=each.sign.value, place=each.place, excerpt=each.excerpt) for each in found
        ),
        fault=fault,
        unchecked=unchecked,
    )


def _schemas(definition: Definition) -> tuple[str | None, tuple[str, ...]]:
    unchecked: list[str] = []
    schemas = (("inputSchema", definition.input_schema), ("outputSchema", definition.output_schema))
    for part, schema in schemas:
        if schema is None:
            continue
        try:
            found = prepare_foreign(schema.value()).unchecked
        except ConfigError as error:
            place = shown(f"/{part}{error.place or ''}", 120)
            return f"its schema cannot be checked: {error.message} ({place})", ()
        unchecked += [shown(f"/{part}{pointer}", 120) for pointer in found]
    return None, tuple(unchecked)
