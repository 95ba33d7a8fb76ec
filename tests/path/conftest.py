"""A whole pipeline on a real ledger and the real policy engine, with a scripted runner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from remit.administration import Administration
from remit.backends import Backends, NoChannels, NoConsents, PathSettings
from remit.catalog.arguments import SchemaCheck
from remit.catalog.command import build_tool
from remit.catalog.spec import ToolSpec
from remit.catalog.store import CommandCatalog
from remit.clock import SystemClock
from remit.identity.keys import CallerKey, KeyIdentity
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import (
    Activation,
    Actor,
    Amount,
    Call,
    Caller,
    CallerKind,
    Claims,
    Entry,
    Operator,
    Permission,
    Reply,
    Tool,
)
from remit.pipeline import Pipeline
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.embedded import EmbeddedEngine
from remit.policy.layers import MAIN, layer
from remit.policy.point import PolicyPoint
from remit.ports import Consents, Notifier
from remit.rates import MemoryRates
from remit.testing.artifacts import MemoryArtifacts
from remit.testing.credentials import MemoryCredentials
from remit.testing.scripted import CAPABILITIES, ScriptedRunner

HEAD = """package remit

import rego.v1
import future.keywords.not

default decision := {
    "schema": "remit.decision/1", "decision": "deny",
    "reasons": [{"code": "no_rule", "message": "no rule allows this", "audience": "user"}],
}

reason := [{"code": "rule", "message": "a rule of the test", "audience": "user"}]

visible[name] := true if { some tool in input.tools; name := tool.name; name != "hidden" }

answer(verdict, more) := object.union(
    {"schema": "remit.decision/1", "decision": verdict, "reasons": reason}, more
)
"""

ALLOW = HEAD + 'decision := answer("allow", {})\n'
ASK = HEAD + (
    'decision := answer("require_approval", {"approvals": {"required": 1, "ttl_s": 600}}) '
    'if input.phase == "call"\n'
    'decision := answer("allow", {}) if input.phase == "preview"\n'
)

AGENT = Caller(
    tenant="test",
    subject="bot",
    kind=CallerKind.AGENT,
    groups=("agents",),
    chain=(Actor(subject="dana", kind=CallerKind.HUMAN),),
    key_id="k1",
)
OLGA = Operator(subject="olga", groups=("sre",), may=frozenset(Permission), key_id="o1")


def tool(name: str, effect: str = "write", **more: Any) -> Tool:
    """A tool with a `service` and a `count`, of which the test says what matters to it."""
    spec = {
        "name": name,
        "description": f"{name} for a test",
        "effect": effect,
        "input_schema": {
            "type": "object",
            "properties": {
                "service": {"type": "string"},
                "count": {"type": "integer", "default": 1},
            },
        },
        "command": {"argv": ["/bin/true", "--count={count}"]},
        "consequence": "Do it {count} times.",
    }
    return build_tool(ToolSpec.model_validate(spec | more))


class Heard:
    """A progress listener that keeps what it heard."""

    wanted = True

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.amounts: list[Amount | None] = []

    async def report(self, message: str, amount: Amount | None = None) -> None:
        self.messages.append(message)
        self.amounts.append(amount)


@dataclass
class Path_:
    """A pipeline under test, and short ways to use it."""

    pipeline: Pipeline
    administration: Administration
    runner: ScriptedRunner
    ledger: SqliteLedger
    clock: SystemClock
    policy: PolicyPoint
    tools: list[Tool]
    store: Path
    credentials: MemoryCredentials
    artifacts: MemoryArtifacts
    heard: Heard = field(default_factory=Heard)

    async def call(
        self,
        name: str,
        caller: Caller = AGENT,
        key: str | None = None,
        session: str | None = None,
        **arguments: Any,
    ) -> Reply:
        call = Call(
            id=self.clock.new_id("call"),
            caller=caller,
            tool_name=name,
            arguments=arguments,
            received_ms=self.clock.now_ms(),
            claims=Claims(purpose="because the agent says so", session_id=session),
            idempotency_key=key,
        )
        return await self.pipeline.call(call, self.heard)

    async def entries(self) -> list[dict[str, Any]]:
        import json

        found: list[Entry] = list(await self.ledger.entries(0, 10_000))
        return [json.loads(entry.text) for entry in found]

    async def events(self) -> list[str]:
        return [entry["event"] for entry in await self.entries()]

    async def load(self, rego: str) -> None:
        """Put another policy in force, as an operator's reload does."""
        bundle = bundle_of({"test.rego": rego}, {})
        self.policy.put(layer(await EmbeddedEngine.start(bundle, deadline_ms=5_000), bundle))
        await self.activate()

    async def activate(self) -> None:
        await self.ledger.activate(
            Activation(
                revision=self.policy.revision,
                tools={one.name: one.digest for one in self.tools},
                keys=frozenset({"k1", "k2"}),
            ),
            self.clock.now_ms(),
        )


MakePath = Callable[..., Any]

TOOLS = [
    tool("look", "read"),
    tool("act"),
    tool("act_idempotent", idempotent=True),
    tool("stoppable", on_cancel="stop"),
    tool("destroy", "destructive"),
    tool(
        "previewed",
        "destructive",
        preview={"command": {"argv": ["/bin/echo", "preview", "--count={count}"]}},
    ),
    tool("hidden"),
    tool("as_json", result="json", output_schema={"type": "object", "required": ["n"]}),
    tool("as_mcp", result="mcp"),
]


@pytest.fixture
async def make_path(tmp_path: Path) -> AsyncIterator[MakePath]:
    made: list[Path_] = []

    async def make(
        rego: str = ALLOW,
        refusals: int = 1000,
        authentications: int = 1000,
        layers: Mapping[str, PolicyBundle] | None = None,
        deadline_ms: int = 5_000,
        questions: int = 1000,
        tools: list[Tool] = TOOLS,
        notifier: Notifier | None = None,
        holds: Mapping[str, bool] = MappingProxyType({}),
        secrets: Mapping[str, str] = MappingProxyType({"vault:ci": "hunter2-hunter2"}),
        lent_files: Mapping[str, str] = MappingProxyType({}),
        consents: Consents | None = None,
        keys: Sequence[CallerKey] = (),
        **settings: Any,
    ) -> Path_:
        folder = tmp_path / f"p{len(made)}"
        folder.mkdir()
        clock = SystemClock()
        signer = FileSigner.create(folder / "log.key", "remit.test/log")
        ledger = SqliteLedger.open(folder / "ledger.db", signer=signer, gateway="gw", clock=clock)
        named = layers or {MAIN: bundle_of({"test.rego": rego}, {})}
        policy = PolicyPoint(
            [
                layer(await EmbeddedEngine.start(each, deadline_ms=deadline_ms), each, name=name)
                for name, each in named.items()
            ]
        )
        runner = ScriptedRunner(capabilities=replace(CAPABILITIES, holds=holds))
        credentials = MemoryCredentials(ledger, secrets, files=lent_files)
        artifacts = MemoryArtifacts()
        backends = Backends(
            credentials=credentials,
            artifacts=artifacts,
            consents=consents or NoConsents(),
            identity=KeyIdentity(keys, [], now=clock.now_ms),
            catalog=CommandCatalog(tools),
            arguments=SchemaCheck(),
            policy=policy,
            runner=runner,
            ledger=ledger,
            rates=MemoryRates(
                {"refusal": refusals, "question": questions, "authentication": authentications}
            ),
            clock=clock,
            notifier=notifier or NoChannels(),
        )
        pipeline = Pipeline(backends, PathSettings(gateway="gw", **({"hold_s": 0} | settings)))
        path = Path_(
            pipeline=pipeline,
            administration=Administration(pipeline),
            runner=runner,
            ledger=ledger,
            clock=clock,
            policy=policy,
            tools=tools,
            store=folder / "ledger.db",
            credentials=credentials,
            artifacts=artifacts,
        )
        await path.activate()
        made.append(path)
        return path

    yield make
    for path in made:
        await path.pipeline.drain(5)
        await path.ledger.aclose()
        await path.policy.aclose()
