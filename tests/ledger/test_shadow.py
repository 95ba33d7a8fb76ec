"""What is let go in shadow mode: accepted of plans that say so, and of no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.canonical import encode
from remit.errors import Code, Refused
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.export import export_store
from remit.ledger.findings import as_json, not_proved
from remit.ledger.rules import says_shadow
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import Decision, Permitted, PlanKind
from remit.ports import Ledger
from remit.testing import ledger_samples as sample
from remit.testing.ledger import MemoryLedger
from remit.testing.ledger_samples import NOTHING, SetClock
from tests.ledger.forging import Lines, check, resign, texts

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-45")]

ACTIVATED, DECISION, INTENT, OUTCOME = 0, 1, 2, 3


async def told(ledger: SqliteLedger, clock: SetClock, decision: Permitted, mode: str) -> None:
    """One run of a plan of this mode, with this decision."""
    await ledger.activate(sample.activation(), clock.now_ms())
    plan = sample.plan(mode=mode)
    intent = sample.intent(clock, plan=plan, decision=decision)
    grant = await ledger.commit_intent(intent, [sample.decision_entry(plan, decision)])
    await ledger.start(grant, clock.now_ms())
    await ledger.settle(sample.outcome(clock, grant), sample.outcome_entry())
    await ledger.checkpoint()
    await ledger.aclose()


def exported(store: Path, *, plans: bool = True) -> Lines:
    return list(export_store(store, with_plans=plans)[0])


@pytest.mark.parametrize("verdict", ["allow", "require_approval", "deny"])
async def test_log_of_a_shadow_run_verifies_and_says_how_many_there_were(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey, verdict: str
) -> None:
    answers: dict[str, Decision | None] = {
        "allow": sample.allow(clock),
        "require_approval": sample.require(clock),
        "deny": None,
    }
    await told(ledger, clock, sample.unenforced(clock, answers[verdict]), "shadow")
    report = check(exported(store), key)
    assert report.ok, report.problem
    assert (report.intents, report.unenforced, report.unshown) == (1, 1, 0)
    assert as_json(report)["unenforced_runs"] == 1


async def test_export_without_plans_says_that_it_does_not_show_the_mode(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey
) -> None:
    await told(ledger, clock, sample.unenforced(clock), "shadow")
    report = check(exported(store, plans=False), key)
    assert report.ok
    assert (report.unenforced, report.unshown) == (1, 1)
    assert any("--with-plans" in each for each in not_proved(report))


async def test_run_that_was_not_enforced_of_a_plan_that_is_breaks_the_log(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey, signer: FileSigner
) -> None:
    await told(ledger, clock, sample.allow(clock), "enforce")
    lines = exported(store)
    plan = next(line for line in lines if b'"plan":' in line)
    entries = [json.loads(text) for text in texts(lines)]
    for index in (DECISION, INTENT):
        entries[index] |= {"verdict": "deny", "enforced": False}
    forged = resign([encode(entry) for entry in entries], signer)
    assert check(forged, key).unshown == 1
    forged.insert(2 + DECISION, plan)
    problem = check(forged, key).problem
    assert problem is not None
    assert problem.code is Code.LOG_INCONSISTENT
    assert "plan that does not say so" in problem.message


Change = Callable[[list[dict[str, Any]]], object]

FORGED: dict[str, tuple[Change, int, str]] = {
    "the decision was to hold": (
        lambda entries: entries[DECISION].pop("enforced"), INTENT, "says otherwise",
    ),
    "the intent says that it held": (
        lambda entries: entries[INTENT].pop("enforced"), INTENT, "says otherwise",
    ),
    "the intent has another verdict": (
        lambda entries: entries[INTENT].update(verdict="allow"), INTENT, "does not allow",
    ),
    "nobody knows the verdict": (
        lambda entries: [entries[at].update(verdict="perhaps") for at in (DECISION, INTENT)],
        INTENT, "does not allow",
    ),
    "an approval is named": (
        lambda entries: entries[INTENT].update(approval="apr_1"), INTENT, "names an approval",
    ),
    "approvers are named": (
        lambda entries: entries[INTENT].update(approvers=["olga"]), INTENT, "names an approval",
    ),
    "a preview": (
        lambda entries: entries[INTENT].update(kind="preview"), INTENT, "on a preview",
    ),
    "an older policy": (
        lambda entries: entries[ACTIVATED].update(revision="rev-9"), INTENT, "was active",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORGED))
async def test_a_story_of_it_that_does_not_fit_together_breaks_the_log(
    ledger: SqliteLedger,
    store: Path,
    clock: SetClock,
    key: VerifierKey,
    signer: FileSigner,
    name: str,
) -> None:
    await told(ledger, clock, sample.unenforced(clock), "shadow")
    change, index, words = FORGED[name]
    entries = [json.loads(text) for text in texts(exported(store))]
    change(entries)
    problem = check(resign([encode(entry) for entry in entries], signer), key).problem
    assert problem is not None
    assert (problem.code, problem.index) == (Code.LOG_INCONSISTENT, index)
    assert words in problem.message


async def test_approval_cannot_be_opened_for_a_decision_that_is_not_enforced(
    ledger: SqliteLedger, store: Path, clock: SetClock, key: VerifierKey, signer: FileSigner
) -> None:
    await ledger.activate(sample.activation(), clock.now_ms())
    plan, asked = sample.plan(mode="shadow"), sample.require(clock)
    draft = sample.approval_draft(clock, plan, decision_id=asked.evaluation.decision_id)
    left_aside = sample.unenforced(clock, asked)
    await ledger.open_approval(draft, [sample.decision_entry(plan, left_aside)])
    await ledger.checkpoint()
    await ledger.aclose()
    problem = check(exported(store), key).problem
    assert problem is not None
    assert "did not ask for one" in problem.message


@pytest.fixture(params=["memory", "sqlite"])
def either(
    request: pytest.FixtureRequest, ledger: SqliteLedger, signer: FileSigner, clock: SetClock
) -> Ledger:
    if request.param == "sqlite":
        return ledger
    return MemoryLedger(signer=signer, gateway="gw-1", clock=clock)


REFUSED: dict[str, tuple[bool, str | None, PlanKind]] = {
    "of a plan of a command": (True, None, PlanKind.MAIN),
    "of a plan that is enforced": (True, "enforce", PlanKind.MAIN),
    "of a preview": (True, "shadow", PlanKind.PREVIEW),
    "enforced, of a plan in shadow": (False, "shadow", PlanKind.MAIN),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_no_ledger_writes_an_intent_that_its_plan_does_not_bear_out(
    either: Ledger, clock: SetClock, name: str
) -> None:
    aside, mode, kind = REFUSED[name]
    await either.activate(sample.activation(), clock.now_ms())
    decision = sample.unenforced(clock) if aside else sample.allow(clock)
    intent = sample.intent(clock, plan=sample.plan(mode=mode, kind=kind), decision=decision)
    with pytest.raises(Refused) as refused:
        await either.commit_intent(intent, NOTHING)
    assert refused.value.code is Code.APPROVAL_MISMATCH
    assert await either.runs() == []


async def test_no_ledger_spends_an_approval_on_a_plan_in_shadow(
    either: Ledger, clock: SetClock
) -> None:
    await either.activate(sample.activation(), clock.now_ms())
    plan = sample.plan(mode="shadow")
    opened = await either.open_approval(sample.approval_draft(clock, plan), NOTHING)
    await either.vote(opened.id, plan.hash, sample.vote(clock))
    intent = sample.intent(
        clock, plan=plan, decision=sample.unenforced(clock), approval_id=opened.id
    )
    with pytest.raises(Refused) as refused:
        await either.commit_intent(intent, NOTHING)
    assert refused.value.code is Code.APPROVAL_MISMATCH


@pytest.mark.parametrize("verdict", ["allow", "deny"])
async def test_every_ledger_writes_one_that_its_plan_bears_out(
    either: Ledger, clock: SetClock, verdict: str
) -> None:
    await either.activate(sample.activation(), clock.now_ms())
    answer = sample.allow(clock) if verdict == "allow" else None
    grant = await sample.granted(
        either, clock, plan=sample.plan(mode="shadow"), decision=sample.unenforced(clock, answer)
    )
    entry = await sample.document(either, grant.intent_index)
    assert (entry["verdict"], entry["enforced"]) == (verdict, False)


WORDS = st.sampled_from(['"mode":"shadow"', "shadow", "mode", "upstream", "enforce", "{}"])
JSON = st.recursive(WORDS | st.none() | st.integers(-9, 9), lambda inner: st.lists(inner, max_size=2)
                    | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6)  # fmt: skip


@given(arguments=JSON, mode=st.sampled_from(["shadow", "enforce", None]), preview=st.booleans())
def test_nothing_in_the_arguments_makes_a_plan_say_shadow(
    arguments: Any, mode: str | None, preview: bool
) -> None:
    facts: dict[str, Any] = {"kind": "preview" if preview else "main", "arguments": arguments}
    if mode is not None:
        facts["upstream"] = {"mode": mode, "tool": "x"}
    assert says_shadow(encode(facts)) is (mode == "shadow" and not preview)
