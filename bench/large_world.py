"""What `bench/large/policy.rego` is asked about: 250 KB of data, and calls made from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remit.canonical import encode
from remit.document import call_document
from remit.history import History, Trail
from remit.model import (
    Actor,
    Call,
    Caller,
    CallerKind,
    Capabilities,
    Claims,
    Effect,
    Frozen,
    Limits,
    Plan,
    PlanKind,
    Tier,
    Tool,
)
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.stages.normalise import normal_call
from remit.testing.catalog import make_tool

POLICY = Path(__file__).parent / "large" / "policy.rego"
NOW = 1_795_405_186_867
DAY_MS = 86_400_000
AREAS = ("ops", "db", "net", "chat", "ci", "billing", "search", "web")
VERBS = ("read", "list", "restart", "scale", "drop", "send", "apply", "rotate")
ENVIRONMENTS = ("staging", "production", "sandbox")
TOOLS, ROLES, SUBJECTS, GROUPS = 160, 40, 520, 60
WORDS = ("this", "tool", "is", "kept", "by", "the", "people", "who", "run", "that", "part")

RUNNER = Capabilities(name="sandbox", tier=Tier.SANDBOX, digest="sha256:" + "12" * 32, version="1")


def tool_name(number: int) -> str:
    return f"{AREAS[number % 8]}.{VERBS[number // 8 % 8]}.t{number:03d}"


def tools() -> list[Tool]:
    effects = (Effect.READ, Effect.READ, Effect.WRITE, Effect.DESTRUCTIVE)
    return [
        make_tool(
            tool_name(number),
            effects[number % 4],
            properties={},
            open_world=number % 5 == 0,
            environment={"fixed": ENVIRONMENTS[number % 3]},
        )
        for number in range(TOOLS)
    ]


def data(known: list[Tool]) -> dict[str, Any]:
    """About 250 KB of facts, the same each time."""
    chance = random.Random(7)
    return {
        "tools": {tool.name: _tool(chance, tool) for tool in known},
        "roles": {f"role-{number:02d}": _role(chance) for number in range(ROLES)},
        "subjects": {f"subject-{number:03d}": _holder(chance) for number in range(SUBJECTS)},
        "groups": {f"group-{number:02d}": _holder(chance) for number in range(GROUPS)},
        "networks": ["10.0.0.0/8", "192.168.7.0/24", "2001:db8::/32"],
        "secrets": ["AKIA[0-9A-Z]{16}", "-----BEGIN [A-Z ]*PRIVATE KEY", "^ghp_[A-Za-z0-9]{36}$"],
        "windows": [
            {"zone": "Europe/Berlin", "days": ["Monday", "Tuesday", "Wednesday", "Thursday"],
             "from": 7, "until": 19},
            {"zone": "America/New_York", "days": ["Friday"], "from": 6, "until": 12},
        ],
        "budgets": {"agent": 500, "human": 1_000, "service": 2_000},
    }  # fmt: skip


def _tool(chance: random.Random, tool: Tool) -> dict[str, Any]:
    pinned = tool.digest if chance.random() < 0.95 else "sha256:" + "0" * 64
    return {
        "digest": pinned,
        "environments": sorted({tool.environment.fixed, chance.choice(ENVIRONMENTS)}, key=str),
        "risk": chance.choice(["low", "medium", "high", "critical"]),
        "bounds": {"count": {"minimum": 1, "maximum": chance.choice([5, 50])},
                   "percent": {"minimum": 0, "maximum": 100}},
        "choices": {"service": ["web", "checkout", "search", "ledger"]},
        "required": ["service"] if chance.random() < 0.3 else [],
        "forbidden": ["force", "context"],
        "owner": f"team-{chance.randrange(30)}",
        "notes": " ".join(chance.choice(WORDS) for _ in range(103)),
    }  # fmt: skip


def _role(chance: random.Random) -> dict[str, Any]:
    areas = chance.sample(AREAS, 4)
    return {
        "tools": [f"{area}.{chance.choice(['*', 'read', 'list'])}.*" for area in areas],
        "environments": chance.sample(ENVIRONMENTS, 2),
        "effects": ["read", *chance.choice([[], ["write"], ["write", "destructive"]])],
        "wall_s": chance.choice([10, 20, 30]),
    }


def _holder(chance: random.Random) -> dict[str, Any]:
    return {
        "roles": sorted(f"role-{chance.randrange(ROLES):02d}" for _ in range(3)),
        "delegable": [f"role-{chance.randrange(ROLES):02d}"],
        "name": " ".join(chance.choice(WORDS) for _ in range(15)),
        "since": f"20{chance.randrange(10, 26)}-0{chance.randrange(1, 9)}-01",
    }


def bundle(known: list[Tool]) -> PolicyBundle:
    return bundle_of({"policy.rego": POLICY.read_text(encoding="utf-8")}, data(known))


def documents(known: list[Tool], count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """So many `remit.input/1` documents, as the gateway makes them; some calls are well made."""
    chance = random.Random(seed)
    for number in range(count):
        tool = chance.choice(known)
        arguments: dict[str, Any] = {
            "service": chance.choice(["web", "web", "checkout", "search", "mail"]),
            "count": chance.choice([1, 2, 5, 50, 51]),
            "labels": {"team": f"team-{number % 30}", "why": "a" * chance.randrange(400)},
        }
        if chance.random() < 0.1:
            arguments["force"] = True
        if chance.random() < 0.1:
            arguments["text"] = "AKIA" + "A" * 16
        environment = tool.environment.fixed or ""
        call = Call(
            id=f"call_{number}",
            caller=_caller(chance),
            tool_name=tool.name,
            arguments=arguments,
            received_ms=NOW,
            claims=Claims(purpose="mend it", ticket=chance.choice(["OPS-12", "OPS-12", None])),
            source_ip=chance.choice(["10.1.2.3", "192.168.7.9", "203.0.113.5"]),
        )
        plan = Plan(
            kind=PlanKind.MAIN,
            text=b"{}",
            hash="sha256:" + "ef" * 32,
            call_digest="sha256:" + "cd" * 32,
            limits=Limits(),
        )
        seen = Trail(calls=chance.choice([0, 20, 600]), systems=("ci", "tickets"),
                     untrusted_from=("tickets",) if chance.random() < 0.3 else ())  # fmt: skip
        yield call_document(
            normal=normal_call(call, tool, Frozen(encode(arguments)), environment),
            plan=plan,
            capabilities=RUNNER,
            now_ms=NOW + chance.randrange(30) * DAY_MS + chance.randrange(24) * 3_600_000,
            history=History(since_ms=NOW - DAY_MS, all=seen, session=seen),
        )


def _caller(chance: random.Random) -> Caller:
    groups = tuple(f"group-{chance.randrange(GROUPS):02d}" for _ in range(chance.randrange(1, 5)))
    behind = Actor(subject=f"subject-{chance.randrange(SUBJECTS):03d}", kind=CallerKind.HUMAN)
    return Caller(
        tenant="acme",
        subject=f"subject-{chance.randrange(SUBJECTS):03d}",
        kind=chance.choice(list(CallerKind)),
        groups=groups,
        chain=chance.choice([(), (behind,)]),
    )
