"""`python -m bench.policy`: what one decision costs, beside plain Python and a real OPA.

A policy of 200 lines on 250 KB of data. The same documents go to all of them in one run, and all
answers are compared first: 500 of plain Python with the embedded engine, and with OPA where there
is one. CPU is that of all processes that take part.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from tests.plugins.machine import opa_binary

from bench.__main__ import machine
from bench.large_twin import decision
from bench.large_world import POLICY, bundle, data, documents, tools
from bench.load import cpu_seconds
from remit import canonical
from remit.policy.bundle import PolicyBundle
from remit.policy.embedded import EmbeddedEngine
from remit.policy.engine import Engine
from remit.policy.layers import layer
from remit.policy.lint import lint
from remit.policy.opa.supervisor import SupervisedOpa
from remit.policy.point import PolicyPoint

COMPARED = 500
WARM = 200
DEADLINE_MS = 250
GOAL_MS = 2.0

RULE = ("remit.decision",)
Ask = Callable[[dict[str, Any]], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one kind of asking cost: milliseconds a question, and microseconds of CPU."""

    name: str
    p50_ms: float
    p99_ms: float
    worst_ms: float
    cpu_us: float


async def measure(name: str, ask: Ask, asked: Sequence[dict[str, Any]], count: int) -> Cost:
    for number in range(WARM):
        await ask(asked[number % len(asked)])
    times = []
    before = cpu_seconds(os.getpid())[1]
    for number in range(count):
        began = time.perf_counter()
        await ask(asked[number % len(asked)])
        times.append(1000 * (time.perf_counter() - began))
    used = cpu_seconds(os.getpid())[1] - before
    times.sort()
    return Cost(
        name=name,
        p50_ms=times[count // 2],
        p99_ms=times[min(count - 1, int(count * 0.99))],
        worst_ms=times[-1],
        cpu_us=1e6 * used / count,
    )


def canonical_of(answer: Any) -> bytes:
    """A decision with its reasons in an order of their own, for comparing."""
    reasons = sorted(answer["reasons"], key=canonical.encode)
    return canonical.encode({**answer, "reasons": reasons})


async def compare(
    engine: Engine, asked: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> dict[str, int]:
    """How often each answer came, where the engine and plain Python gave the same each time."""
    found: dict[str, int] = {}
    for document in asked[:COMPARED]:
        answer = await engine.evaluate(RULE, canonical.encode(document))
        theirs = canonical_of(canonical.parse(answer.values[0], max_bytes=1 << 20))
        ours = canonical_of(decision(document, facts))
        if theirs != ours:
            raise SystemExit(f"{engine.name} and plain Python differ:\n{theirs!r}\n{ours!r}")
        verdict = str(decision(document, facts)["decision"])
        found[verdict] = found.get(verdict, 0) + 1
    return found


async def engines(policy: PolicyBundle, stack: AsyncExitStack) -> list[Engine]:
    """The embedded engine, and a real OPA where the tests' one is installed."""
    found: list[Engine] = [await EmbeddedEngine.start(policy, deadline_ms=DEADLINE_MS, workers=1)]
    stack.push_async_callback(found[0].aclose)
    binary = opa_binary()
    if binary is None:
        print("no real OPA here: tests/policy/opa/install.sh builds it")
        return found
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="remit-bench-"))
    opa = await SupervisedOpa.start(
        policy, binary=binary, state_dir=Path(folder), deadline_ms=10 * DEADLINE_MS
    )
    stack.push_async_callback(opa.aclose)
    return [*found, opa]


async def run(count: int) -> list[Cost]:
    known = tools()
    policy, facts = bundle(known), data(known)
    found = lint(policy)
    if found:
        raise SystemExit(f"the policy is not in the portable profile: {found[0].error()}")
    asked = list(documents(known, 2_000))
    lines = POLICY.read_text(encoding="utf-8").count("\n")
    print(f"{lines} lines, {len(canonical.encode(facts)) // 1000} KB of data, "
          f"{len(canonical.encode(asked[0])) / 1000:.1f} KB a question")  # fmt: skip

    async def plain(document: dict[str, Any]) -> object:
        return decision(document, facts)

    async def plain_json(document: dict[str, Any]) -> object:
        text = canonical.encode(document)
        return canonical.encode(decision(canonical.parse(text, max_bytes=1 << 20), facts))

    costs = [
        await measure("plain Python", plain, asked, count),
        await measure("plain Python, JSON in and out", plain_json, asked, count),
    ]
    async with AsyncExitStack() as stack:
        for engine in await engines(policy, stack):
            verdicts = await compare(engine, asked, facts)
            print(f"{engine.name}: equal to plain Python on {COMPARED}: {verdicts}")

            async def alone(document: dict[str, Any], engine: Engine = engine) -> object:
                return await engine.evaluate(RULE, canonical.encode(document))

            point = PolicyPoint([layer(engine, policy)])

            async def whole(document: dict[str, Any], point: PolicyPoint = point) -> object:
                return await point.decide(document, decision_id="dec_bench")

            costs.append(await measure(f"{engine.name}, the engine", alone, asked, count))
            costs.append(await measure(f"{engine.name}, the decision", whole, asked, count))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000, help="questions of each kind")
    chosen = parser.parse_args()
    print(machine())
    costs = uvloop.run(run(chosen.count))
    print(f"{'':<52}{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}{'CPU us':>9}")
    for one in costs:
        print(
            f"{one.name:<52}{one.p50_ms:>9.3f}{one.p99_ms:>9.3f}{one.worst_ms:>9.2f}{one.cpu_us:>9.0f}"
        )
    embedded = next(one for one in costs if one.name.endswith("the decision"))
    held = "met" if embedded.p99_ms <= GOAL_MS else "NOT met"
    print(f"goal: embedded decision p99 <= {GOAL_MS} ms: {embedded.p99_ms:.2f} ms, {held}")


if __name__ == "__main__":
    main()
