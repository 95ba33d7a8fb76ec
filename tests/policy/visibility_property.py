"""The law of visibility: a policy never hides a tool whose call it would allow or send to people.

    check(bundle, Names(tools=["restart_service"], groups=["agents"]), seed=7)

Callers, tools and arguments are random, and the documents are made by the gateway's own functions,
so that both rules are asked exactly as it asks them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.canonical import encode
from remit.document import call_document, list_document
from remit.model import Actor, Call, Caller, CallerKind, Claims, Deny, Frozen, Tool
from remit.policy import worker
from remit.policy.bundle import PolicyBundle
from remit.policy.verdict import judge
from remit.stages.normalise import normal_call
from remit.testing.catalog import make_tool
from tests.policy.world import EVALUATION, NOW, SANDBOX, plan_of

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names that the policy's rules tell apart; some that it does not know are used besides."""

    tools: Sequence[str]
    groups: Sequence[str] = ()
    environments: Sequence[str] = ()
    subjects: Sequence[str] = ()


class Chance:
    """Random callers, tools and arguments."""

    def __init__(self, names: Names, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = names

    def _one(self, names: Sequence[str]) -> str:
        return self._random.choice([*names, "other"])

    def caller(self) -> Caller:
        groups = {self._one(self._names.groups) for _ in range(self._random.randrange(4))}
        acts_for = (Actor(subject=self._one(self._names.subjects), kind=CallerKind.HUMAN),)
        return Caller(
            tenant="t",
            subject=self._one(self._names.subjects),
            kind=self._random.choice(list(CallerKind)),
            groups=tuple(sorted(groups)),
            chain=self._random.choice([(), acts_for]),
        )

    def tool(self, environment: str) -> Tool:
        more: dict[str, Any] = {"environment": {"fixed": environment}} if environment else {}
        return make_tool(
            self._one(self._names.tools),
            self._random.choice(["read", "write", "destructive"]),
            risk=self._random.choice(["low", "medium", "high", "critical"]),
            system=self._random.choice(["tickets", "cloud"]),
            returns=self._random.choice([[], ["untrusted"], ["sensitive"]]),
            open_world=self._random.choice([True, False]),
            **more,
        )

    def arguments(self) -> dict[str, Any]:
        keys = ("service", "replicas", "environment", "text")
        kinds = [1, 0, 99, True, None, "web", "staging", "--context=prod", *self._names.tools]
        return {
            self._random.choice(keys): self._random.choice(kinds)
            for _ in range(self._random.randrange(3))
        }

    def environment(self) -> str:
        return self._random.choice([*self._names.environments, "other", ""])

    def now(self) -> int:
        return NOW + self._random.randrange(-400, 400) * DAY_MS

    def claims(self) -> Claims:
        return Claims(purpose=self._random.choice([None, "repair"]))


def check(bundle: PolicyBundle, names: Names, *, seed: int, rounds: int = 1_000) -> Counter[str]:
    """Put random calls to a policy, and the list of each caller; what is hidden must be denied.

    Gives how often each came about: `seen`, `hidden`, and of what was seen `permitted`. A check
    in which one of them never does has checked nothing.
    """
    chance = Chance(names, seed)
    engine = worker.engine_with(dict(bundle.modules), dict(bundle.data))
    found: Counter[str] = Counter()
    for _ in range(rounds):
        listing, question = _documents(chance)
        (tool,) = listing["tools"]
        for entry in bundle.entries:
            seen = _answer(engine, f"data.{entry}.visible", listing).get(tool["name"]) is True
            decision = judge(_answer(engine, f"data.{entry}.decision", question), EVALUATION)
            permitted = not isinstance(decision, Deny)
            assert seen or not permitted, question
            found.update(["seen" if seen else "hidden", *(["permitted"] if permitted else [])])
    return found


def _documents(chance: Chance) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a caller is shown of one tool, and a call of it by that caller."""
    caller, now, environment = chance.caller(), chance.now(), chance.environment()
    tool, arguments = chance.tool(environment), chance.arguments()
    call = Call(
        id="call_1",
        caller=caller,
        tool_name=tool.name,
        arguments=arguments,
        received_ms=now,
        claims=chance.claims(),
    )
    normal = normal_call(call, tool, Frozen(encode(arguments)), environment)
    question = call_document(normal=normal, plan=plan_of(), capabilities=SANDBOX, now_ms=now)
    return list_document(caller=caller, tools=[tool], now_ms=now), question


def _answer(engine: Any, rule: str, document: Mapping[str, Any]) -> Any:
    engine.set_input_json(json.dumps(document))
    kind, text = worker.outcome(engine, rule)
    assert kind == "R", text
    return json.loads(text)
