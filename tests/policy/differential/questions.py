"""Questions for both engines: what the gateway would ask, and what it never would.

Half of them are whole `remit.input/1` documents with arguments of every kind. In the other half
fields are absent, of the wrong type, or odd: an engine must not be told apart by those either.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from remit.policy.bundle import PolicyBundle

ODD: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    10,
    2**31,
    2**53 - 1,
    -(2**53 - 1),
    0.5,
    -2.25,
    1.0,
    "",
    " ",
    "*",
    "production",
    "10",
    "0",
    "true",
    "10.0.0.1",
    "10.0.0.256",
    "::1",
    "010.0.0.1",
    "10.0.0.0/33",
    "2026-11-23T09:00:00Z",
    "2026-11-23T09:00:00+05:30",
    "2026-13-40T99:00:00Z",
    "1é",
    "ÄÖÜ ß",
    "\u0000",
    "a\u0301",
    "\U0001f600",
    "--context=prod",
    "AKIA" + "A" * 16,
    "x" * 300,
    [],
    [[]],
    {},
    {"": ""},
    ["production", None, 3],
    [1, 1.0, "1", True],
    {"a": {"b": {"c": [1, {"d": None}]}}},
    {"10": 10, "9": 9},
)
"""Values that engines are known to disagree on, or that nobody expects where they are put."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a policy speaks of: the strings in its data and its modules."""

    found: tuple[str, ...]

    @classmethod
    def of(cls, bundle: PolicyBundle) -> Words:
        literals = {
            literal
            for text in bundle.modules.values()
            for literal in re.findall(r'"([^"\\\n]{1,64})"', text)
        }
        return cls(tuple(sorted(literals | set(_strings(bundle.data)))))

    def one(self, random: Random) -> str:
        return random.choice(self.found)

    def some(self, random: Random, most: int) -> list[str]:
        return [self.one(random) for _ in range(random.randint(0, most))]


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for key, item in value.items():
                yield key
                yield from _strings(item)


def questions(seed: int, count: int, words: Words) -> Iterator[dict[str, Any]]:
    """So many questions in words that the policy knows; the seed fixes all of them."""
    random = Random(seed)
    for number in range(count):
        document = _whole(random, number, words)
        if number % 2:
            for _ in range(random.randint(1, 4)):
                _spoil(random, document, words)
        yield document


def _whole(random: Random, number: int, words: Words) -> dict[str, Any]:
    """A document as the gateway would make it."""
    call = random.random() < 0.85
    tool = _tool(random, words)
    past = _past(random, words)
    return {
        "schema": "remit.input/1",
        "request_id": f"call_{number}",
        "phase": random.choice(["call", "call", "preview", "result"]) if call else "list",
        "caller": _caller(random, words),
        "claims": {
            "purpose": random.choice(["", " ", "rolling out 2.4.2"]),
            "ticket": random.choice(["", "OPS-12", words.one(random)]),
            "client_name": "",
            "client_version": "",
            "session_id": random.choice(["", "s-1"]),
            "verified": False,
        },
        "tool": tool if call else None,
        "tools": [] if call else [_tool(random, words) for _ in range(random.randint(0, 5))],
        "arguments": _arguments(random, words) if call else {},
        "arguments_meta": {"digest": "", "bytes": 2, "elided": [], "taint": []},
        "answers": _answers(random, words) if call else {"round": 0, "given": {}},
        "context": {
            "environment": random.choice([*tool["environments"], words.one(random), ""]),
            "time": _time(random),
            "source_ip": random.choice(["", "127.0.0.1", "10.1.2.3", "2001:db8::1"]),
            "trace_id": "",
            "call_digest": "",
            "break_glass": False,
        },
        "usage": _usage(random),
        "estimate": {},
        "approvals": [],
        "plan": _plan(random, words) if call else None,
        "preview": None,
        "history": {**past, "since": _time(random), "session": past},
        "result": None,
    }


def _answers(random: Random, words: Words) -> dict[str, Any]:
    action = random.choice(["accept", "decline", "cancel"])
    content = {words.one(random): words.one(random)} if action == "accept" else {}
    given = {words.one(random): {"action": action, "content": content}}
    return random.choice([{"round": 0, "given": {}}, {"round": 1, "given": given}])


def _caller(random: Random, words: Words) -> dict[str, Any]:
    return {
        "tenant": "default",
        "subject": random.choice(["deploy-bot", "alice", words.one(random)]),
        "kind": random.choice(["agent", "agent", "human", "service"]),
        "issuer": "remit:keys",
        "groups": random.choice([["agents"], words.some(random, 4)]),
        "roles": [],
        "amr": random.choice([[], ["mfa"], words.some(random, 2)]),
        "acr": random.choice(["", "urn:mfa", words.one(random)]),
        "auth_time": random.choice(["", _time(random)]),
        "delegation": random.choice([[], [{"subject": words.one(random), "kind": "human"}]]),
    }


def _tool(random: Random, words: Words) -> dict[str, Any]:
    return {
        "server": "command",
        "name": random.choice([words.one(random), "restart_service", "apply_infra", "unheard_of"]),
        "digest": "sha256:00",
        "pinned_digest": "sha256:00",
        "risk": random.choice(["low", "medium", "high", "critical"]),
        "effect": random.choice(["read", "write", "destructive"]),
        "idempotent": random.choice([True, False]),
        "open_world": random.choice([True, False]),
        "source": "catalog",
        "system": random.choice(["command", "tickets", "cloud", "chat", words.one(random)]),
        "returns": random.choice([[], ["untrusted"], ["sensitive"], ["sensitive", "untrusted"]]),
        "egress": random.choice([[], [{"host": words.one(random), "port": 443}]]),
        "credentials": [],
        "tags": words.some(random, 2),
        "environments": random.choice([["staging", "production"], [""], words.some(random, 2)]),
    }


def _plan(random: Random, words: Words) -> dict[str, Any]:
    host = words.one(random)
    return {
        "hash": "sha256:00",
        "kind": "main",
        "runner": {
            "name": "sandbox",
            "digest": "sha256:00",
            "tier": random.choice(["none", "degraded", "sandbox", "gvisor"]),
        },
        "limits": {"wall_s": random.choice([1, 30, 900]), "memory_mb": 256, "pids": 64,
                   "cpu_percent": 100, "tmp_mb": 64, "output_bytes": 65_536, "open_files": 256},
        "egress": random.choice([[], [{"host": host, "port": 443, "methods": ["GET"]}]]),
        "credentials": [],
    }  # fmt: skip


def _past(random: Random, words: Words) -> dict[str, Any]:
    systems = sorted({*words.some(random, 2), *random.choice([[], ["tickets"], ["cloud", "ci"]])})
    return {
        "calls": len(systems),
        "systems": systems,
        "effects": random.choice([[], ["read"], ["read", "write"]]),
        "untrusted": random.choice([True, False]),
        "sensitive": random.choice([True, False]),
        "untrusted_from": systems[:1],
        "sensitive_from": systems[1:],
    }


def _usage(random: Random) -> dict[str, Any]:
    return random.choice([{}, {name: random.randint(0, 40) for name in ("writes", "calls", "usd")}])


def _time(random: Random) -> str:
    return (
        f"2026-{random.randint(1, 12):02}-{random.randint(1, 28):02}"
        f"T{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}.000Z"
    )


def _arguments(random: Random, words: Words) -> dict[str, Any]:
    names = ["service", "environment", "replicas", "context", "body", "token", words.one(random)]
    return {random.choice(names): _odd(random, words) for _ in range(random.randint(0, 5))}


def _odd(random: Random, words: Words) -> Any:
    return copy.deepcopy(random.choice([random.choice(ODD), words.one(random)]))


def _spoil(random: Random, document: dict[str, Any], words: Words) -> None:
    """Take something out of a document, or put something else in its place.

    What the gateway gives as a list stays one, with other members: `some … in` over anything else
    is the one known deviation (see `test_deviations.py`). In arguments everything may stand.
    """
    place: Any = document
    listed = True
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = random.choice(keys)
        listed = listed and key != "arguments"
        if isinstance(place[key], dict | list) and place[key] and random.random() < 0.75:
            place = place[key]
            continue
        if random.random() < 0.4:
            del place[key]
        elif listed and isinstance(place[key], list):
            place[key] = [_odd(random, words) for _ in range(random.randint(0, 3))]
        else:
            place[key] = _odd(random, words)
        return
