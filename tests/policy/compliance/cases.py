"""OPA's compliance cases, which of them the portable profile covers, and how an answer is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.plugins.machine import ROOT
from tests.policy.compliance.evaluate import SET


@dataclass(frozen=True, slots=True)
class Case:
    """One compliance case as its file has it."""

    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.facts['category']}: {self.facts['note']}"

    @property
    def modules(self) -> list[str]:
        return self.facts.get("modules") or []

    @property
    def wants_error(self) -> bool:
        return "want_error" in self.facts or "want_error_code" in self.facts

    @property
    def question(self) -> str:
        facts = self.facts
        return json.dumps(
            {
                "modules": self.modules,
                "data": facts.get("data"),
                "has_input": "input" in facts,
                "input": facts.get("input"),
                "input_term": facts.get("input_term"),
                "query": facts["query"],
            }
        )

    def holds(self, bindings: list[Any]) -> bool:
        """Whether these are the answers that OPA gives, in any order.

        Where the suite says `sort_bindings`, the order of an array that is a whole binding means
        nothing either: OPA's own runner sorts it.
        """
        wanted = self.facts.get("want_result") or []
        left = list(bindings)
        if self.facts.get("sort_bindings"):
            left = [{name: _as_set(value) for name, value in row.items()} for row in left]
        for row in wanted:
            found = next((index for index, each in enumerate(left) if _same(row, each)), None)
            if found is None:
                return False
            left.pop(found)
        return not left


def read(file: Path) -> list[Case]:
    lines = file.read_text("utf-8").splitlines()
    cases = [Case(json.loads(line)) for line in lines]
    return [case for case in cases if not case.facts["ignore"]]


@dataclass(slots=True)
class Verdicts:
    """How the engine did: right, loudly wrong (an error where OPA answers), silently wrong."""

    right: int
    loud: list[str]
    silent: list[str]


def judge(cases: Sequence[Case]) -> Verdicts:
    """Ask the embedded engine each case that the profile covers; hold the answers against OPA's.

    Covered are cases that call nothing but builtins of the profile and their own functions.
    """
    found = Verdicts(right=0, loud=[], silent=[])
    for case, answer in zip(cases, _answers(cases), strict=True):
        if answer["outside"] != []:
            continue
        if "error" in answer:
            right, wrong = case.wants_error, found.loud
        else:
            right = not case.wants_error and case.holds(answer["bindings"])
            wrong = found.silent
        if right:
            found.right += 1
        else:
            wrong.append(case.name)
    return found


def _answers(cases: Sequence[Case]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.policy.compliance.evaluate"],
        input="".join(case.question + "\n" for case in cases),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "MIMALLOC_ARENA_RESERVE": "0"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _as_set(value: Any) -> Any:
    return {SET: value} if isinstance(value, list) else value


def _same(wanted: Any, found: Any) -> bool:
    """Equality of values; where the engine has a set, the wanted array may be in any order."""
    if isinstance(found, dict) and set(found) == {SET}:
        if not isinstance(wanted, list) or len(wanted) != len(found[SET]):
            return False
        left = list(found[SET])
        for item in wanted:
            index = next((i for i, each in enumerate(left) if _same(item, each)), None)
            if index is None:
                return False
            left.pop(index)
        return True
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(_same(wanted[k], found[k]) for k in wanted)
    if isinstance(wanted, bool) != isinstance(found, bool):
        return False
    return bool(wanted == found)
