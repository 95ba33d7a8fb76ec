"""What policy tests share: values to ask about, small policies, and points on the real engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from remit import canonical
from remit.document import call_document
from remit.model import (
    Actor,
    Call,
    Caller,
    CallerKind,
    Capabilities,
    Claims,
    Command,
    Decision,
    Deny,
    Effect,
    EnvironmentRule,
    Evaluation,
    Frozen,
    Limits,
    NormalCall,
    Plan,
    PlanKind,
    Tier,
    Tool,
)
from remit.policy.bundle import PolicyBundle, bundle_of
from remit.policy.embedded import EmbeddedEngine
from remit.policy.layers import layer
from remit.policy.point import PolicyPoint

STARTER = Path(str(resources.files("remit") / "templates" / "policy"))
NOW = 1_795_405_186_867

HEAD = """package remit
import rego.v1
import future.keywords.not
default decision := {
    "schema": "remit.decision/1",
    "decision": "deny",
    "reasons": [{"code": "default", "message": "default"}],
}
answer(verdict, more) := object.union({
    "schema": "remit.decision/1",
    "decision": verdict,
    "reasons": [{"code": "asked", "message": "as asked"}],
}, more)
"""

EVALUATION = Evaluation(
    decision_id="dec_test",
    revision="r1",
    engine="none",
    input=Frozen(b"{}"),
    input_digest="sha256:00",
    decided_ms=NOW,
)


def schema(name: str) -> Any:
    text = resources.files("remit").joinpath(f"schemas/{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def policy(body: str, data: Mapping[str, Any] | None = None) -> PolicyBundle:
    """A bundle of one module: the two imports, a default denial, `answer`, and this."""
    return bundle_of({"policy.rego": HEAD + body}, data or {})


def when(case: str, body: str) -> str:
    """A decision rule for questions whose request_id is `case`."""
    return f'decision := {body} if input.request_id == "{case}"\n'


@asynccontextmanager
async def asking(
    bundle: PolicyBundle, *, deadline_ms: int = 10_000, workers: int = 1, memory_mb: int = 512
) -> AsyncIterator[PolicyPoint]:
    """A point on the real engine; the deadline is long so that a busy machine is not a fault."""
    engine = await EmbeddedEngine.start(
        bundle, deadline_ms=deadline_ms, workers=workers, memory_mb=memory_mb
    )
    point = PolicyPoint([layer(engine, bundle)])
    try:
        yield point
    finally:
        await point.aclose()


async def replace(point: PolicyPoint, bundle: PolicyBundle, *, deadline_ms: int = 10_000) -> None:
    """Put another policy in force, as a reload does."""
    point.put(layer(await EmbeddedEngine.start(bundle, deadline_ms=deadline_ms), bundle))


async def ask(point: PolicyPoint, case: str, **more: Any) -> Decision:
    return await point.decide({"request_id": case, **more}, decision_id=f"dec_{case}")


def code_of(decision: Decision) -> str:
    return decision.code.value if isinstance(decision, Deny) else "none"


def engine_of(point: PolicyPoint) -> EmbeddedEngine:
    engine = point.standing.layers[0].engine
    assert isinstance(engine, EmbeddedEngine)
    return engine


def frozen(value: Any) -> Frozen:
    return Frozen(canonical.encode(value))


CALLER = Caller(
    tenant="default",
    subject="deploy-bot",
    kind=CallerKind.AGENT,
    groups=("agents",),
    chain=(Actor(subject="dana", kind=CallerKind.HUMAN),),
)

RESTART = Tool(
    name="restart_service",
    description="Restarts a service.",
    input_schema=frozen({"type": "object"}),
    command=Command(argv=("/bin/true",)),
    effect=Effect.WRITE,
    environment=EnvironmentRule(argument="environment", names=("staging", "production")),
    tags=("ops",),
    digest="sha256:" + "ab" * 32,
)

SANDBOX = Capabilities(name="sandbox", tier=Tier.SANDBOX, digest="sha256:" + "12" * 32, version="1")


def normal_call(arguments: Mapping[str, Any] | None = None, **claims: Any) -> NormalCall:
    given = arguments or {"service": "web", "environment": "staging", "replicas": 1}
    call = Call(
        id="call_1",
        caller=CALLER,
        tool_name=RESTART.name,
        arguments=given,
        received_ms=NOW,
        claims=Claims(**claims),
        source_ip="127.0.0.1",
    )
    return NormalCall(
        call=call,
        tool=RESTART,
        arguments=frozen(given),
        environment=str(given.get("environment", "")),
        digest="sha256:" + "cd" * 32,
    )


def plan_of(kind: PlanKind = PlanKind.MAIN) -> Plan:
    return Plan(
        kind=kind,
        text=b"{}",
        hash="sha256:" + "ef" * 32,
        call_digest="sha256:" + "cd" * 32,
        limits=Limits(),
    )


def question(arguments: Mapping[str, Any] | None = None, **claims: Any) -> dict[str, Any]:
    """A whole call document."""
    return call_document(
        normal=normal_call(arguments, **claims),
        plan=plan_of(),
        capabilities=SANDBOX,
        now_ms=NOW,
    )
