"""Random documents that fit `remit.input/1`, made from its schema, from a seed.

Names come from small pools that meet those of the settings, so that rules of every kind apply.
Arguments are any JSON.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.policy.world import schema

INPUT = schema("remit.input-1")

TOOLS = (
    "restart_service",
    "read_status",
    "db_query",
    "root_shell",
    "set_password",
    "key_new",
    "kubectl_get",
)
ENVIRONMENTS = ("staging", "production", "sandbox", "")
GROUPS = ("agents", "auditors", "sre", "break-glass", "visitors")
SUBJECTS = ("deploy-bot", "intern-bot", "dana")
SYSTEMS = ("tickets", "ci", "cloud", "chat")
HOSTS = ("api.example.com", "db.example.com", "a.corp.example", "evil.example")
TEXTS = ("", "web", "ledger-db", "--context=prod", "hunter2", "Bearer " + "a" * 24, "  ", "\n", "é")
KEYS = ("service", "replicas", "password", "metadata", "name", "a/b", "~", "argv", "", "k" * 600)
TIMES = (
    "2026-11-16T15:00:00.000Z",
    "2026-11-15T03:00:00.000Z",
    "2026-12-24T12:00:00.000Z",
    "2026-03-29T01:00:00.000Z",
    "2027-07-01T00:00:00.999Z",
)

POOLS: Mapping[str, Sequence[str | int]] = {
    "/tool/name": TOOLS,
    "/tool/environments/": ENVIRONMENTS,
    "/tool/system": SYSTEMS,
    "/tool/egress//host": HOSTS,
    "/tool/egress//methods/": ("GET", "POST"),
    "/tool/egress//path_prefix": ("/", "/v1"),
    "/tool/egress//port": (443, 5432),
    "/caller/subject": SUBJECTS,
    "/caller/groups/": GROUPS,
    "/caller/delegation//subject": SUBJECTS,
    "/claims/ticket": ("", " ", "INC-7"),
    "/claims/purpose": ("", "repair"),
    "/context/environment": ENVIRONMENTS,
    "/context/time": TIMES,
    "/history/untrusted_from/": SYSTEMS,
    "/history/sensitive_from/": SYSTEMS,
}


class Documents:
    """Documents from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def question(self) -> dict[str, Any]:
        """One call or preview, as the gateway would put it: it acts where its tool can act."""
        found: dict[str, Any] = self._value(INPUT, "")
        found["schema"] = "remit.input/1"
        found["phase"] = self.random.choice(("call", "call", "call", "preview"))
        found["tool"] = self._value({"$ref": "#/$defs/tool"}, "/tool")
        found["tools"], found["result"] = [], None
        found["arguments"] = self._object(3)
        if self.random.random() < 0.1:
            found["arguments"]["many"] = [self.random.choice(TEXTS)] * 100
        here = found["context"]["environment"]
        if here not in found["tool"]["environments"]:
            found["tool"]["environments"].append(here)
        found["tool"]["egress"] = found["tool"]["egress"][:1]
        if self.random.random() < 0.5:
            found["usage"] = {name: self.random.choice((0, 3, 70)) for name in COUNTERS}
            found["estimate"] = {"usd_minor": 1}
        return found

    def listing(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The list that the same caller would be shown, with that tool on it."""
        context = {**question["context"], "environment": "", "call_digest": ""}
        rest: dict[str, Any] = {"tool": None, "arguments": {}, "plan": None, "preview": None}
        rest["answers"] = {"round": 0, "given": {}}
        return {
            **question,
            **rest,
            "phase": "list",
            "context": context,
            "tools": [question["tool"]],
        }

    def spoiled(self, question: dict[str, Any]) -> dict[str, Any]:
        """The document with something in it left out, or of another type."""
        inside: Any = question
        while True:
            key = self.random.choice(
                list(inside) if isinstance(inside, dict) else range(len(inside))
            )
            deeper = inside[key]
            if isinstance(deeper, dict | list) and deeper and self.random.random() < 0.7:
                inside = deeper
            elif self.random.random() < 0.5:
                del inside[key]
                return question
            else:
                inside[key] = self.random.choice((None, 7, "x", True, [], {}, [[]], 1.5))
                return question

    def anything(self, depth: int) -> Any:
        """Any JSON value."""
        kind = self.random.choice(("text", "text", "number", "other", "list", "object"))
        if kind == "text" or (depth == 0 and kind in ("list", "object")):
            return self.random.choice(TEXTS)
        if kind == "number":
            return self.random.choice((0, 1, -1, 2, 3, 2.5, 10**15))
        if kind == "other":
            return self.random.choice((None, True, False))
        if kind == "list":
            return [self.anything(depth - 1) for _ in range(self.random.randrange(4))]
        return self._object(depth)

    def _object(self, depth: int) -> dict[str, Any]:
        names = self.random.sample(KEYS, self.random.randrange(5))
        return {name: self.anything(depth - 1) for name in names}

    def _value(self, wanted: Any, place: str) -> Any:
        if place in POOLS:
            return self.random.choice(POOLS[place])
        if wanted is True:
            return self.anything(1)
        if "$ref" in wanted:
            return self._value(INPUT["$defs"][wanted["$ref"].removeprefix("#/$defs/")], place)
        if "const" in wanted:
            return wanted["const"]
        if "enum" in wanted:
            return self.random.choice(wanted["enum"])
        if "anyOf" in wanted:
            return self._value(self.random.choice(wanted["anyOf"]), place)
        return self._typed(wanted, place)

    def _typed(self, wanted: Mapping[str, Any], place: str) -> Any:
        match wanted["type"]:
            case "object":
                known = wanted.get("properties", {})
                needed = wanted.get("required", ())
                names = [name for name in known if name in needed or self.random.random() < 0.5]
                return {name: self._value(known[name], f"{place}/{name}") for name in names}
            case "array":
                most = min(wanted.get("maxItems", 3), 3)
                return [
                    self._value(wanted["items"], f"{place}/")
                    for _ in range(self.random.randrange(most + 1))
                ]
            case "string":
                return self.random.choice(("", "x"))
            case "integer":
                return self.random.choice((wanted.get("minimum", 0), wanted.get("minimum", 0) + 7))
            case "boolean":
                return self.random.random() < 0.5
            case "null":
                return None
            case other:
                raise AssertionError(other)


COUNTERS = ("changes_1h", "destructive_1h", "usd_minor_1h")
