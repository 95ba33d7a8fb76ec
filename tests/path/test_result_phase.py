"""Policy may look at what a run gave: it is let back, in part, or withheld, and the outcome stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from remit.canonical import encode
from remit.cli.policy.recorded import decision_at
from remit.cli.policy.replay import Outcome, replay
from remit.errors import Code, LedgerFault
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.records import read_store
from remit.ledger.verify import verify
from remit.model import Ending, Reply, RunResult, RunSpec, Tool, Upstream
from remit.policy.bundle import bundle_of
from remit.policy.layers import MAIN
from tests.path.conftest import ALLOW, HEAD, MakePath, Path_, tool
from tests.path.test_path import approve, code, text
from tests.path.test_redaction import everything

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-46")]

SECRET = "hunter2-of-the-database"

SERVER = replace(
    tool("served", result="mcp", command={"argv": ["/bin/server"]}),
    upstream=Upstream(server="files", tool="served", definition="sha256:0"),
)
WATCHED = replace(
    SERVER,
    name="watched",
    digest="sha256:watched",
    upstream=Upstream(server="old", tool="watched", definition="sha256:0", shadow=True),
)
NESTED = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "in": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
}
TOOLS: list[Tool] = [
    tool("as_json", result="json"),
    tool("as_mcp", result="mcp"),
    tool("as_text"),
    tool("keeps", result="json", result_files=["out.txt"]),
    tool("previewed", "destructive", result="json",
         preview={"command": {"argv": ["/bin/echo", "p"]}}),
    tool("nested", result="json", output_schema=NESTED),
    SERVER,
    WATCHED,
]  # fmt: skip


def judging(rule: str) -> str:
    return ALLOW + rule + "\n"


LETS = judging('result := answer("allow", {})')
WITHHOLDS = judging(
    'result := {"schema": "remit.decision/1", "decision": "deny", "reasons": ['
    '{"code": "leak", "message": "it holds a password", "audience": "user"},'
    '{"code": "leak_where", "message": "in the third row"}]}'
)


def output(**constraints: Any) -> str:
    return judging(
        f'result := answer("allow", {json.dumps({"constraints": {"output": constraints}})})'
    )


def printing(value: Any, **more: Any) -> Callable[[RunSpec], Awaitable[RunResult]]:
    async def behave(spec: RunSpec) -> RunResult:
        shown: dict[str, Any] = {
            "ending": Ending.EXIT if spec.upstream is None else Ending.ANSWERED,
            "exit_code": 0 if spec.upstream is None else None,
            "stdout": value if isinstance(value, bytes) else json.dumps(value).encode(),
            "stderr": f"connecting with {SECRET}\n".encode(),
        }
        return RunResult(**(shown | more))

    return behave


MCP = {
    "content": [{"type": "text", "text": f"it is {SECRET}"}],
    "structuredContent": {"password": SECRET, "n": 1},
}


async def made(make_path: MakePath, rego: str, value: Any, **more: Any) -> Path_:
    path: Path_ = await make_path(rego, tools=TOOLS)
    path.runner.behave = printing(value, **more)
    return path


def told(reply: Reply) -> str:
    structured = b"" if reply.structured is None else reply.structured.text
    return (reply.content.text + structured).decode() + json.dumps(dict(reply.decision))


async def judged(path: Path_) -> list[dict[str, Any]]:
    return [each for each in await path.entries() if each.get("phase") == "result"]


async def verified(path: Path_) -> None:
    await path.ledger.checkpoint()
    report = verify(read_store(path.store), VerifierKey.parse(path.ledger.verifier_key))
    assert report.ok, report.problem


# ------------------------------------------------------------------------------------ when, and how


async def test_policy_without_the_rule_is_asked_nothing_about_results(make_path: MakePath) -> None:
    path = await made(make_path, ALLOW, {"n": 1})
    reply = await path.call("as_json")
    assert code(reply) == "ok"
    assert not path.policy.judges_results
    assert (await path.events()).count("decision") == 1
    assert "result_decision_id" not in reply.decision
    assert "review" not in (await path.entries())[-1]


@pytest.mark.parametrize("name", ["as_json", "as_mcp", "as_text", "served"])
async def test_answer_about_a_result_is_in_the_log_before_its_outcome_and_linked(
    make_path: MakePath, name: str
) -> None:
    path = await made(make_path, LETS, MCP)
    reply = await path.call(name)
    assert code(reply) == "ok"
    *_, intent, decision, outcome = await path.entries()
    assert intent["event"] == "call.intent"
    assert (decision["event"], decision["phase"], decision["run"]) == (
        "decision", "result", intent["run"],
    )  # fmt: skip
    assert outcome["review"] == {"decision": decision["decision"], "verdict": "allow"}
    assert reply.decision["result_decision_id"] == decision["decision"]
    asked = json.loads(await path.ledger.value(decision["commitments"]["input"]) or b"")
    assert (asked["phase"], asked["plan"]["hash"]) == ("result", intent["plan_hash"])
    assert asked["result"]["server"] == ("files" if name == "served" else "")
    assert asked["result"]["state"] == "succeeded"
    await verified(path)


async def test_answer_about_a_result_is_given_again_by_a_replay(make_path: MakePath) -> None:
    path = await made(make_path, WITHHOLDS, {"n": 1})
    await path.call("as_json")
    (entry,) = await judged(path)
    recorded, document = decision_at(path.store, entry["decision"])
    found = await replay({MAIN: bundle_of({"test.rego": WITHHOLDS}, {})}, recorded, document)
    assert found.outcome is Outcome.SAME
    assert found.recorded.verdict == "deny"


async def test_only_what_a_call_gave_is_put_to_policy(make_path: MakePath) -> None:
    """Not what its preview printed, and nothing where the server was never asked."""
    path = await made(make_path, WITHHOLDS, {"n": 1})
    await path.call("previewed")
    kinds = [each.get("kind") for each in await path.entries() if each["event"] == "call.intent"]
    assert kinds == ["preview", "main"]
    assert len(await judged(path)) == 1

    async def unasked(spec: RunSpec) -> RunResult:
        return RunResult(ending=Ending.UNASKED, limits_hit=("tool_changed",))

    path.runner.behave = unasked
    assert code(await path.call("served")) == "tool_changed"
    assert len(await judged(path)) == 1
    await verified(path)


async def test_policy_sees_what_the_run_gave(make_path: MakePath) -> None:
    rule = f'result := answer("deny", {{}}) if contains(input.result.content[_].text, "{SECRET}")'
    path = await made(make_path, judging(f'default result := {{"schema": "remit.decision/1", '
                      f'"decision": "allow", "reasons": [{{"code": "x", "message": "x"}}]}}\n{rule}'),
                      MCP)  # fmt: skip
    assert code(await path.call("served")) == "output_withheld"
    path.runner.behave = printing({"content": [{"type": "text", "text": "nothing"}]})
    assert code(await path.call("served", count=2)) == "ok"


# ----------------------------------------------------------------------------------- withheld


@pytest.mark.parametrize("name", ["as_json", "as_mcp", "as_text", "served", "keeps"])
async def test_withheld_result_reaches_nobody_but_operators_and_the_action_stays_done(
    make_path: MakePath, name: str
) -> None:
    path = await made(make_path, WITHHOLDS, MCP, files={"out.txt": SECRET.encode()})
    reply = await path.call(name)
    assert code(reply) == "output_withheld"
    assert reply.decision["outcome"] == "succeeded"
    assert "do not repeat it" in text(reply)
    assert "it holds a password" in text(reply)
    assert "third row" not in told(reply)
    assert SECRET not in told(reply)
    assert "files" not in reply.decision
    assert not path.heard.messages
    outcome = (await path.entries())[-1]
    assert (outcome["state"], outcome["code"]) == ("succeeded", "output_withheld")
    kept = await path.ledger.value(outcome["commitments"]["stdout"])
    assert SECRET in (kept or b"").decode()
    await verified(path)


async def test_withheld_result_is_withheld_when_it_is_asked_for_again(make_path: MakePath) -> None:
    path = await made(make_path, WITHHOLDS, MCP)
    await path.call("as_mcp", key="k")
    again = await path.call("as_mcp", key="k")
    assert again.replayed
    assert SECRET not in told(again)
    assert len(path.runner.specs) == 1


ENDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "failed": ({"exit_code": 3}, "run_failed"),
    "timed out": ({"ending": Ending.TIMED_OUT}, "run_timed_out"),
    "cut": ({"stdout_truncated": True}, "output_too_large"),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_words_of_a_run_that_failed_are_withheld_too(make_path: MakePath, name: str) -> None:
    more, expected = ENDINGS[name]
    path = await made(make_path, WITHHOLDS, SECRET.encode(), **more)
    reply = await path.call("as_text")
    assert code(reply) == expected
    assert SECRET not in told(reply)
    assert len(await judged(path)) == 1
    await verified(path)


BAD = {
    "no value": 'result := answer("allow", {}) if input.phase == "list"',
    "two values": 'result := answer("allow", {})\nresult := answer("deny", {})',
    "nonsense": 'result := {"verdict": "fine"}',
    "people": 'result := answer("require_approval", {"approvals": {"required": 1}})',
    "arguments": 'result := answer("allow", {"constraints": {"arguments": '
                 '{"force": {"service": "x"}}}})',
    "limits of the run": 'result := answer("allow", {"constraints": {"runner": {"wall_s": 1}}})',
    "egress": 'result := answer("allow", {"constraints": {"egress": []}})',
    "a message first": 'result := answer("allow", {"obligations": [{"id": "n", "type": "notify", '
                       '"properties": {"channel": "x", "message": "y"}}]})',
    "an unknown part": 'result := answer("allow", {"constraints": {"output": {"shrink": 1}}})',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_no_well_formed_answer_withholds_and_the_outcome_is_recorded(
    make_path: MakePath, name: str
) -> None:
    path = await made(make_path, judging(BAD[name]), MCP)
    reply = await path.call("as_mcp")
    assert code(reply) == "output_withheld"
    assert SECRET not in told(reply)
    (entry,) = await judged(path)
    assert entry["verdict"] == "deny"
    assert entry["code"].startswith("policy_")
    assert (await path.entries())[-1]["state"] == "succeeded"
    await verified(path)


async def test_policy_that_dies_while_the_run_goes_on_withholds(make_path: MakePath) -> None:
    path = await made(make_path, LETS, MCP)

    async def dies(spec: RunSpec) -> RunResult:
        await path.policy.aclose()
        return await printing(MCP)(spec)

    path.runner.behave = dies
    reply = await path.call("as_mcp")
    assert code(reply) == "output_withheld"
    assert (await path.entries())[-1]["state"] == "succeeded"


async def test_question_that_cannot_even_be_made_withholds_and_the_outcome_is_recorded(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await made(make_path, LETS, MCP)

    async def broken(*_: Any) -> Any:
        raise LedgerFault(Code.LEDGER_UNAVAILABLE, "no history")

    async def runs(spec: RunSpec) -> RunResult:
        monkeypatch.setattr(type(path.pipeline.histories), "of", broken)
        return await printing(MCP)(spec)

    path.runner.behave = runs
    reply = await path.call("as_mcp")
    assert code(reply) == "output_withheld"
    assert (await path.entries())[-1]["state"] == "succeeded"
    assert not await judged(path)


# ------------------------------------------------------------------------------------ in part


async def test_member_that_the_answer_redacts_is_nowhere(make_path: MakePath) -> None:
    path = await made(make_path, output(redact=["/password"]), MCP)
    reply = await path.call("as_mcp")
    assert json.loads(text(reply)) == {"password": "[redacted]", "n": 1}
    (entry,) = await judged(path)
    question = (await path.ledger.value(entry["commitments"]["input"]) or b"").decode()
    assert SECRET in question  # what policy was asked has to be what is replayed
    assert SECRET not in told(reply)
    outcome = (await path.entries())[-1]
    kept = await path.ledger.value(outcome["commitments"]["stdout"])
    assert SECRET not in (kept or b"").decode()
    assert not path.heard.messages


async def test_text_that_the_answer_would_redact_is_withheld(make_path: MakePath) -> None:
    path = await made(make_path, output(redact=["/password"]), SECRET.encode())
    reply = await path.call("as_text")
    assert code(reply) == "output_withheld"
    assert SECRET not in await everything_but_the_question(path, reply)


async def everything_but_the_question(path: Path_, reply: Reply) -> str:
    found = told(reply)
    for entry in await path.entries():
        for name, commitment in entry.get("commitments", {}).items():
            if name != "input":
                found += (await path.ledger.value(commitment) or b"").decode()
    return found


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_bytes": 10}, "output_withheld"),
        ({"max_bytes": 10_000}, "ok"),
        ({"content_types": ["image/png"]}, "output_withheld"),
        ({"content_types": ["application/json", "text/plain"]}, "ok"),
    ],
)
async def test_result_of_more_or_other_than_the_answer_lets_back_is_withheld(
    make_path: MakePath, limits: dict[str, Any], expected: str
) -> None:
    path = await made(make_path, output(**limits), MCP)
    reply = await path.call("as_mcp")
    assert code(reply) == expected
    assert (SECRET in told(reply)) is (expected == "ok")


async def test_constraints_of_the_call_hold_whatever_is_said_of_the_result(
    make_path: MakePath,
) -> None:
    rego = HEAD + (
        'decision := answer("allow", {"constraints": {"output": {"redact": ["/password"]}}})\n'
        'result := answer("allow", {"constraints": {"output": {"redact": ["/n"]}}})\n'
    )
    path = await made(make_path, rego, MCP)
    reply = await path.call("as_mcp")
    assert json.loads(text(reply)) == {"password": "[redacted]", "n": "[redacted]"}


async def test_what_the_constraints_of_the_call_withhold_stays_so_where_less_would_do(
    make_path: MakePath,
) -> None:
    """Without `/in/n` the output is none of the tool's; without all of `/in` it would be one."""
    rego = HEAD + (
        'decision := answer("allow", {"constraints": {"output": {"redact": ["/in/n"]}}})\n'
        'result := answer("allow", {"constraints": {"output": {"redact": ["/in"]}}})\n'
    )
    path = await made(make_path, rego, {"n": 7, "in": {"n": 1}})
    assert code(await path.call("nested")) == "output_withheld"
    path = await made(make_path, rego.replace("/in/n", "/in"), {"n": 7, "in": {"n": 1}})
    assert json.loads(text(await path.call("nested"))) == {"n": 7}


# --------------------------------------------------------------------------- before it is judged


async def test_nothing_is_told_of_a_run_whose_result_will_be_judged(make_path: MakePath) -> None:
    path = await made(make_path, LETS, {"n": 1})
    await path.call("as_json")
    assert not path.heard.messages
    path = await made(make_path, ALLOW, {"n": 1})
    await path.call("as_json")
    assert SECRET in path.heard.messages[0]


async def test_words_of_a_failed_preview_are_not_told_where_results_are_judged(
    make_path: MakePath,
) -> None:
    path = await made(make_path, LETS, SECRET.encode(), exit_code=1)
    reply = await path.call("previewed")
    assert code(reply) == "preview_failed"
    assert SECRET not in told(reply)
    path = await made(make_path, ALLOW, SECRET.encode(), exit_code=1)
    assert SECRET in told(await path.call("previewed"))


async def test_approved_run_is_judged_with_its_approval(make_path: MakePath) -> None:
    rego = HEAD + (
        'decision := answer("require_approval", {"approvals": {"required": 1, "ttl_s": 600}}) '
        'if input.phase == "call"\n'
        'result := answer("allow", {}) if count(input.approvals) == 1\n'
    )
    path = await made(make_path, rego, {"n": 1})
    await approve(path, (await path.call("as_json")).decision["approval_id"])
    assert code(await path.call("as_json")) == "ok"


async def test_result_in_shadow_mode_is_judged_and_let_back(make_path: MakePath) -> None:
    path = await made(make_path, WITHHOLDS, MCP)
    reply = await path.call("watched")
    assert code(reply) == "ok"
    assert SECRET in told(reply)
    (entry,) = await judged(path)
    assert (entry["verdict"], entry["enforced"]) == ("deny", False)
    await verified(path)


async def test_call_that_is_withdrawn_meanwhile_still_gets_its_outcome(make_path: MakePath) -> None:
    path = await made(make_path, WITHHOLDS, MCP)
    ran = asyncio.Event()

    async def runs(spec: RunSpec) -> RunResult:
        ran.set()
        return await printing(MCP)(spec)

    path.runner.behave = runs
    calling = asyncio.ensure_future(path.call("as_mcp"))
    await ran.wait()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await path.pipeline.drain(5)
    assert (await path.entries())[-1]["review"]["verdict"] == "deny"


# -------------------------------------------------------------------------------------- layers


async def test_only_layers_with_the_rule_are_asked_and_the_strictest_holds(
    make_path: MakePath,
) -> None:
    layers = {
        "org": bundle_of({"org.rego": WITHHOLDS}, {}),
        MAIN: bundle_of({"test.rego": ALLOW}, {}),
    }
    path: Path_ = await make_path(layers=layers, tools=TOOLS)
    path.runner.behave = printing(MCP)
    assert code(await path.call("as_mcp")) == "output_withheld"
    (entry,) = await judged(path)
    assert [each["name"] for each in entry["policy"]["layers"]] == ["org", MAIN]
    both = {name: bundle_of({"a.rego": rego}, {}) for name, rego in
            [("org", output(redact=["/password"])), (MAIN, output(redact=["/n"]))]}  # fmt: skip
    path = await make_path(layers=both, tools=TOOLS)
    path.runner.behave = printing(MCP)
    shown = json.loads(text(await path.call("as_mcp")))
    assert shown == {"password": "[redacted]", "n": "[redacted]"}


async def test_rule_that_comes_into_force_is_asked_from_the_next_result_on(
    make_path: MakePath,
) -> None:
    path = await made(make_path, ALLOW, MCP)
    assert code(await path.call("as_mcp")) == "ok"
    await path.load(WITHHOLDS)
    assert code(await path.call("as_mcp", count=2)) == "output_withheld"


async def test_everything_is_there_where_nothing_is_withheld(make_path: MakePath) -> None:
    path = await made(make_path, LETS, MCP)
    assert SECRET in await everything(path, await path.call("as_mcp"))


# --------------------------------------------------------------------------- asked for once more


async def stored(make_path: MakePath, name: str, value: Any = MCP, **more: Any) -> Path_:
    """A call with a key that was made while no policy had anything to say of results."""
    path = await made(make_path, ALLOW, value, **more)
    await path.call(name, key="k")
    return path


KEPT: dict[str, Any] = {
    "as_json": encode({"password": SECRET, "n": 1}),
    "as_mcp": MCP,
    "as_text": SECRET.encode(),
    "served": MCP,
}


@pytest.mark.parametrize("name", KEPT)
async def test_stored_result_is_given_as_the_policy_of_now_lets_it_back(
    make_path: MakePath, name: str
) -> None:
    path = await stored(make_path, name, KEPT[name])
    assert SECRET in told(await path.call(name, key="k"))
    await path.load(WITHHOLDS)
    reply = await path.call(name, key="k")
    assert (reply.replayed, code(reply)) == (True, "output_withheld")
    assert SECRET not in told(reply)
    assert "it holds a password" in text(reply)
    assert reply.decision["outcome"] == "succeeded"
    await path.load(LETS)
    assert SECRET in told(await path.call(name, key="k"))
    assert len(path.runner.specs) == 1
    first, second = await judged(path)
    assert (first["verdict"], second["verdict"]) == ("deny", "allow")
    assert first["again"] is second["again"] is True
    await verified(path)


@pytest.mark.parametrize("name", KEPT)
async def test_policy_is_shown_of_a_stored_result_what_it_was_shown_of_the_run(
    make_path: MakePath, name: str
) -> None:
    path = await made(make_path, LETS, KEPT[name])
    await path.call(name, key="k")
    await path.call(name, key="k")
    shown = [
        json.loads(await path.ledger.value(each["commitments"]["input"]) or b"")["result"]
        for each in await judged(path)
    ]
    assert len(shown) == 2
    for part in ("content", "structured", "state", "ending", "valid", "is_error", "server"):
        assert shown[0][part] == shown[1][part], part


async def test_stored_result_is_redacted_as_the_policy_of_now_wants_it(
    make_path: MakePath,
) -> None:
    path = await stored(make_path, "as_json", {"password": SECRET, "n": 1})
    await path.load(output(redact=["/password"]))
    reply = await path.call("as_json", key="k")
    assert code(reply) == "ok"
    assert reply.structured is not None
    assert reply.structured.value() == {"password": "[redacted]", "n": 1}
    assert SECRET not in told(reply)


async def test_words_of_a_stored_failure_are_withheld_too(make_path: MakePath) -> None:
    path = await stored(make_path, "as_text", SECRET.encode(), exit_code=3)
    await path.load(WITHHOLDS)
    reply = await path.call("as_text", key="k")
    assert (reply.replayed, code(reply)) == (True, "run_failed")
    assert SECRET not in told(reply)


async def test_stored_result_that_cannot_be_put_to_policy_is_withheld(
    make_path: MakePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await stored(make_path, "as_json")
    await path.load(LETS)

    async def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(path.ledger, "append", breaks)
    reply = await path.call("as_json", key="k")
    assert code(reply) == "output_withheld"
    assert SECRET not in told(reply)


async def test_stored_result_of_a_server_in_shadow_mode_is_given_as_it_is(
    make_path: MakePath,
) -> None:
    path = await stored(make_path, "watched")
    await path.load(WITHHOLDS)
    assert SECRET in told(await path.call("watched", key="k"))
    assert not await judged(path)
