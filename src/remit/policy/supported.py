"""What Remit can enforce today of `remit.decision/1`: one table, closed by default.

A decision that asks for anything that has no row here, or that the row's check refuses, is denied
`policy_unsupported`: a constraint that would be ignored is a hole. docs/policy-input.md repeats
the table for policy authors, and a test holds the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from remit.reach import plain_host, plain_method, plain_path

Check = Callable[[Any], bool]

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*")
_CHANNEL = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_PROFILE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_STEP_UP = frozenset({"acr", "amr", "max_age_s"})
_MOST = 1024


def _anything(_: Any) -> bool:
    return True


def _empty(value: Any) -> bool:
    return not value


def _one_of(*names: str) -> Check:
    return lambda value: value in names


def _profile(name: Any) -> bool:
    """A name that a profile can have; whether there is one, and what it gives, the path checks."""
    return _PROFILE.fullmatch(name) is not None


def _destinations(rules: Any) -> bool:
    """Exact, for a rule that is not would let nothing through, and its author would not know."""
    return all(
        plain_host(rule["host"])
        and all(map(plain_method, rule.get("methods", ())))
        and ("path_prefix" not in rule or plain_path(rule["path_prefix"]))
        for rule in rules
    )


def _credentials(rules: Any) -> bool:
    return all(all(rule.get("scopes", ())) for rule in rules)


def _media_types(names: Any) -> bool:
    return all(_MEDIA_TYPE.fullmatch(name) for name in names)


def _notify(obligation: Any) -> bool:
    found = obligation.get("properties", {})
    channel, message = found.get("channel"), found.get("message", "")
    return (
        found.keys() <= {"channel", "message"}
        and isinstance(channel, str)
        and _CHANNEL.fullmatch(channel) is not None
        and isinstance(message, str)
        and len(message) <= _MOST
    )


def _step_up(obligation: Any) -> bool:
    found = obligation.get("properties", {})
    acr, amr, age = found.get("acr", "-"), found.get("amr", ["-"]), found.get("max_age_s", 1)
    return (
        bool(found)
        and found.keys() <= _STEP_UP
        and isinstance(acr, str)
        and acr != ""
        and isinstance(amr, list)
        and bool(amr)
        and all(isinstance(each, str) and each for each in amr)
        and type(age) is int
        and age >= 1
    )


ENFORCED: Mapping[str, Check] = {
    # What the arguments may be
    "constraints.arguments.bounds": _anything,
    "constraints.arguments.force": _anything,
    "constraints.arguments.redact": _empty,
    # Where and how long it runs
    "constraints.runner.profile": _profile,
    "constraints.runner.min_tier": _anything,
    "constraints.runner.wall_s": _anything,
    "constraints.runner.memory_mb": _anything,
    # What it may reach, of what the catalog declares
    "constraints.egress": _destinations,
    "constraints.credentials": _credentials,
    # What comes back
    "constraints.output.max_bytes": _anything,
    "constraints.output.redact": _anything,
    "constraints.output.content_types": _media_types,
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
    "obligations.notify": _notify,
    "obligations.step_up": _step_up,
}

BESIDE_A_DENIAL = frozenset({"log", "notify"})
"""Obligations that are performed although nothing runs."""


def performable(type_: str, properties: Any) -> bool:
    """Whether an obligation can be performed beside a denial."""
    check = ENFORCED.get(f"obligations.{type_}")
    obligation = {"type": type_, "properties": properties}
    return type_ in BESIDE_A_DENIAL and check is not None and check(obligation)


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
