"""What policy said of a result is in the log with the outcome, and nothing else came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.canonical import encode
from remit.errors import Code
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.export import export_store
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.testing import ledger_samples as sample
from remit.testing.ledger import MemoryLedger
from remit.testing.ledger_samples import SetClock
from tests.ledger.forging import check, resign, texts

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-46")]

DECISION, INTENT, ABOUT, OUTCOME = 1, 2, 3, 4
Entries = list[dict[str, Any]]


async def told(ledger: SqliteLedger | MemoryLedger, clock: SetClock) -> int:
    """A run whose result policy withheld; gives the index of its outcome."""
    await ledger.activate(sample.activation(), clock.now_ms())
    plan, decision = sample.plan(), sample.allow(clock)
    intent = sample.intent(clock, plan=plan, decision=decision)
    grant = await ledger.commit_intent(intent, [sample.decision_entry(plan, decision)])
    await ledger.start(grant, clock.now_ms())
    said = sample.decision_entry(plan, sample.allow(clock))
    public = {**said.public, "verdict": "deny", "phase": "result", "run": grant.run_id}
    outcome = replace(sample.outcome(clock, grant), code=Code.OUTPUT_WITHHELD)
    draft = sample.outcome_entry()
    review = {"decision": public["decision"], "verdict": "deny"}
    return await ledger.settle(
        outcome,
        replace(draft, public={**draft.public, "review": review}),
        [replace(said, public=public)],
    )


@pytest.fixture
async def entries(ledger: SqliteLedger, store: Path, clock: SetClock) -> Entries:
    await told(ledger, clock)
    await ledger.checkpoint()
    await ledger.aclose()
    return [json.loads(text) for text in texts(list(export_store(store)[0]))]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_outcome_is_the_last_entry_of_its_transaction(
    ledger: SqliteLedger, signer: FileSigner, clock: SetClock, kind: str
) -> None:
    made = ledger if kind == "sqlite" else MemoryLedger(signer=signer, gateway="gw", clock=clock)
    index = await told(made, clock)
    (run,) = await made.runs()
    assert (index, run.outcome_index) == (OUTCOME, OUTCOME)
    assert await sample.events(made) == [
        "gateway.activated", "decision", "call.intent", "decision", "call.outcome",
    ]  # fmt: skip


async def test_log_with_an_answer_about_a_result_verifies(
    entries: Entries, key: VerifierKey, signer: FileSigner
) -> None:
    report = check(resign([encode(entry) for entry in entries], signer), key)
    assert report.ok, report.problem


def updating(at: int, **fields: Any) -> Callable[[Entries], object]:
    return lambda entries: entries[at].update(fields)


def cut(at: int, name: str) -> Callable[[Entries], object]:
    return lambda entries: entries[at].pop(name)


def given(entries: Entries) -> None:
    entries[OUTCOME].pop("code")


def used(entries: Entries) -> None:
    """Something runs on what was said of a result."""
    about, intent = entries[ABOUT], entries[INTENT]
    about["verdict"] = entries[OUTCOME]["review"]["verdict"] = "allow"
    entries.insert(
        ABOUT + 1,
        intent | {"run": "run_x", "fence": intent["fence"] + 1, "decision": about["decision"]},
    )


def twice(entries: Entries) -> None:
    entries.insert(ABOUT + 1, entries[ABOUT] | {"decision": "dec_other"})


def late(entries: Entries) -> None:
    entries.append(entries[ABOUT] | {"decision": "dec_other"})


def again(at: int = OUTCOME + 1, **fields: Any) -> Callable[[Entries], object]:
    """Policy is asked about the stored result, as if it were asked for once more."""

    def change(entries: Entries) -> None:
        said = {"decision": "dec_again", "verdict": "allow", "again": True, **fields}
        entries.insert(at, entries[ABOUT] | said)

    return change


async def test_log_in_which_a_stored_result_was_judged_again_verifies(
    entries: Entries, key: VerifierKey, signer: FileSigner
) -> None:
    for name in ("dec_again", "dec_once_more"):
        again(len(entries), decision=name)(entries)
    for number, entry in enumerate(entries):
        entry["seq"] = number
    report = check(resign([encode(entry) for entry in entries], signer), key)
    assert report.ok, report.problem


def asking(entries: Entries) -> None:
    """People are asked because of what was said of a result."""
    about = entries[ABOUT]
    about["verdict"] = entries[OUTCOME]["review"]["verdict"] = "require_approval"
    entries.append({
        **entries[INTENT], "event": "approval.opened", "approval": "apr_1",
        "decision": about["decision"], "required": 1, "expires": "2030-01-01T00:00:00.000Z",
    })  # fmt: skip


FORGED: dict[str, tuple[Callable[[Entries], object], int, str]] = {
    "it was given all the same": (given, OUTCOME, "and it was given"),
    "the outcome leaves it out": (cut(OUTCOME, "review"), OUTCOME, "another decision"),
    "the outcome says it was allowed": (
        lambda entries: entries[OUTCOME]["review"].update(verdict="allow"),
        OUTCOME,
        "another verdict",
    ),
    "the outcome names one that is not there": (
        lambda entries: entries.pop(ABOUT),
        OUTCOME - 1,
        "another decision",
    ),
    "it is about another run": (updating(ABOUT, run="run_x"), ABOUT, "of no run"),
    "it is about another plan": (
        updating(ABOUT, plan_hash=sample.plan("other").hash), ABOUT, "of no run",
    ),
    "it is said twice": (twice, ABOUT + 1, "of no run"),
    "it is said after the outcome": (late, OUTCOME + 1, "of no run"),
    "it is said again before the outcome": (again(OUTCOME), OUTCOME, "no run that ended"),
    "it is said again of another run": (again(run="run_x"), OUTCOME + 1, "no run that ended"),
    "it is said again of another plan": (
        again(plan_hash=sample.plan("other").hash), OUTCOME + 1, "no run that ended",
    ),
    "something runs on it": (used, ABOUT + 1, "is about a result"),
    "people are asked because of it": (asking, OUTCOME + 1, "not before it"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORGED))
async def test_a_story_of_it_that_does_not_fit_together_breaks_the_log(
    entries: Entries, key: VerifierKey, signer: FileSigner, name: str
) -> None:
    change, index, words = FORGED[name]
    change(entries)
    for number, entry in enumerate(entries):
        entry["seq"] = number
    problem = check(resign([encode(entry) for entry in entries], signer), key).problem
    assert problem is not None
    assert (problem.code, problem.index) == (Code.LOG_INCONSISTENT, index), problem
    assert words in problem.message
