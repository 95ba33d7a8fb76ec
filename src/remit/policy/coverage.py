"""Evaluating with coverage: which lines of a policy were reached, and what `print` said.

A line counts where the engine has something to evaluate there: conditions and the values of
rules without conditions. `default` values and `else` values are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remit.policy.bundle import TEST_SUFFIX
from remit.policy.process import cover_frame, run_once


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule gave (R value, U undefined, F fault), its JSON text, and what it printed."""

    kind: str
    text: str
    prints: tuple[str, ...] = ()

    @property
    def value(self) -> Any:
        """The value; None unless there is one."""
        return json.loads(self.text) if self.kind == "R" else None


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """The lines of one module that were reached, and those that could have been."""

    name: str
    covered: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def percent(self) -> float:
        return percent_of([self])


def percent_of(files: Iterable[FileCoverage]) -> float:
    """How much of these files was reached, to one digit; 100 where there is nothing to reach."""
    known = list(files)
    hit = sum(len(each.covered) for each in known)
    lines = hit + sum(len(each.missed) for each in known)
    return round(100 * hit / lines, 1) if lines else 100.0


def covered(
    modules: Mapping[str, str],
    data: Mapping[str, Any],
    rules: Sequence[str],
    document: Any,
    *,
    timeout_s: float = 10,
) -> tuple[list[Outcome], list[FileCoverage]]:
    """Evaluate rules (full names, `data.remit.decision`) in a process of its own.

    Raises:
        PolicyFault: the policy does not load, or the process was late or died.
    """
    frame = cover_frame(modules, data, list(rules), document)
    told = json.loads(run_once(frame, timeout_s=timeout_s))
    outcomes = [Outcome(kind, text, tuple(prints)) for kind, text, prints in told["answers"]]
    files = [
        FileCoverage(
            each["path"], tuple(sorted(each["covered"])), tuple(sorted(each["not_covered"]))
        )
        for each in told["files"]
    ]
    return outcomes, sorted(files, key=lambda each: each.name)


def without_tests(files: Iterable[FileCoverage]) -> list[FileCoverage]:
    """The files that decide."""
    return [each for each in files if not each.name.endswith(TEST_SUFFIX)]


def joined(reports: Iterable[Sequence[FileCoverage]]) -> list[FileCoverage]:
    """Several reports on the same modules as one: a line is reached if it ever was."""
    hit: dict[str, set[int]] = {}
    lines: dict[str, set[int]] = {}
    for report in reports:
        for each in report:
            hit.setdefault(each.name, set()).update(each.covered)
            lines.setdefault(each.name, set()).update(each.covered, each.missed)
    return [
        FileCoverage(name, tuple(sorted(hit[name])), tuple(sorted(lines[name] - hit[name])))
        for name in sorted(lines)
    ]


def ranges(numbers: Sequence[int]) -> str:
    """Line numbers in short: `3-5, 9`."""
    parts: list[str] = []
    start = before = 0
    for number in [*numbers, 0]:
        if start and number != before + 1:
            parts.append(str(start) if start == before else f"{start}-{before}")
            start = 0
        start, before = start or number, number
    return ", ".join(parts)
