"""The same policy as `bench/large/policy.rego`, by hand in plain Python: the floor it stands beside.

Only for measuring: it gives the same answers on documents that the gateway makes, and is not the
policy language that Remit promises.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TICKET = re.compile(r"^[A-Z]{2,8}-[0-9]{1,7}$")


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("[^.]*".join(re.escape(part) for part in pattern.split("*")))


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


@cache
def _network(text: str) -> Any:
    return ipaddress.ip_network(text)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def decision(asked: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The `remit.decision/1` document, reasons in no order that means anything."""
    fact = facts["tools"].get(asked["tool"]["name"])
    granting = [
        facts["roles"][name] for name in _roles(asked, facts) if _grants(asked, facts, name)
    ]
    denials = {one[0] + one[2]: _reason(*one) for one in _denials(asked, facts, fact, granting)}
    if denials:
        return _answer("deny", list(denials.values()))
    changes = asked["tool"]["effect"] in ("write", "destructive")
    runner: dict[str, Any] = {"wall_s": min(role["wall_s"] for role in granting)}
    if changes:
        runner["min_tier"] = "sandbox"
    constraints: dict[str, Any] = {"runner": runner}
    if fact["bounds"]:
        constraints["arguments"] = {"bounds": fact["bounds"]}
    approval = _approval(asked, fact, changes)
    if approval is not None:
        reason = {"code": "approval", "message": "People must agree first.", "audience": "user"}
        more = {"constraints": constraints, "approvals": approval}
        return {**_answer("require_approval", [reason]), **more}
    reason = {"code": "granted", "message": "A role of the caller has this tool."}
    return {**_answer("allow", [reason]), "constraints": constraints}


def _answer(verdict: str, reasons: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": "remit.decision/1", "decision": verdict, "reasons": reasons}


def _reason(code: str, message: str, path: str) -> dict[str, Any]:
    return {"code": code, "message": message, "path": path, "audience": "user", "denies": True}


def _roles(asked: Mapping[str, Any], facts: Mapping[str, Any]) -> set[str]:
    caller, subjects, groups = asked["caller"], facts["subjects"], facts["groups"]
    found = set(subjects.get(caller["subject"], {}).get("roles", ()))
    for group in caller["groups"]:
        found.update(groups.get(group, {}).get("roles", ()))
    for behind in caller["delegation"]:
        found.update(subjects.get(behind["subject"], {}).get("delegable", ()))
    return found


def _grants(asked: Mapping[str, Any], facts: Mapping[str, Any], name: str) -> bool:
    role = facts["roles"].get(name)
    return (
        role is not None
        and asked["context"]["environment"] in role["environments"]
        and asked["tool"]["effect"] in role["effects"]
        and any(_glob(pattern).fullmatch(asked["tool"]["name"]) for pattern in role["tools"])
    )


def _denials(
    asked: Mapping[str, Any], facts: Mapping[str, Any], fact: Any, granting: list[Any]
) -> Iterator[tuple[str, str, str]]:
    context, tool = asked["context"], asked["tool"]
    changes = tool["effect"] in ("write", "destructive")
    production = context["environment"] == "production"
    if not granting:
        yield "not_granted", "No role of yours has this tool there.", ""
    if asked["phase"] not in ("call", "preview"):
        yield "phase", "Only calls and previews are judged.", ""
    if fact is None:
        yield "unknown_tool", "This tool is not in the register.", ""
    if fact is None or fact["digest"] != tool["digest"]:
        yield "digest", "This tool is not the one that was reviewed.", ""
    if fact is None or context["environment"] not in fact["environments"]:
        yield "environment", "This tool does not act there.", ""
    if fact is not None:
        yield from _arguments(asked["arguments"], fact)
    if production and changes:
        yield from _production(asked, facts)
    if any(
        _pattern(pattern).search(text)
        for text in _texts(asked["arguments"])
        for pattern in facts["secrets"]
    ):
        yield "secret", "An argument holds what looks like a secret.", ""
    if asked["history"]["calls"] > facts["budgets"][asked["caller"]["kind"]]:
        yield "budget", "Too many calls for today.", ""
    if changes and tool["open_world"] and asked["history"]["untrusted"]:
        yield "tainted", "Others' words were read; ask a person.", ""


def _arguments(arguments: Mapping[str, Any], fact: Any) -> Iterator[tuple[str, str, str]]:
    for field, bound in fact["bounds"].items():
        value = arguments.get(field)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not bound["minimum"] <= value <= bound["maximum"]:
            yield "bound", "A number is out of bounds.", f"/{field}"
    for field, options in fact["choices"].items():
        if field in arguments and arguments[field] not in options:
            yield "choice", "A value is not one of those allowed.", f"/{field}"
    for field in fact["required"]:
        if field not in arguments:
            yield "required", "An argument is needed here.", f"/{field}"
    for field in fact["forbidden"]:
        if field in arguments:
            yield "forbidden", "An argument may not be given.", f"/{field}"


def _production(
    asked: Mapping[str, Any], facts: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    address = ipaddress.ip_address(asked["context"]["source_ip"])
    if not any(address in _network(network) for network in facts["networks"]):
        yield "network", "Production is changed from known networks only.", ""
    at = datetime.fromisoformat(asked["context"]["time"])
    if not any(_within(at, window) for window in facts["windows"]):
        yield "window", "Not at this time.", ""
    if not TICKET.search(asked["claims"]["ticket"]):
        yield "ticket", "Name the ticket of this change.", ""


def _within(at: datetime, window: Mapping[str, Any]) -> bool:
    there = at.astimezone(_zone(window["zone"]))
    return (
        DAYS[there.weekday()] in window["days"] and window["from"] <= there.hour < window["until"]
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _approval(asked: Mapping[str, Any], fact: Any, changes: bool) -> dict[str, Any] | None:
    destructive = asked["tool"]["effect"] == "destructive"
    if destructive and asked["context"]["environment"] == "production":
        return {"required": 2, "groups": ["sre"], "ttl_s": 900}
    if changes and fact["risk"] == "critical" and not destructive:
        return {"required": 1, "ttl_s": 1800}
    return None
