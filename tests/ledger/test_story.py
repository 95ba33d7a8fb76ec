"""A log that is whole and signed, but tells of something that the rules forbid, is broken.

Each case is a gateway that signed what it should not have: entries are changed and signed again
with the true key, so that only the story can give it away.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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
from remit.testing.ledger_samples import SetClock
from tests.ledger.conftest import tell_story
from tests.ledger.forging import check, resign, texts

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Entries = list[dict[str, Any]]
Change = Callable[[Entries], object]

ACTIVATED, DECISION, INTENT, OUTCOME = 0, 1, 2, 3
ASKED, OPENED, VOTED, DECISION_2, INTENT_2, OUTCOME_2, RESOLVED = 4, 5, 6, 7, 8, 9, 10
DECISION_3, INTENT_3 = 11, 12


@pytest.fixture
async def entries(ledger: SqliteLedger, store: Path, clock: SetClock) -> Entries:
    await tell_story(ledger, clock)
    await ledger.aclose()
    found = [json.loads(text) for text in texts(list(export_store(store)[0]))]
    assert [entry["event"] for entry in found] == [
        "gateway.activated",
        "decision",
        "call.intent",
        "call.outcome",
        "decision",
        "approval.opened",
        "approval.voted",
        "decision",
        "call.intent",
        "call.outcome",
        "run.resolved",
        "decision",
        "call.intent",
    ]
    return found


def setting(index: int, **fields: Any) -> Change:
    return lambda entries: entries[index].update(fields)


def without(index: int, name: str) -> Change:
    def change(entries: Entries) -> None:
        del entries[index][name]

    return change


def dropping(index: int) -> Change:
    def change(entries: Entries) -> None:
        del entries[index]

    return change


def repeating(index: int, at: int) -> Change:
    return lambda entries: entries.insert(at, dict(entries[index]))


def inserting(at: int, event: str, **fields: Any) -> Change:
    return lambda entries: entries.insert(at, {**entries[ACTIVATED], "event": event, **fields})


def ending(event: str) -> Change:
    """The approval is over before the intent that uses it."""
    return lambda entries: entries.insert(
        INTENT_2, {**entries[VOTED], "event": event, "operator": "olga"}
    )


def copying(name: str, source: int, target: int) -> Change:
    return lambda entries: entries[target].update({name: entries[source][name]})


def quorums(*asked: tuple[int, list[str]]) -> Change:
    found = [{"required": required, "groups": groups} for required, groups in asked]
    return setting(OPENED, required=asked[0][0], quorums=found)


PLAN = sample.plan("other").hash

STORIES: dict[str, tuple[Change, int, str]] = {
    "an outcome without an intent": (dropping(INTENT), 2, "no intent before"),
    "two outcomes of a run": (repeating(OUTCOME, 4), 4, "an outcome already"),
    "two intents of a run": (repeating(INTENT, 3), 3, "an intent already"),
    "an intent of a run that ended": (copying("run", INTENT, INTENT_3), 12, "intent already"),
    "an intent without its decision": (dropping(DECISION), 1, "not before it"),
    "a decision for another plan": (setting(DECISION, plan_hash=PLAN), 2, "decided on"),
    "a decision that denied": (setting(DECISION, verdict="deny"), 2, "does not allow"),
    "an intent that says it was allowed": (setting(INTENT_2, verdict="allow"), 8, "not allow"),
    "a decision recorded twice": (repeating(DECISION, 2), 2, "recorded before"),
    "a decision of an older policy": (setting(ACTIVATED, revision="rev-2"), 2, "was active"),
    "nothing was active": (dropping(ACTIVATED), 1, "was active"),
    "a decision of another revision": (setting(INTENT, revision="rev-2"), 2, "was active"),
    "fences that fall": (setting(INTENT_3, fence=1), 12, "not greater"),
    "an outcome with another fence": (setting(OUTCOME, fence=9), 3, "another fence"),
    "an outcome of another plan": (setting(OUTCOME, plan_hash=PLAN), 3, "another plan"),
    "an outcome that is still open": (setting(OUTCOME, state="started"), 3, "cannot end in"),
    "an intent while frozen": (inserting(2, "gateway.frozen"), 3, "was frozen"),
    "an approval that is not named": (without(INTENT_2, "approval"), 8, "names none"),
    "approvers who did not approve": (
        setting(INTENT_2, approvers=["mallory"]),
        8,
        "not those who approved",
    ),
    "approvers without an approval": (
        setting(INTENT_3, approvers=["mallory"]),
        12,
        "no approval",
    ),
    "an approval that was not opened": (dropping(OPENED), 5, "not opened before"),
    "an approval opened twice": (repeating(OPENED, 6), 6, "opened before"),
    "an approval that nobody gave": (dropping(VOTED), 7, "not enough people"),
    "an approval that two should give": (quorums((2, [])), 8, "not enough people"),
    "an approval of too few of one group": (quorums((2, ["sre"])), 8, "not enough people"),
    "an approval of the wrong group": (quorums((1, ["security"])), 8, "not enough people"),
    "an approval without its second quorum": (
        quorums((1, ["sre"]), (1, ["security"])),
        8,
        "not enough people",
    ),
    "quorums that are not counted by": (setting(OPENED, required=2), 5, "counts by"),
    "a quorum of nobody": (quorums((1, []), (0, ["sre"])), 5, "counts by"),
    "no quorum": (setting(OPENED, quorums=[]), 5, "counts by"),
    "an approval that was denied": (setting(VOTED, vote="deny"), 8, "denied"),
    "an approval that expired": (ending("approval.expired"), 9, "expired"),
    "an approval that was withdrawn": (ending("approval.withdrawn"), 9, "withdrawn"),
    "an approval that was superseded": (ending("approval.superseded"), 9, "superseded"),
    "an approval past its time": (copying("checked", OPENED, INTENT_2), 8, "had expired"),
    "an approval for another plan": (setting(OPENED, plan_hash=PLAN), 5, "another plan"),
    "a vote on another plan": (setting(VOTED, plan_hash=PLAN), 6, "another plan"),
    "an approval for another call": (setting(INTENT_2, call_digest=PLAN), 8, "another plan"),
    "an approval that nobody asked for": (setting(ASKED, verdict="allow"), 5, "ask for one"),
    "the agent's own approval": (setting(VOTED, voter="agent-7"), 6, "one who made it"),
    "an approval used twice": (copying("approval", INTENT_2, INTENT_3), 12, "spent"),
    "a vote after enough": (repeating(VOTED, 7), 7, "not pending"),
    "a person who votes twice": (
        lambda entries: (quorums((2, []))(entries), repeating(VOTED, 7)(entries)),
        7,
        "had voted before",
    ),
    "a run resolved that is not unknown": (setting(RESOLVED, run="run_x"), 10, "no unknown"),
    "a runner swept while its run is open": (
        lambda entries: inserting(3, "runner.swept", run=entries[INTENT]["run"])(entries),
        3,
        "was open",
    ),
    "a run resolved twice": (repeating(RESOLVED, 11), 11, "no unknown"),
    "an approval ended after its use": (
        lambda entries: entries.insert(9, {**entries[VOTED], "event": "approval.expired"}),
        9,
        "spent before",
    ),
}


@pytest.mark.threat("T-21")
@pytest.mark.parametrize("name", sorted(STORIES))
async def test_a_forbidden_story_is_named_at_its_first_wrong_entry(
    entries: Entries, key: VerifierKey, signer: FileSigner, name: str
) -> None:
    change, index, words = STORIES[name]
    if name == "an approval past its time":
        entries[OPENED]["checked"] = entries[OPENED]["expires"]
    change(entries)
    for number, entry in enumerate(entries):
        entry["seq"] = number
    problem = check(resign([encode(entry) for entry in entries], signer), key).problem
    assert problem is not None
    assert (problem.code, problem.index) == (Code.LOG_INCONSISTENT, index), problem
    assert words in problem.message


@pytest.mark.parametrize(
    "change",
    [
        quorums((1, ["sre"]), (1, [])),
        # Entries of an approval from before there could be several quorums.
        without(OPENED, "quorums"),
    ],
)
async def test_story_in_which_every_quorum_is_met_holds(
    entries: Entries, key: VerifierKey, signer: FileSigner, change: Change
) -> None:
    change(entries)
    assert check(resign([encode(entry) for entry in entries], signer), key).ok


async def test_sweeps_of_runs_that_are_over_or_unknown_hold(
    entries: Entries, key: VerifierKey, signer: FileSigner
) -> None:
    over = entries[OUTCOME]["run"]
    for run in (None, "run_of_an_earlier_log", over):
        inserting(4, "runner.swept", run=run, when="sweep")(entries)
    for number, entry in enumerate(entries):
        entry["seq"] = number
    assert check(resign([encode(entry) for entry in entries], signer), key).problem is None


async def test_the_true_story_signed_again_holds(
    entries: Entries, key: VerifierKey, signer: FileSigner
) -> None:
    assert check(resign([encode(entry) for entry in entries], signer), key).ok


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (DECISION, "policy"),
        (DECISION, "decision"),
        (INTENT, "run"),
        (INTENT, "fence"),
        (OUTCOME, "state"),
        (OPENED, "caller"),
        (OPENED, "required"),
        (VOTED, "voter"),
        (RESOLVED, "event"),
    ],
)
async def test_an_entry_that_lacks_a_field_of_its_event_is_malformed(
    entries: Entries, key: VerifierKey, signer: FileSigner, index: int, name: str
) -> None:
    del entries[index][name]
    problem = check(resign([encode(entry) for entry in entries], signer), key).problem
    assert problem is not None
    assert (problem.code, problem.index) == (Code.LOG_MALFORMED, index)


@pytest.mark.parametrize("text", [b"{}", b"[]", b"{", b'{"a":1.50}', b'{"schema":"remit.entry/1"}'])
async def test_what_is_not_an_entry_is_refused(
    key: VerifierKey, signer: FileSigner, text: bytes
) -> None:
    problem = check(resign([text], signer), key).problem
    assert problem is not None
    assert problem.index == 0
