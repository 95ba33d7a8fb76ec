"""What Remit can enforce today of `remit.decision/1`: one table, closed by default.

A decision that asks for anything that has no row here, or that the row's check refuses, is denied
`policy_unsupported`: a constraint that would be ignored is a hole. docs/policy-input.md repeats
the table for policy authors, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[Any], bool]


def _anything(_: Any) -> bool:
    return True


def _empty(value: Any) -> bool:
    return not value


def _one_of(*names: str) -> Check:
    return lambda value: value in names


ENFORCED: Mapping[str, Check] = {
    # What the arguments may be
    "constraints.arguments.bounds": _anything,
    "constraints.arguments.force": _anything,
    "constraints.arguments.redact": _empty,
    # Where and how long it runs
    "constraints.runner.profile": _one_of("sandbox"),
    "constraints.runner.min_tier": _one_of("none", "degraded", "sandbox"),
    "constraints.runner.wall_s": _anything,
    "constraints.runner.memory_mb": _anything,
    # What it may reach: nothing, so only the empty list holds
    "constraints.egress": _empty,
    "constraints.credentials": _empty,
    # What comes back
    "constraints.output.max_bytes": _anything,
    "constraints.output.redact": _empty,
    # Who has to agree
    "approvals.required": _anything,
    "approvals.groups": _anything,
    "approvals.exclude": _anything,
    "approvals.separation_of_duties": _anything,
    "approvals.ttl_s": _anything,
    "approvals.reason_required": _anything,
    "approvals.on_timeout": _one_of("deny"),
    # Rates and budgets: none yet, and no decision is ever cached
    "limits.budget": _empty,
    "limits.cache_ttl_s": _empty,
    # What must be done besides
    "obligations.log": _anything,
}

_SECTIONS = ("arguments", "runner", "output")


def first_unsupported(document: Mapping[str, Any]) -> str | None:
    """The first part of a well-shaped decision that Remit cannot enforce, or None."""
    for path, value in _parts(document):
        check = ENFORCED.get(path)
        if check is None or not check(value):
            return path
    return None


def _parts(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each part of a decision that binds, under the path the table uses."""
    for name, value in document.get("constraints", {}).items():
        if name not in _SECTIONS:
            yield f"constraints.{name}", value
            continue
        for field, item in value.items():
            yield f"constraints.{name}.{field}", item
    for section in ("approvals", "limits"):
        for field, item in (document.get(section) or {}).items():
            yield f"{section}.{field}", item
    for obligation in document.get("obligations", ()):
        yield f"obligations.{obligation['type']}", obligation
