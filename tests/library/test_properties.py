"""Each policy of the library answers every question, and hides nothing that it would allow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema
import pytest

from remit.model import Decision, Deny
from remit.policy import worker
from remit.policy.library import PACKAGE, names, with_library
from remit.policy.verdict import judge
from tests.library.documents import INPUT, Documents
from tests.library.pages import example
from tests.policy.world import EVALUATION, schema

pytestmark = pytest.mark.slow

ROUNDS = 400
CHECK = jsonschema.Draft202012Validator(schema("remit.decision-1"))
CASES = [(name, how) for name in names() for how in ("default", "example")]


class Asked:
    """A policy of the library on the embedded engine, in this process."""

    def __init__(self, name: str, data: Mapping[str, Any]) -> None:
        bundle = with_library(None, {name: data})
        self._engine = worker.engine_with(dict(bundle.modules), dict(bundle.data))
        self._package = f"data.{PACKAGE}.{name}"

    def raw(self, rule: str, document: Mapping[str, Any]) -> tuple[str, Any]:
        self._engine.set_input_json(json.dumps(document))
        kind, text = worker.outcome(self._engine, f"{self._package}.{rule}")
        return kind, json.loads(text) if text else None

    def decision(self, document: Mapping[str, Any]) -> Decision:
        """The decision as Remit reads it: well-formed, consistent, and nothing it cannot enforce."""
        kind, value = self.raw("decision", document)
        assert kind == "R", value
        CHECK.validate(value)
        return judge(value, EVALUATION)


@cache
def asked(name: str, how: str) -> Asked:
    return Asked(name, example(name) if how == "example" else {})


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the list its caller is shown, and the question with something wrong in it."""

    question: Mapping[str, Any]
    listing: Mapping[str, Any]
    spoiled: Mapping[str, Any]


@cache
def cases() -> Sequence[Case]:
    found = []
    for seed in range(ROUNDS):
        documents = Documents(seed)
        question = documents.question()
        listing = documents.listing(question)
        found.append(Case(question, listing, documents.spoiled(deepcopy(question))))
    return found


def test_the_documents_fit_the_schema_of_the_input() -> None:
    check = jsonschema.Draft202012Validator(INPUT)
    for case in cases():
        check.validate(case.question)
        check.validate(case.listing)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_every_question_gets_a_well_formed_decision(name: str, how: str) -> None:
    policy = asked(name, how)
    for case in cases():
        policy.decision(case.question)


@pytest.mark.parametrize("name", names())
def test_the_questions_bring_about_more_than_one_answer(name: str) -> None:
    policy = asked(name, "example")
    found = Counter(type(policy.decision(case.question)) for case in cases())
    assert len(found) > 1 or name == "step_up", found


@pytest.mark.parametrize(("name", "how"), CASES)
def test_what_it_would_permit_is_never_hidden(name: str, how: str) -> None:
    policy = asked(name, how)
    hidden = 0
    for case in cases():
        kind, shown = policy.raw("visible", case.listing)
        assert kind == "R", shown
        if shown.get(case.question["tool"]["name"]) is not True:
            hidden += 1
            assert isinstance(policy.decision(case.question), Deny), case
    assert hidden or name not in {"allowlist", "read_only", "egress_allowlist", "break_glass"}


@pytest.mark.parametrize(("name", "how"), CASES)
def test_spoiled_question_gets_a_decision_or_a_fault_and_never_less_than_one(
    name: str, how: str
) -> None:
    policy = asked(name, how)
    for case in cases():
        kind, value = policy.raw("decision", case.spoiled)
        assert kind in {"R", "F"}, value
        if kind == "R":
            CHECK.validate(value)


@pytest.mark.parametrize(("name", "how"), CASES)
@pytest.mark.parametrize(
    "document", [{}, {"phase": "call"}, {"phase": "result"}, {"phase": "list"}]
)
def test_empty_question_is_denied(name: str, how: str, document: Mapping[str, Any]) -> None:
    assert isinstance(asked(name, how).decision(document), Deny)


@pytest.mark.parametrize("name", names())
def test_settings_that_are_gone_permit_nothing(name: str) -> None:
    bundle = with_library(None, {name: example(name)})
    engine = worker.engine_with(dict(bundle.modules), {"library": {}})
    for case in cases():
        engine.set_input_json(json.dumps(case.question))
        kind, text = worker.outcome(engine, f"data.{PACKAGE}.{name}.decision")
        assert kind == "R", text
        assert json.loads(text)["decision"] == "deny"
