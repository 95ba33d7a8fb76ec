"""The request path end to end: what runs, what does not, and what the log says of it."""

from __future__ import annotations

import asyncio
import json

import pytest

from remit.errors import Code, Conflict, Refused
from remit.model import (
    Ending,
    Operator,
    Permission,
    Reply,
    RunResult,
    RunSpec,
    RunState,
    Verdict,
)
from remit.telemetry import POLICY_FAULTS
from remit.testing.scripted import ends
from tests.path.conftest import ALLOW, ASK, HEAD, OLGA, MakePath

pytestmark = pytest.mark.anyio


def code(reply: Reply) -> str:
    return str(reply.decision["code"])


def text(reply: Reply) -> str:
    return "\n".join(block["text"] for block in reply.content.value())


async def approve(path: object, approval_id: str, operator: Operator = OLGA) -> None:
    shown = await path.administration.approval(operator, approval_id)  # type: ignore[attr-defined]
    await path.administration.vote(  # type: ignore[attr-defined]
        operator, approval_id, shown.plan_hash, Verdict.APPROVE, None
    )


# ------------------------------------------------------------------------------- the happy path


async def test_allowed_call_runs_once_and_its_receipt_names_its_outcome(
    make_path: MakePath,
) -> None:
    path = await make_path()
    path.runner.behave = ends(b"done\n")
    reply = await path.call("act", count=2)
    assert code(reply) == "ok"
    assert text(reply) == "done\n"
    assert path.runner.times("start") == 1
    entries = await path.entries()
    assert reply.receipt is not None
    outcome = entries[reply.receipt.index]
    assert outcome["event"] == "call.outcome"
    assert outcome["state"] == "succeeded"
    assert outcome["destruction"]["complete"] is True


@pytest.mark.threat("T-14")
async def test_intent_is_in_the_log_before_the_runner_is_started(make_path: MakePath) -> None:
    path = await make_path()
    seen: list[str] = []

    async def behave(_: RunSpec) -> RunResult:
        seen.extend(await path.events())
        return RunResult(ending=Ending.EXIT, exit_code=0)

    path.runner.behave = behave
    await path.call("act")
    assert seen[-1] == "call.intent"
    assert (await path.events())[-1] == "call.outcome"


async def test_what_runs_is_what_the_stored_plan_says(make_path: MakePath) -> None:
    path = await make_path()
    reply = await path.call("act", count=7)
    plan = json.loads(await path.ledger.plan_text(reply.decision["plan_hash"]))
    (spec,) = path.runner.specs.values()
    assert list(spec.argv) == plan["command"]["argv"] == ["/bin/true", "--count=7"]


async def test_same_call_gives_the_same_plan_hash(make_path: MakePath) -> None:
    path = await make_path()
    first, second = await path.call("look", count=3), await path.call("look", count=3)
    other = await path.call("look", count=4)
    assert first.decision["plan_hash"] == second.decision["plan_hash"]
    assert first.decision["plan_hash"] != other.decision["plan_hash"]


@pytest.mark.threat("T-26")
async def test_arguments_and_output_stand_in_the_log_only_as_commitments(
    make_path: MakePath,
) -> None:
    path = await make_path()
    path.runner.behave = ends(b"output-of-the-tool")
    await path.call("act", service="name-only-the-caller-knows")
    text = b"".join(entry.text for entry in await path.ledger.entries(0, 100))
    assert b"name-only-the-caller-knows" not in text
    assert b"output-of-the-tool" not in text


# ------------------------------------------------------------------------------------- refusals


async def test_denied_call_runs_nothing_and_is_recorded(make_path: MakePath) -> None:
    path = await make_path(HEAD)
    reply = await path.call("act")
    assert code(reply) == "policy_denied"
    assert reply.is_error
    assert "no rule allows this" in text(reply)
    assert path.runner.told == []
    last = (await path.entries())[-1]
    assert (last["event"], last["verdict"]) == ("decision", "deny")


@pytest.mark.threat("T-03")
async def test_hidden_tool_answers_like_one_that_does_not_exist(make_path: MakePath) -> None:
    path = await make_path()
    hidden, missing = await path.call("hidden"), await path.call("absent")
    assert hidden.jsonrpc_error == missing.jsonrpc_error == -32602
    assert text(hidden).replace("hidden", "absent") == text(missing)
    assert hidden.decision == missing.decision
    details = [entry.get("detail") for entry in await path.entries()][-2:]
    assert details == ["hidden from this caller", "not in the catalog"]


async def test_invalid_arguments_are_refused_without_echoing_the_value(
    make_path: MakePath,
) -> None:
    path = await make_path()
    reply = await path.call("act", count="a-secret-word")
    assert code(reply) == "invalid_arguments"
    assert "/count" in text(reply)
    assert "a-secret-word" not in text(reply)
    assert path.runner.told == []


@pytest.mark.parametrize("refused", [{}, {"count": "a"}])
async def test_a_refusal_stands_not_where_clients_look_for_what_fits_an_output_schema(
    make_path: MakePath, refused: dict[str, str]
) -> None:
    path = await make_path(HEAD)
    reply = await path.call("as_json", **refused)
    assert reply.is_error
    assert reply.structured is None
    assert code(reply) in text(reply)
    assert (await path.call("act", **refused)).structured is not None


async def test_frozen_gateway_refuses_and_thawed_gateway_serves(make_path: MakePath) -> None:
    path = await make_path()
    await path.administration.freeze(OLGA, True, "incident")
    assert code(await path.call("act")) == "frozen"
    await path.administration.freeze(OLGA, False, "over")
    assert code(await path.call("act")) == "ok"


async def test_refusals_beyond_the_rate_are_counted_not_written_one_by_one(
    make_path: MakePath,
) -> None:
    path = await make_path(HEAD, refusals=3)
    for number in range(10):
        await path.call("act", count=number)
    assert (await path.events()).count("decision") == 3


# ------------------------------------------------------------------------------------ narrowing


@pytest.mark.threat("T-13")
async def test_policy_lowers_a_number_and_the_reply_says_what_ran(make_path: MakePath) -> None:
    rego = HEAD + (
        'decision := answer("allow", {"constraints": {"arguments": {"force": {"count": 2}}}})'
    )
    path = await make_path(rego)
    reply = await path.call("act", count=5)
    assert code(reply) == "ok"
    assert reply.decision["executed_arguments"] == {"count": 2}
    (spec,) = path.runner.specs.values()
    assert spec.argv == ("/bin/true", "--count=2")
    decisions = [entry for entry in await path.entries() if entry["event"] == "decision"]
    assert decisions[1]["narrowed_from"] == decisions[0]["plan_hash"]
    assert reply.decision["plan_hash"] == decisions[1]["plan_hash"]


@pytest.mark.threat("T-13")
async def test_policy_that_keeps_narrowing_is_denied_as_inconsistent(make_path: MakePath) -> None:
    rego = HEAD + (
        "wanted := input.arguments.count - 1\n"
        'decision := answer("allow", {"constraints": {"arguments": {"force": {"count": wanted}}}})'
    )
    path = await make_path(rego)
    reply = await path.call("act", count=5)
    assert code(reply) == "policy_inconsistent"
    assert path.runner.told == []


@pytest.mark.threat("T-13")
async def test_policy_cannot_replace_what_the_caller_gave(make_path: MakePath) -> None:
    rego = HEAD + (
        'decision := answer("allow", {"constraints": {"arguments": {"force": {"service": "b"}}}})'
    )
    path = await make_path(rego)
    assert code(await path.call("act", service="a")) == "constraint_widens"
    assert code(await path.call("act")) == "ok"
    assert path.runner.times("start") == 1


@pytest.mark.threat("T-13")
async def test_forced_value_that_the_schema_refuses_is_refused(make_path: MakePath) -> None:
    rego = HEAD + (
        'decision := answer("allow", {"constraints": {"arguments": {"force": {"nonsense": 1}}}})'
    )
    path = await make_path(rego)
    reply = await path.call("act")
    assert reply.is_error
    assert path.runner.told == []


# ------------------------------------------------------------------------------------- approval


async def test_approval_is_asked_given_and_spent_by_one_run(make_path: MakePath) -> None:
    path = await make_path(ASK, result_ttl_s=0)
    first = await path.call("act")
    assert code(first) == "approval_required"
    assert path.runner.told == []
    await approve(path, first.decision["approval_id"])
    assert code(await path.call("act")) == "ok"
    third = await path.call("act")
    assert path.runner.times("start") == 1
    assert code(third) in ("approval_required", "ok")


async def test_caller_hears_why_a_person_is_asked(make_path: MakePath) -> None:
    reply = await (await make_path(ASK)).call("act")
    assert "a person must agree to this action first: a rule of the test." in text(reply)


@pytest.mark.threat("T-08")
async def test_spent_approval_does_not_carry_a_second_run(make_path: MakePath) -> None:
    path = await make_path(ASK, result_ttl_s=-1)
    first = await path.call("act")
    await approve(path, first.decision["approval_id"])
    assert code(await path.call("act")) == "ok"
    again = await path.call("act")
    assert code(again) == "approval_required"
    assert again.decision["approval_id"] != first.decision["approval_id"]
    assert path.runner.times("start") == 1


@pytest.mark.threat("T-07")
async def test_changed_argument_after_approval_is_refused(make_path: MakePath) -> None:
    path = await make_path(ASK)
    first = await path.call("act", count=1)
    await approve(path, first.decision["approval_id"])
    other = await path.call("act", count=2)
    assert code(other) == "approval_required"
    assert path.runner.told == []


@pytest.mark.threat("T-09")
@pytest.mark.parametrize("name", ["bot", "dana", "BOT"])
async def test_requester_and_its_delegators_cannot_approve(make_path: MakePath, name: str) -> None:
    path = await make_path(ASK)
    first = await path.call("act")
    insider = Operator(subject=name, may=frozenset(Permission))
    with pytest.raises(Refused) as refused:
        await approve(path, first.decision["approval_id"], insider)
    assert refused.value.code is Code.APPROVAL_NOT_ELIGIBLE
    assert code(await path.call("act")) == "approval_required"


@pytest.mark.threat("T-07")
async def test_vote_on_another_plan_hash_is_refused(make_path: MakePath) -> None:
    path = await make_path(ASK)
    first = await path.call("act")
    with pytest.raises(Refused) as refused:
        await path.administration.vote(
            OLGA, first.decision["approval_id"], "sha256:" + "0" * 64, Verdict.APPROVE, None
        )
    assert refused.value.code is Code.APPROVAL_MISMATCH


async def test_call_that_needs_approval_names_the_decision_that_asked(
    make_path: MakePath,
) -> None:
    path = await make_path(ASK)
    reply = await path.call("act")
    decisions = [
        entry["decision"] for entry in await path.entries() if entry["event"] == "decision"
    ]
    assert reply.decision["decision_id"] == decisions[-1]


async def test_person_who_refuses_is_heard(make_path: MakePath) -> None:
    path = await make_path(ASK)
    first = await path.call("act")
    shown = await path.administration.approval(OLGA, first.decision["approval_id"])
    await path.administration.vote(OLGA, shown.id, shown.plan_hash, Verdict.DENY, "not in May")
    assert "a person refused this action: not in May" in text(await path.call("act"))


async def test_denied_approval_refuses_the_call_until_it_lapses(make_path: MakePath) -> None:
    path = await make_path(ASK)
    first = await path.call("act")
    shown = await path.administration.approval(OLGA, first.decision["approval_id"])
    await path.administration.vote(OLGA, shown.id, shown.plan_hash, Verdict.DENY, "not today")
    assert code(await path.call("act")) == "approval_denied"
    with pytest.raises(Conflict):
        await approve(path, shown.id)


async def test_held_call_runs_when_the_approval_comes(make_path: MakePath) -> None:
    path = await make_path(ASK, hold_s=30)
    waiting = asyncio.ensure_future(path.call("act"))
    async with asyncio.timeout(10):
        while not (pending := await path.ledger.approvals(states=None)):
            await asyncio.sleep(0)
    await approve(path, pending[0].id)
    async with asyncio.timeout(10):
        assert code(await waiting) == "ok"
    assert any("Waiting for a person" in message for message in path.heard.messages)


@pytest.mark.threat("T-24")
async def test_what_the_agent_says_is_shown_apart_from_what_would_run(
    make_path: MakePath,
) -> None:
    path = await make_path(ASK)
    first = await path.call("act", count=3)
    shown = (await path.administration.approval(OLGA, first.decision["approval_id"])).shown.value()
    assert shown["consequence"] == "Do it 3 times."
    assert shown["claimed"]["purpose"] == "because the agent says so"
    del shown["claimed"]
    assert "because the agent says so" not in json.dumps(shown)


@pytest.mark.threat("T-25")
async def test_target_that_changed_after_approval_opens_a_new_request_with_the_difference(
    make_path: MakePath,
) -> None:
    path = await make_path(ASK)
    output = {"now": b"delete 3 branches\n"}

    async def behave(spec: RunSpec) -> RunResult:
        preview = spec.argv[0] == "/bin/echo"
        return RunResult(
            ending=Ending.EXIT, exit_code=0, stdout=output["now"] if preview else b"ran"
        )

    path.runner.behave = behave
    first = await path.call("previewed")
    await approve(path, first.decision["approval_id"])
    output["now"] = b"delete 3000 branches\n"
    second = await path.call("previewed")
    assert code(second) == "approval_required"
    assert second.decision["approval_id"] != first.decision["approval_id"]
    assert all(spec.argv[0] == "/bin/echo" for spec in path.runner.specs.values())
    shown = await path.administration.approval(OLGA, second.decision["approval_id"])
    difference = shown.shown.value()["difference"]
    assert "-delete 3 branches" in difference
    assert "+delete 3000 branches" in difference
    await approve(path, shown.id)
    assert text(await path.call("previewed")) == "ran"


async def test_preview_is_a_plan_with_its_own_decision_intent_and_outcome(
    make_path: MakePath,
) -> None:
    path = await make_path(ALLOW)
    path.runner.behave = ends(b"shown")
    await path.call("previewed")
    kinds = [
        (entry["event"], entry["kind"])
        for entry in await path.entries()
        if entry["event"] in ("decision", "call.intent", "call.outcome")
    ]
    assert kinds == [
        (event, kind)
        for kind in ("preview", "main")
        for event in ("decision", "call.intent", "call.outcome")
    ]


async def test_failed_preview_plans_nothing(make_path: MakePath) -> None:
    path = await make_path(ALLOW)
    path.runner.behave = ends(b"no such target", exit_code=1)
    reply = await path.call("previewed")
    assert code(reply) == "preview_failed"
    assert path.runner.times("start") == 1


@pytest.mark.threat("T-10")
async def test_policy_that_changed_while_a_person_thought_is_asked_again(
    make_path: MakePath,
) -> None:
    path = await make_path(ASK)
    first = await path.call("act")
    await approve(path, first.decision["approval_id"])
    await path.load(HEAD + "# now denies\n")
    assert code(await path.call("act")) == "policy_denied"
    assert path.runner.told == []


# -------------------------------------------------------------------------------------- repeats


@pytest.mark.threat("T-15")
async def test_equal_write_in_flight_is_joined_not_run_twice(make_path: MakePath) -> None:
    path = await make_path()
    release = asyncio.Event()

    async def behave(_: RunSpec) -> RunResult:
        await release.wait()
        return RunResult(ending=Ending.EXIT, exit_code=0, stdout=b"once")

    path.runner.behave = behave
    calls = [asyncio.ensure_future(path.call("act")) for _ in range(5)]
    async with asyncio.timeout(10):
        while path.runner.times("start") == 0:
            await asyncio.sleep(0)
    release.set()
    replies = await asyncio.gather(*calls)
    assert {text(reply) for reply in replies} == {"once"}
    assert path.runner.times("start") == 1


async def test_equal_reads_each_run(make_path: MakePath) -> None:
    path = await make_path()
    await asyncio.gather(*(path.call("look") for _ in range(3)))
    assert path.runner.times("start") == 3


async def test_equal_write_after_the_first_finished_runs_again(make_path: MakePath) -> None:
    path = await make_path()
    await path.call("act")
    await path.call("act")
    assert path.runner.times("start") == 2


@pytest.mark.threat("T-15")
async def test_approved_call_repeated_soon_gets_the_stored_result(make_path: MakePath) -> None:
    path = await make_path(ASK)
    path.runner.behave = ends(b"applied")
    first = await path.call("act")
    await approve(path, first.decision["approval_id"])
    ran = await path.call("act")
    again = await path.call("act")
    assert again.replayed
    assert text(again).startswith("applied")
    assert again.receipt is not None
    assert ran.receipt is not None
    assert again.receipt.index == ran.receipt.index
    assert path.runner.times("start") == 1


@pytest.mark.threat("T-15")
async def test_unknown_outcome_refuses_the_same_call_until_a_person_resolves_it(
    make_path: MakePath,
) -> None:
    path = await make_path()

    async def lost(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.LOST)

    path.runner.behave = lost
    first = await path.call("act")
    assert code(first) == "outcome_unknown"
    path.runner.behave = ends(b"fine")
    again = await path.call("act")
    assert code(again) == "outcome_unknown"
    assert path.runner.times("start") == 1
    assert code(await path.call("act", count=9)) == "ok"
    await path.administration.resolve(OLGA, first.decision["run_id"], False, "looked: no effect")
    assert code(await path.call("act")) == "ok"


async def test_approved_call_with_a_new_key_is_a_new_call(make_path: MakePath) -> None:
    path = await make_path(ASK)
    first = await path.call("act")
    await approve(path, first.decision["approval_id"])
    assert code(await path.call("act")) == "ok"
    once_more = await path.call("act", key="again")
    assert code(once_more) == "approval_required"


async def test_unknown_outcome_of_an_idempotent_tool_is_linked_to_its_repetition(
    make_path: MakePath,
) -> None:
    path = await make_path()

    async def lost(_: RunSpec) -> RunResult:
        return RunResult(ending=Ending.LOST)

    path.runner.behave = lost
    first = await path.call("act_idempotent")
    path.runner.behave = ends(b"fine")
    second = await path.call("act_idempotent")
    assert code(second) == "ok"
    run = await path.ledger.run(second.decision["run_id"])
    assert run is not None
    assert run.parent_run_id == first.decision["run_id"]


@pytest.mark.threat("T-15")
async def test_idempotency_key_replays_its_own_call_and_refuses_another(
    make_path: MakePath,
) -> None:
    path = await make_path()
    path.runner.behave = ends(b"sent")
    first = await path.call("act", key="mail-1", count=1)
    second = await path.call("act", key="mail-1", count=1)
    assert not first.replayed
    assert second.replayed
    assert code(await path.call("act", key="mail-1", count=2)) == "idempotency_mismatch"
    assert code(await path.call("act", key="mail-2", count=1)) == "ok"
    assert path.runner.times("start") == 2


# --------------------------------------------------------------------------------------- cancel


async def hang(_: RunSpec) -> RunResult:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def cancelled_after_start(path: object, name: str) -> None:
    call = asyncio.ensure_future(path.call(name))  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        while path.runner.times("start") == 0:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancel_stops_a_read(make_path: MakePath) -> None:
    path = await make_path()
    path.runner.behave = hang
    await cancelled_after_start(path, "look")
    await path.pipeline.drain(5)
    (run,) = await path.ledger.runs()
    assert (run.state, run.code) == (RunState.FAILED, Code.CANCELLED)


async def test_cancel_lets_a_write_finish(make_path: MakePath) -> None:
    path = await make_path()
    release = asyncio.Event()

    async def behave(_: RunSpec) -> RunResult:
        await release.wait()
        return RunResult(ending=Ending.EXIT, exit_code=0)

    path.runner.behave = behave
    await cancelled_after_start(path, "act")
    release.set()
    await path.pipeline.drain(5)
    (run,) = await path.ledger.runs()
    assert run.state is RunState.SUCCEEDED


async def test_cancel_of_a_write_that_says_stop_leaves_its_outcome_unknown(
    make_path: MakePath,
) -> None:
    path = await make_path()
    path.runner.behave = hang
    await cancelled_after_start(path, "stoppable")
    await path.pipeline.drain(5)
    (run,) = await path.ledger.runs()
    assert run.state is RunState.UNKNOWN


async def test_cancel_of_a_held_call_leaves_the_approval_waiting(make_path: MakePath) -> None:
    path = await make_path(ASK, hold_s=30)
    call = asyncio.ensure_future(path.call("act"))
    async with asyncio.timeout(10):
        while not (pending := await path.ledger.approvals(states=None)):
            await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await approve(path, pending[0].id)
    assert code(await path.call("act")) == "ok"


# --------------------------------------------------------------------------------------- output


@pytest.mark.threat("T-23")
async def test_output_that_is_not_the_declared_json_is_withheld_but_the_effect_stands(
    make_path: MakePath,
) -> None:
    path = await make_path()
    path.runner.behave = ends(b'{"n": 1, "n": 2}')
    reply = await path.call("as_json")
    assert code(reply) == "output_invalid"
    assert reply.decision["outcome"] == "succeeded"
    path.runner.behave = ends(b'{"m": 1}')
    assert code(await path.call("as_json", count=2)) == "output_invalid"
    path.runner.behave = ends(b'{"n": 1}')
    good = await path.call("as_json", count=3)
    assert good.structured is not None
    assert good.structured.value() == {"n": 1}


@pytest.mark.threat("T-23")
async def test_mcp_output_is_validated_and_passed_on(make_path: MakePath) -> None:
    path = await make_path()
    path.runner.behave = ends(b'{"content": [{"type": "bogus"}]}')
    assert code(await path.call("as_mcp")) == "output_invalid"
    path.runner.behave = ends(b'{"content": [{"type": "text", "text": "hi"}], "isError": true}')
    reply = await path.call("as_mcp", count=2)
    assert reply.is_error
    assert text(reply) == "hi"


@pytest.mark.threat("T-23")
async def test_control_characters_and_credentials_do_not_leave_with_output(
    make_path: MakePath,
) -> None:
    path = await make_path()
    key = b"remit_agent_" + b"A" * 43
    path.runner.behave = ends(b"\x1b[2Jhello " + key)
    reply = await path.call("look")
    assert text(reply) == "\\x1b[2Jhello ***"


async def test_command_that_fails_says_its_status_and_its_last_words(make_path: MakePath) -> None:
    path = await make_path()
    path.runner.behave = ends(b"no such service", exit_code=3)
    reply = await path.call("act")
    assert code(reply) == "run_failed"
    assert reply.structured is not None
    assert reply.structured.value() == {"decision": dict(reply.decision)}
    assert "Exit status 3" in text(reply)
    assert "no such service" in text(reply)


# -------------------------------------------------------------------------------------- metrics


@pytest.mark.threat("T-12")
async def test_fault_of_policy_is_counted_apart_from_a_denial(make_path: MakePath) -> None:
    def counted(name: str) -> float:
        return float(POLICY_FAULTS.labels(name)._value.get())

    path = await make_path(HEAD)
    before = counted("policy_denied")
    await path.call("act")
    assert counted("policy_denied") == before
    broken = await make_path(HEAD + 'decision := {"decision": "perhaps"} if input.phase == "call"')
    before = counted("policy_bad_decision")
    assert code(await broken.call("act")) == "policy_bad_decision"
    assert counted("policy_bad_decision") == before + 1
