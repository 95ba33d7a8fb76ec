"""A replay is exact: what the real pipeline recorded, the same policy answers again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from remit.cli.policy.evaluate import point_of
from remit.cli.policy.recorded import history
from remit.cli.policy.replay import Outcome, Replay, compared, in_order, replay
from remit.errors import Code
from remit.ledger.decisions import RecordedDecision
from remit.model import Deny, Reason
from remit.policy.bundle import PolicyBundle, bundle_of, read_bundle
from remit.policy.layers import MAIN
from tests.path.conftest import ALLOW, HEAD, MakePath
from tests.path.replaying import LOOSER, MANY, calls, copied, erase, folder, recorded, rewrite, run

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STRICT = HEAD + 'decision := answer("allow", {}) if input.arguments.count != 13\n'


async def replayed(bundles: dict[str, PolicyBundle], store: Path) -> list[Replay]:
    """Each decision that a store holds, put to these layers."""
    past = history(store, 10_000)
    assert past.found == len(past.questions)
    point = await point_of(bundles, 20_000)
    found = []
    try:
        for one, question in zip(past.decisions, past.questions, strict=True):
            found.append(compared(one, await point.decide(question, decision_id=one.id)))
            assert found[-1].decision.evaluation.input.text == one.input
    finally:
        await point.aclose()
    return found


async def test_every_recorded_decision_of_random_calls_is_given_again(
    make_path: MakePath,
) -> None:
    path = await make_path(MANY)
    await calls(path, 300)
    found = await replayed({MAIN: bundle_of({"test.rego": MANY}, {})}, path.store)
    assert len(found) >= 300
    assert {each.outcome for each in found} == {Outcome.SAME}
    said = Counter(each.recorded.code or each.recorded.verdict for each in found)
    assert set(said) == {"allow", "require_approval", "policy_denied", "policy_inconsistent"}
    events = Counter(
        entry["event"] for entry in await path.entries() if entry.get("input_digest") is not None
    )
    assert events["question"] > 20
    assert sum(events.values()) == len(found)
    words = [each.recorded.told for each in found]
    assert None not in words
    assert any("times" in message for told in words for _, message in told or ())


async def test_layers_are_replayed_in_the_order_and_under_the_revision_of_the_record(
    make_path: MakePath, tmp_path: Path
) -> None:
    mine, strict = bundle_of({"test.rego": MANY}, {}), bundle_of({"test.rego": STRICT}, {})
    path = await make_path(layers={"strict": strict, MAIN: mine})
    await calls(path, 60)
    await path.call("act", service="web", count=13)
    last = recorded(path.store)[-1]
    assert [name for name, _ in last.layers] == ["strict", MAIN]
    given = {MAIN: mine, "strict": strict}
    assert list(in_order(given, last)) == ["strict", MAIN]
    found = await replayed(in_order(given, last), path.store)
    assert {each.outcome for each in found} == {Outcome.SAME}
    files = folder(tmp_path / "mine", MANY), folder(tmp_path / "strict", STRICT)
    words = ("explain", last.id, files[0], "--ledger", path.store, "--layer")
    done = await run(*words, f"strict={files[1]}")
    assert done.exit_code == 0, done.output
    assert "the same revision and gives the same answer" in done.stdout
    assert "strict: deny  <- decides" in done.stdout
    (files[1] / "test.rego").write_text(ALLOW)
    other = await run(*words, f"strict={files[1]}")
    assert other.exit_code == 0, other.output
    assert f"    strict: {strict.revision}, here " in other.stdout
    assert f"    {MAIN}: " not in other.stdout
    assert "it answers otherwise: allow: few, rule" in other.stdout


async def test_explaining_a_decision_of_a_running_gateway_says_that_it_is_the_same(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(MANY)
    await path.call("act", service="web", count=70)
    (decision,) = recorded(path.store)
    mine = folder(tmp_path / "mine", MANY)
    words = ("explain", decision.id, mine, "--ledger", path.store)
    done = await run(*words, "--rule", "decision")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{decision.id}, entry 1, 20")
    assert lines[1] == "  recorded: deny: too_many"
    assert lines[2] == f"  revision {read_bundle(mine).revision}, {path.policy.engine}"
    assert lines[3] == "  the policy here has the same revision and gives the same answer"
    assert lines[4:6] == [
        "deny",
        "  too_many: too_many for act, 70 times  (test.rego:27)",
    ]
    assert "does not hold: input.arguments.count <= 60" in done.stdout
    machine = json.loads((await run(*words, "-o", "json")).stdout)
    assert machine["recorded"] | {"time": ""} == {
        "decision_id": decision.id, "entry": 1, "time": "", "decision": "deny",
        "reasons": ["too_many"], "revision": decision.revision, "engine": decision.engine,
        "layers": {}, "revision_here": decision.revision, "outcome": "same", "differs": [],
    }  # fmt: skip
    await path.call("act", service="web", count=1)  # it still writes
    assert len(recorded(path.store)) == 2


async def test_explaining_under_another_policy_says_so_and_what_it_answers(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(MANY)
    await path.call("act", service="web", count=70)
    await path.call("act", service="web", count=90)
    changed, same = recorded(path.store)
    looser = folder(tmp_path / "looser", LOOSER)
    done = await run("explain", changed.id, looser, "--ledger", path.store)
    assert done.exit_code == 0, done.output
    assert f"the policy here is another: {read_bundle(looser).revision}" in done.stdout
    assert "--configured asks all that remit.yaml has" in done.stdout
    assert "  it answers otherwise: require_approval: asks\n" in done.stdout
    assert "not as recorded: verdict, reasons, obligations, messages" in done.stdout
    done = await run("explain", same.id, looser, "--ledger", path.store)
    assert "  it answers the same: deny: too_many\n" in done.stdout


async def test_same_revision_with_another_answer_is_said_loudly_and_ends_1(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(MANY)
    await path.call("act", service="web", count=70)
    (decision,) = recorded(path.store)
    forged = tmp_path / "forged.db"
    db = copied(path.store, forged)
    rewrite(db, decision, '"verdict":"deny"', '"verdict":"allow"')
    db.close()
    mine = folder(tmp_path / "mine", MANY)
    done = await run("explain", decision.id, mine, "--ledger", forged)
    assert done.exit_code == 1
    assert "SAME REVISION AND GIVES ANOTHER ANSWER: deny: too_many" in done.stdout
    assert "not as recorded: verdict\n" in done.stdout
    assert "error[log_inconsistent]: the same revision does not give" in done.stderr


async def one(make_path: MakePath) -> tuple[dict[str, PolicyBundle], RecordedDecision, dict]:
    path = await make_path(MANY)
    await path.call("act", service="web", count=70)
    past = history(path.store, 1)
    return {MAIN: bundle_of({"test.rego": MANY}, {})}, past.decisions[0], dict(past.questions[0])


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("verdict", {"verdict": "allow"}),
        ("verdict", {"code": "policy_error"}),
        ("reasons", {"reasons": ("few",)}),
        ("obligations", {"obligations": ()}),
        ("messages", {"told": (("too_many", "another word"),)}),
    ],
)
async def test_each_part_of_an_answer_is_compared(
    make_path: MakePath, part: str, changed: dict
) -> None:
    bundles, decision, question = await one(make_path)
    found = await replay(bundles, replace(decision, **changed), question)
    assert found.outcome is Outcome.DIFFERENT
    assert found.differs == (part,)
    found = await replay(bundles, replace(decision, told=None), question)
    assert found.outcome is Outcome.SAME


async def test_words_of_an_engine_for_a_fault_are_not_compared(make_path: MakePath) -> None:
    path = await make_path(MANY)
    await path.call("act", service="odd", count=1)
    past = history(path.store, 1)
    (decision,), (question,) = past.decisions, past.questions
    assert decision.code == "policy_inconsistent"
    bundles = {MAIN: bundle_of({"test.rego": MANY}, {})}
    other = replace(decision, told=(("policy_inconsistent", "in other words"),))
    assert (await replay(bundles, other, question)).outcome is Outcome.SAME


async def test_record_that_says_why_there_was_no_answer_contradicts_nothing(
    make_path: MakePath,
) -> None:
    bundles, decision, question = await one(make_path)
    late = replace(decision, code="policy_unavailable", reasons=("policy_unavailable",))
    assert (await replay(bundles, late, question)).outcome is Outcome.NONE_RECORDED
    layered = replace(decision, reasons=("policy_unavailable",))
    assert (await replay(bundles, layered, question)).outcome is Outcome.DIFFERENT
    here = await replay(bundles, decision, question)
    assert isinstance(here.decision, Deny)
    told = replace(
        here.decision,
        code=Code.POLICY_UNAVAILABLE,
        reasons=(Reason(code="policy_unavailable", message=""),),
    )
    assert compared(decision, told).outcome is Outcome.NO_ANSWER


async def test_recorded_late_answer_of_the_real_engine_is_explained_as_one(
    make_path: MakePath, tmp_path: Path
) -> None:
    slow = HEAD + (
        'decision := answer("allow", {}) if { count([1 | some i in numbers.range(1, 300); '
        "some j in numbers.range(1, 300); i * j < 0]) == 0 }\n"
    )
    path = await make_path(slow, deadline_ms=5)
    await path.call("act", service="web", count=1)
    (decision,) = recorded(path.store)
    assert decision.code == "policy_unavailable"
    done = await run("explain", decision.id, folder(tmp_path / "p", slow), "--ledger", path.store)
    assert done.exit_code == 0, done.output
    assert "but gave no answer then to compare with" in done.stdout


async def test_erased_input_cannot_be_explained_and_what_was_recorded_is_said(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(MANY)
    await path.call("act", service="web", count=70)
    (decision,) = recorded(path.store)
    db = copied(path.store, tmp_path / "erased.db")
    erase(db, decision)
    db.close()
    mine = folder(tmp_path / "mine", MANY)
    done = await run("explain", decision.id, mine, "--ledger", tmp_path / "erased.db")
    assert done.exit_code == 3
    assert "the input of this decision was erased" in done.stderr
    assert f"recorded is deny (too_many) under {decision.revision}" in done.stderr


async def test_wrong_words_are_told_apart_from_a_decision_that_is_not_there(
    make_path: MakePath, tmp_path: Path
) -> None:
    path = await make_path(MANY)
    mine = folder(tmp_path / "mine", MANY)
    absent = await run("explain", "dec_0", mine, "--ledger", path.store)
    assert absent.exit_code == 3
    assert "error[not_found]: there is no recorded decision of this id" in absent.stderr
    nowhere = await run("explain", "dec_0", mine, "--ledger", tmp_path / "none.db")
    assert nowhere.exit_code == 3
    assert "error[ledger_unavailable]" in nowhere.stderr
    for words in (
        (mine,),
        ("dec_0", mine, mine, "--ledger", path.store),
        ("dec_0", mine, "--input", mine / "test.rego"),
        (mine, "--input", mine / "test.rego", "--ledger", path.store),
        ("dec_0", mine),  # no configuration names a ledger
    ):
        assert (await run("explain", *words)).exit_code == 2, words
