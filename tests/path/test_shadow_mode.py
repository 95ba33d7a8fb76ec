"""An upstream in shadow mode: policy answers and is recorded, and the call goes on all the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from remit.ledger.checkpoint import VerifierKey
from remit.ledger.findings import held, not_proved, remarks
from remit.ledger.records import read_store
from remit.ledger.verify import Report, verify
from remit.model import Call, EgressRule, Ending, Reply, RunResult, RunSpec, Tool, Upstream
from remit.question import Questions
from tests.path.conftest import AGENT, HEAD, MakePath, Path_, tool
from tests.path.test_path import code

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-45")]

ANSWER = b'{"content":[{"text":"done","type":"text"}]}'
TO = EgressRule(host="api.example", port=443)


def served(name: str, effect: str = "write", *, shadow: bool = True, **more: Any) -> Tool:
    """A tool of a server that is in shadow mode, or not."""
    upstream = Upstream(server="files", tool=name, definition="sha256:0", shadow=shadow)
    made = tool(name, effect, result="mcp", command={"argv": ["/bin/server"]}, **more)
    return replace(made, upstream=upstream, digest=f"sha256:{name}{shadow}")


TOOLS = [served("act"), served("look", "read"), served("held", shadow=False), tool("own")]

DENY = HEAD + 'decision := answer("deny", {})\n'
ASK = HEAD + 'decision := answer("require_approval", {"approvals": {"required": 1}})\n'
NARROW = HEAD + (
    'decision := answer("allow", {"constraints": {'
    '"arguments": {"bounds": {"count": {"maximum": 0}}, "force": {"service": "other"}},'
    '"runner": {"wall_s": 1}, "output": {"redact": ["/x"]}}})\n'
)
STEP_UP = HEAD + (
    'decision := answer("allow", {"obligations": ['
    '{"id": "s", "type": "step_up", "properties": {"acr": "gold"}}]})\n'
)
NOTHING = HEAD.replace("default decision", "default undecided")
BROKEN = HEAD + 'decision := answer("allow", {"constraints": {"frobnicate": 1}})\n'
HIDES = DENY.replace('name != "hidden"', 'name == "own"')

EVERY = {
    "denies": (DENY, "deny"),
    "asks people": (ASK, "require_approval"),
    "narrows": (NARROW, "allow"),
    "wants a step-up": (STEP_UP, "allow"),
    "says nothing": (NOTHING, "deny"),
    "says what nobody understands": (BROKEN, "deny"),
    "hides it": (HIDES, "deny"),
}


async def made(make_path: MakePath, rego: str, **more: Any) -> Path_:
    path: Path_ = await make_path(rego, **{"tools": TOOLS, **more})
    path.runner.behave = answers
    return path


async def answers(_: RunSpec) -> RunResult:
    return RunResult(ending=Ending.ANSWERED, stdout=ANSWER)


async def entry(path: Path_, event: str) -> dict[str, Any]:
    return next(each for each in await path.entries() if each["event"] == event)


async def report(path: Path_) -> Report:
    await path.ledger.checkpoint()
    key = VerifierKey.parse(path.ledger.verifier_key)
    return verify(read_store(path.store), key)


@pytest.mark.parametrize("name", EVERY)
async def test_call_goes_on_whatever_policy_says_and_the_answer_is_recorded(
    make_path: MakePath, name: str
) -> None:
    rego, verdict = EVERY[name]
    path = await made(make_path, rego)
    reply: Reply = await path.call("act", service="web", count=7)
    assert (code(reply), reply.is_error) == ("ok", False)
    assert reply.decision["enforced"] is False
    assert reply.decision["verdict"] == verdict
    assert "shadow" in reply.unsafe
    decision, intent = await entry(path, "decision"), await entry(path, "call.intent")
    assert (decision["verdict"], decision["enforced"]) == (verdict, False)
    assert (intent["verdict"], intent["enforced"]) == (verdict, False)
    assert intent["decision"] == decision["decision"] == reply.decision["decision_id"]
    assert "approval.opened" not in await path.events()
    (spec,) = path.runner.specs.values()
    assert spec.upstream is not None
    assert spec.upstream.arguments.value() == {"service": "web", "count": 7}
    assert spec.limits.wall_s == TOOLS[0].limits.wall_s
    plan = json.loads(await path.ledger.plan_text(intent["plan_hash"]) or b"")
    assert plan["upstream"]["mode"] == "shadow"


@pytest.mark.parametrize("name", EVERY)
async def test_the_offline_verifier_counts_what_was_not_enforced(
    make_path: MakePath, name: str
) -> None:
    path = await made(make_path, EVERY[name][0])
    for count in (1, 2):
        await path.call("look", service="web", count=count)
    found = await report(path)
    assert found.ok, found.problem
    assert (found.unenforced, found.unshown) == (2, 0)
    assert any("2 runs on which policy was not enforced" in each for each in remarks(found))
    assert any("2 runs let go in shadow mode" in each for each in held(found))
    assert not any("not enforced" in each for each in not_proved(found))


async def test_policy_that_does_not_answer_in_time_stops_nothing(make_path: MakePath) -> None:
    path = await made(make_path, DENY)
    await path.policy.aclose()
    reply = await path.call("act", service="web")
    assert code(reply) == "ok"
    decision = await entry(path, "decision")
    assert (decision["code"], decision["enforced"]) == ("policy_not_ready", False)


@pytest.mark.parametrize("name", ["held", "own"])
async def test_tools_beside_it_are_held_to_policy(make_path: MakePath, name: str) -> None:
    path = await made(make_path, DENY)
    reply = await path.call(name, service="web")
    assert code(reply) == "policy_denied"
    assert "enforced" not in await entry(path, "decision")
    assert not path.runner.specs


async def test_all_that_the_catalog_declares_is_reached_though_policy_gives_nothing(
    make_path: MakePath,
) -> None:
    holds = {"egress": True}
    reaching = replace(served("act"), egress=(TO,))
    path = await made(make_path, DENY, tools=[reaching], holds=holds)
    await path.call("act", service="web")
    (spec,) = path.runner.specs.values()
    assert spec.egress == (TO,)


async def test_what_the_machine_cannot_give_still_stops_it(make_path: MakePath) -> None:
    reaching = replace(served("act"), egress=(TO,))
    path = await made(make_path, DENY, tools=[reaching])
    reply = await path.call("act", service="web")
    assert code(reply) == "runner_lacks"
    assert (await entry(path, "decision"))["enforced"] is False
    assert not path.runner.specs


async def test_a_freeze_and_wrong_arguments_still_stop_it(make_path: MakePath) -> None:
    path = await made(make_path, DENY)
    assert code(await path.call("act", service=1)) == "invalid_arguments"
    await path.ledger.freeze(True, operator="olga", reason="stop", now_ms=path.clock.now_ms())
    assert code(await path.call("act", service="web")) == "frozen"
    assert not path.runner.specs


async def test_hidden_tools_are_shown_only_where_they_are_in_shadow(make_path: MakePath) -> None:
    path = await made(make_path, HIDES)
    shown = {each.name for each in await path.pipeline.visibility.tools(AGENT)}
    assert shown == {"act", "look", "own"}
    assert code(await path.call("held", service="web")) == "unknown_tool"


async def test_whoever_asks_what_policy_says_hears_what_it_says(make_path: MakePath) -> None:
    path = await made(make_path, DENY)
    about = Call(
        id="call_q",
        caller=AGENT,
        tool_name="remit_can_i",
        arguments={"tool": "act", "arguments": {"service": "web"}},
        received_ms=path.clock.now_ms(),
    )
    reply = await Questions(path.pipeline).answer(about)
    assert reply.structured is not None
    assert reply.structured.value()["decision"] == "deny"


async def test_plan_in_shadow_is_another_plan_than_one_that_is_enforced(
    make_path: MakePath,
) -> None:
    hashes = set()
    for shadow in (True, False):
        path = await made(make_path, HEAD + 'decision := answer("allow", {})\n',
                          tools=[served("act", shadow=shadow)])  # fmt: skip
        hashes.add((await path.call("act", service="web")).decision["plan_hash"])
    assert len(hashes) == 2
