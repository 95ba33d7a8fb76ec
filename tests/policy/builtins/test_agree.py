"""Each builtin of the profile gives the same in the embedded engine and in OPA, or is known not to.

What differs and is not refused where it is written out stands in `known.py`, expression by
expression: one that starts to differ fails here, and one that no longer does fails too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit.policy.builtins import ALLOWED, CAVEATS
from remit.policy.bundle import bundle_of
from remit.policy.lint import lint
from tests.policy.builtins.answers import HEAD, authority, embedded, same
from tests.policy.builtins.expressions import EXPRESSIONS
from tests.policy.builtins.known import KNOWN

ODD: tuple[Any, ...] = (None, True, -1, 0.5, 10**20, "", "a", "é", [], {}, ["a"], {"a": 1})
QUESTION = {"odd": list(ODD), "zero": 0}
SET = "[{1}, 0][input.zero]"
HUGE = 4


def arguments(expression: str) -> list[str]:
    """The arguments of a call, as they are written."""
    found, depth, quoted, skip, current = [], 0, False, False, ""
    for sign in expression[expression.index("(") + 1 : -1]:
        if skip:
            skip = False
        elif quoted:
            skip, quoted = sign == "\\", sign != '"'
        elif sign == '"':
            quoted = True
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        if sign == "," and not depth and not quoted:
            found.append(current.strip())
            current = ""
        else:
            current += sign
    return [*found, current.strip()]


def probes() -> list[tuple[str, str]]:
    """Every expression with the builtin it is about, each written-out argument made odd in turn."""
    found: list[tuple[str, str]] = []
    for name, expressions in EXPRESSIONS.items():
        found += [(name, expression) for expression in expressions]
        if name == "walk":
            continue
        usual = arguments(expressions[0])
        for place in range(len(usual)):
            for number, odd in enumerate([*[f"input.odd[{n}]" for n in range(len(ODD))], SET]):
                if number == HUGE and name.split(".")[0] in ("numbers", "bits"):
                    continue  # neither engine comes back
                given = [*usual[:place], odd, *usual[place + 1 :]]
                found.append((name, f"{name}({', '.join(given)})"))
    return found


def refused(expressions: list[str]) -> set[str]:
    """The expressions that the lint refuses as they are written."""
    head = HEAD.replace("package probe", "package remit.probe")
    text = head + "".join(f"p_{n} := {each}\n" for n, each in enumerate(expressions))
    lines = {finding.place.split(":")[1] for finding in lint(bundle_of({"p.rego": text}, {}))}
    first = head.count("\n") + 1
    return {each for n, each in enumerate(expressions) if str(first + n) in lines}


def test_every_builtin_of_the_profile_is_asked() -> None:
    assert set(EXPRESSIONS) == ALLOWED - {"print"}  # print gives nothing


def test_known_differences_are_of_builtins_that_have_a_caveat() -> None:
    assert set(KNOWN) <= CAVEATS.keys()
    assert CAVEATS.keys() <= ALLOWED


@pytest.mark.slow
@pytest.mark.needs("opa")
@pytest.mark.threat("T-12")
def test_builtins_give_the_same_in_both_engines_but_for_what_is_known(tmp_path: Path) -> None:
    asked = probes()
    expressions = [expression for _, expression in asked]
    skip = refused(expressions)
    ours = embedded(expressions, QUESTION)
    theirs = authority(expressions, QUESTION, tmp_path)
    differing: dict[str, list[str]] = {}
    for (name, expression), one, other in zip(asked, ours, theirs, strict=True):
        if expression not in skip and not same(one, other):
            differing.setdefault(name, []).append(expression)
    assert {name: tuple(found) for name, found in differing.items()} == KNOWN
