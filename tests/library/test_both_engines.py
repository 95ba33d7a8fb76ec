"""Each policy of the library gives the same whole answers in the embedded engine and in OPA."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from remit import canonical
from remit.policy.library import PACKAGE, with_library
from tests.library.pages import example
from tests.library.test_properties import CASES, Asked, asked, cases
from tests.plugins.machine import opa_binary

pytestmark = [pytest.mark.needs("opa"), pytest.mark.slow]

ASKING = """package asking
import rego.v1
answers := [answer |
    some asked in data.questions
    answer := data.{package}.{rule} with input as asked
]
"""


def _in_opa(name: str, how: str, rule: str, questions: Sequence[Any], folder: Path) -> list[Any]:
    binary = opa_binary()
    assert binary is not None
    bundle = with_library(None, {name: example(name) if how == "example" else {}})
    package = f"{PACKAGE}.{name}"
    files = {**bundle.modules, "asking.rego": ASKING.format(package=package, rule=rule)}
    files["data.json"] = json.dumps({**bundle.data, "questions": questions})
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [binary, "eval", "--strict-builtin-errors", "--bundle", folder, "data.asking.answers"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    return found


def _in_ours(policy: Asked, rule: str, questions: Sequence[Any]) -> list[tuple[str, Any]]:
    return [policy.raw(rule, question) for question in questions]


@pytest.mark.parametrize(("name", "how"), CASES)
@pytest.mark.parametrize("rule", ["decision", "visible"])
def test_answers_are_the_same_to_the_byte(name: str, how: str, rule: str, tmp_path: Path) -> None:
    whole = [case.listing if rule == "visible" else case.question for case in cases()]
    ours = _in_ours(asked(name, how), rule, whole)
    theirs = _in_opa(name, how, rule, whole, tmp_path)
    assert len(theirs) == len(whole)
    differing = [
        question
        for question, (kind, mine), other in zip(whole, ours, theirs, strict=True)
        if kind != "R" or canonical.encode(mine) != canonical.encode(other)
    ]
    assert differing == []


@pytest.mark.parametrize(("name", "how"), CASES)
def test_spoiled_questions_get_the_same_answers(name: str, how: str, tmp_path: Path) -> None:
    spoiled = [case.spoiled for case in cases()]
    judged = [
        (question, answer)
        for question, (kind, answer) in zip(
            spoiled, _in_ours(asked(name, how), "decision", spoiled), strict=True
        )
        if kind == "R"  # a fault is a denial, in OPA too, but ends the whole of this evaluation
    ]
    assert len(judged) > 0.9 * len(spoiled)
    theirs = _in_opa(name, how, "decision", [question for question, _ in judged], tmp_path)
    differing = [
        question
        for (question, mine), other in zip(judged, theirs, strict=True)
        if canonical.encode(mine) != canonical.encode(other)
    ]
    assert differing == []
